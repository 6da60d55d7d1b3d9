"""The recorder and the reader of histories, on the real database."""

from typing import Any

import pytest
from django.db import connection

from apikeys.access.lookup import find_policy_from_thread
from apikeys.access.policy import SiteRules
from apikeys.accounting.ledger import UsageRecord
from apikeys.accounting.recording import Usage
from apikeys.errors import Rejected
from apikeys.object_ids import new_object_id
from chat.completions import histories, recorder
from chat.models import App, Conversation, Message
from tests.support import factories

RULES = SiteRules({}, False)


def usage_of(app: App, **fields: Any) -> Usage:
    api_key, _ = factories.make_key(app=app)
    values = {"id": new_object_id(), "team_id": app.team_id, "key_id": api_key.pk, "app_id": app.pk}
    return Usage(**{**values, "endpoint": "chat.completions", "status": 200, "duration_ms": 1, **fields})


def exchange(chat_id: str, answer: str, **fields: Any) -> recorder.Exchange:
    ids = {"question_id": new_object_id(), "answer_id": new_object_id()}
    return recorder.Exchange(chat_id=chat_id, question="q", answer=answer, response_data=[], **{**ids, **fields})


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
    assert [(role, len(content)) for role, content in history.messages] == [("user", 1), ("assistant", 600_000)]


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
