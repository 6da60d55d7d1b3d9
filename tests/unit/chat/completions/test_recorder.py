"""The recorder and the reader of histories, on the real database."""

from typing import Any

import pytest
from django.db import connection, transaction

from apikeys.access.lookup import find_policy_from_thread
from apikeys.access.policy import SiteRules
from apikeys.accounting.ledger import UsageRecord
from apikeys.accounting.recording import Usage
from apikeys.errors import Rejected
from apikeys.object_ids import new_object_id
from chat.completions import histories, recorder
from chat.models import App, Conversation, Message
from tests.support import factories
from tests.support.processes import wait_for

RULES = SiteRules({}, False)


def usage_of(app: App, **fields: Any) -> Usage:
    api_key, _ = factories.make_key(app=app)
    values = {"id": new_object_id(), "team_id": app.team_id, "key_id": api_key.pk, "app_id": app.pk}
    return Usage(**{**values, "endpoint": "chat.completions", "status": 200, "duration_ms": 1, **fields})


def exchange(chat_id: str, answer: str, **fields: Any) -> recorder.Exchange:
    usual = {"question_id": new_object_id(), "question": "q", "answer_id": new_object_id()}
    return recorder.Exchange(chat_id=chat_id, answer=answer, response_data=[], **{**usual, **fields})


@pytest.fixture
def app() -> App:
    return factories.make_app(factories.make_team())


def test_it_works_and_once_only(app: App) -> None:
    item = (usage_of(app), exchange("c", "a"))
    for _ in range(2):
        recorder.batcher.submit_from_thread(item)
    assert UsageRecord.objects.filter(pk=item[0].id).count() == 1
    assert list(Message.objects.filter(conversation__app=app).values_list("role", "content")) == [
        ("user", "q"),
        ("assistant", "a"),
    ]


def test_an_exchange_that_cannot_be_kept_is_charged_all_the_same(app: App) -> None:
    usage = usage_of(app, prompt_tokens=5)
    with pytest.raises(Rejected):
        recorder.batcher.submit_from_thread((usage, exchange("c", "no database takes \0")))
    assert UsageRecord.objects.get(pk=usage.id).prompt_tokens == 5
    assert not Conversation.objects.filter(app=app).exists()


def test_two_answers_of_one_id_at_once(app: App) -> None:
    items = [(usage_of(app), exchange("c", text, answer_id="same")) for text in ("one", "two")]
    futures = [recorder.batcher.enqueue_from_thread(item) for item in items]
    assert [future.result(10) for future in futures] == [None, None]
    stored = Message.objects.filter(conversation__app=app, role="assistant").order_by("pk")
    assert [message.content for message in stored] == ["one", "two"]
    assert [message.data_id == "same" for message in stored] == [True, False]


def test_metadata_is_replaced_and_does_not_grow(app: App) -> None:
    for metadata in ({"a": 1}, {"b": 2}, None):
        recorder.batcher.submit_from_thread((usage_of(app), exchange("c", "a", metadata=metadata)))
    assert Conversation.objects.get(app=app).metadata == {"b": 2}


def test_a_history_is_bounded_in_bytes(app: App) -> None:
    for _ in range(3):
        recorder.batcher.submit_from_thread((usage_of(app), exchange("c", "x" * 600_000)))
    wanted = histories.HistoryRequest(app.pk, "c", 200, None)
    history = histories.batcher.submit_from_thread(wanted)
    assert [(message.role, len(message.content)) for message in history.messages] == [
        ("user", 1),
        ("assistant", 600_000),
    ]


def results(called_by: int | None, answer: str, question: str | None = None) -> recorder.Exchange:
    told = [recorder.Result(new_object_id(), "tool", text, {"tool_call_id": "c1"}) for text in ("one", "two")]
    return exchange("c", answer, question=question, results=told, called_by=called_by)


def stored(app: App) -> list[str]:
    return list(Message.objects.filter(conversation__app=app).order_by("pk").values_list("content", flat=True))


def latest_id(app: App) -> int | None:
    return Message.objects.filter(conversation__app=app).latest("pk").pk


def test_results_are_stored_before_their_answer(app: App) -> None:
    recorder.batcher.submit_from_thread((usage_of(app), exchange("c", "a", extras={"tool_calls": [{"id": "c1"}]})))
    recorder.batcher.submit_from_thread((usage_of(app), results(latest_id(app), "b")))
    rows = Message.objects.filter(conversation__app=app).order_by("pk").values_list("role", "content", "extras")
    assert list(rows) == [
        ("user", "q", None),
        ("assistant", "a", {"tool_calls": [{"id": "c1"}]}),
        ("tool", "one", {"tool_call_id": "c1"}),
        ("tool", "two", {"tool_call_id": "c1"}),
        ("assistant", "b", None),
    ]


@pytest.mark.parametrize(
    ("answers", "kept"),
    [
        (["r1", "r2"], ["one", "two", "r1"]),
        (["q1", "r1"], ["q", "q1"]),
        (["r1", "q1", "r2"], ["one", "two", "r1", "q", "q1"]),
        (["rq1", "rq2"], ["one", "two", "q", "rq1", "q", "rq2"]),
    ],
)
def test_results_that_come_late_in_one_batch(app: App, answers: list[str], kept: list[str]) -> None:
    """They are charged, and not stored; but a question with them is, and its answer."""
    recorder.batcher.submit_from_thread((usage_of(app), exchange("c", "a")))
    recorder.batcher.submit_from_thread((usage_of(app), exchange("d", "a")))
    calling = Message.objects.get(conversation__app=app, conversation__chat_id="c", role="assistant").pk
    items = [
        (
            usage_of(app),
            results(calling, answer, "q" if "q" in answer else None) if "r" in answer else exchange("c", answer),
        )
        for answer in answers
    ]
    futures = [recorder.batcher.enqueue_from_thread(item) for item in items]
    assert [future.result(10) for future in futures] == [None] * len(items)
    assert stored(app)[4:] == kept
    assert UsageRecord.objects.filter(pk__in=[usage.id for usage, _ in items]).count() == len(items)


@pytest.mark.parametrize("called_by", [0, None])
def test_results_of_a_chat_that_is_gone(app: App, called_by: int | None) -> None:
    recorder.batcher.submit_from_thread((usage_of(app), exchange("c", "a")))
    before = latest_id(app) if called_by is None else called_by
    Conversation.objects.filter(app=app).delete()
    recorder.batcher.submit_from_thread((usage_of(app), results(before, "b")))
    assert stored(app) == []


def test_results_wait_for_what_is_written_meanwhile(app: App) -> None:
    """What another server process commits while they wait for the conversation's row is seen."""
    recorder.batcher.submit_from_thread((usage_of(app), exchange("c", "a")))
    calling = latest_id(app)
    conversation = Conversation.objects.get(app=app)
    with transaction.atomic():
        Conversation.objects.select_for_update().get(pk=conversation.pk)
        future = recorder.batcher.enqueue_from_thread((usage_of(app), results(calling, "b")))
        wait_for(is_waiting_for_a_row, "the results wait")
        Message.objects.create(conversation=conversation, data_id="d", role="user", content="quicker", request_id="r")
    assert future.result(10) is None
    assert stored(app) == ["q", "a", "quicker"]


def is_waiting_for_a_row() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%settle%'")
        return bool(cursor.fetchone()[0])


def test_a_history_of_a_turn_that_goes_on(app: App) -> None:
    for number in range(3):
        recorder.batcher.submit_from_thread((usage_of(app), exchange("c", f"a{number}")))
    for number in range(3):
        recorder.batcher.submit_from_thread((usage_of(app), results(latest_id(app), f"b{number}")))

    def read(limit: int, *, is_continuing: bool) -> list[str]:
        wanted = histories.HistoryRequest(app.pk, "c", limit, None, is_continuing=is_continuing)
        history = histories.batcher.submit_from_thread(wanted)
        assert history.latest_id == (latest_id(app) if history.messages else None)
        return [message.content for message in history.messages]

    turn = ["q", "a2", "one", "two", "b0", "one", "two", "b1", "one", "two", "b2"]
    assert read(0, is_continuing=True) == turn
    assert read(3, is_continuing=True) == ["a0", "q", "a1", *turn]
    assert read(3, is_continuing=False) == turn[-3:]
    assert read(0, is_continuing=False) == []


def test_a_changed_column_does_not_stop_the_look_up(database: None) -> None:
    """A prepared statement whose result changes its type, as a migration under a running server makes it do."""
    _, key = factories.make_key()
    look_up = lambda: find_policy_from_thread(key, RULES)  # noqa: E731
    for _ in range(5):
        assert look_up().last_four == key[-4:]
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE apikeys_keysecret ALTER last_four TYPE varchar(6)")
        try:
            for _ in range(3):
                assert look_up().last_four == key[-4:]
        finally:
            cursor.execute("ALTER TABLE apikeys_keysecret ALTER last_four TYPE varchar(4)")
