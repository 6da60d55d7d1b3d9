"""A model with several routes: which one is asked, what another one saves, and what the ledger has of it."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from apikeys.accounting.explanations import explain
from apikeys.accounting.ledger import Outcome
from chat.catalog import CatalogModel, Circuit, Provider
from tests.conftest import Server, running_server
from tests.support import factories
from tests.support.conversations import content_of, events_of, record_of, text_of
from tests.support.fake_provider import FakeProvider, Reply
from tests.support.processes import wait_for
from tests.support.refusals import check_refusal

BOTH = pytest.mark.parametrize("stream", [False, True])
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def whole(text: str, **usage: Any) -> Reply:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return Reply(json.dumps({"choices": [choice], "usage": USAGE | usage}).encode())


def refusal(status: int, code: str = "", message: str = "", **headers: str) -> Reply:
    error = {"error": {"message": message, "code": code}} if message else {}
    return Reply(json.dumps(error).encode(), status=status, headers=headers)


class Routed:
    """A model of several routes, each with an upstream name of its own that replies as a test says."""

    def __init__(self, server: Server, provider: FakeProvider, *replies: Reply, **fields: Any) -> None:
        self.server, self.provider = server, provider
        self.team = factories.make_team()
        self.its_provider = factories.make_provider(self.team, provider.url)
        self.model = CatalogModel.objects.create(team=self.team, name=factories.unique("model"), **fields)
        self.names = [self.add(reply, priority=number) for number, reply in enumerate(replies, 1)]
        _, self.key = factories.make_key(app=factories.make_app(self.team, model=self.model))

    def add(self, reply: Reply | Callable[[], Reply], its_provider: Provider | None = None, **fields: Any) -> str:
        name = factories.unique("upstream")
        self.provider.replies[name] = lambda body: reply if isinstance(reply, Reply) else reply()
        self.model.routes.create(provider=its_provider or self.its_provider, upstream_name=name, **fields)
        return name

    def ask(self, server: Server | None = None, **body: Any) -> Any:
        return (server or self.server).ask(self.key, **body)

    def calls(self) -> list[str]:
        return [call["model"] for call in self.provider.calls if call["model"] in self.names]

    def close(self) -> None:
        for name in self.names:
            self.provider.replies.pop(name, None)


Make = Callable[..., Routed]


@pytest.fixture
def make(server: Server, provider: FakeProvider) -> Iterator[Make]:
    made: list[Routed] = []

    def make(*replies: Reply, **fields: Any) -> Routed:
        made.append(Routed(server, provider, *replies, **fields))
        return made[-1]

    yield make
    for routed in made:
        routed.close()


def said(response: Any, *, stream: bool) -> str:
    return text_of(events_of(response.text)) if stream else content_of(response)


@BOTH
def test_the_first_route_answers(make: Make, stream: bool) -> None:
    routed = make(whole("first"), whole("second"))
    response = routed.ask(stream=stream)
    assert said(response, stream=stream) == "first"
    assert routed.calls() == routed.names[:1]
    record = record_of(response)
    assert record.model == routed.model.name
    (attempt,) = record.attempts
    assert (attempt["provider"], attempt["model"]) == (routed.its_provider.name, routed.names[0])


@BOTH
@pytest.mark.parametrize("status", [429, 500, 502, 503, 401])
def test_the_next_route_answers_where_one_fails(make: Make, stream: bool, status: int) -> None:
    routed = make(refusal(status, "broken", "It is broken."), whole("second"))
    response = routed.ask(stream=stream)
    assert said(response, stream=stream) == "second"
    assert routed.calls() == routed.names
    record = record_of(response)
    assert (record.outcome, record.failure) == (Outcome.COMPLETE, None)
    failed, answered = record.attempts
    assert (failed["model"], failed["status"], failed["code"]) == (routed.names[0], status, "broken")
    assert (answered["model"], "status" in answered) == (routed.names[1], False)
    assert (record.prompt_tokens, record.completion_tokens) == (3, 2)
    explanation = explain(record.pk)
    assert explanation is not None
    assert f"HTTP {status}: broken: It is broken." in explanation.text()
    assert routed.names[1] in explanation.text()


@BOTH
def test_the_next_route_answers_where_none_listens(make: Make, stream: bool) -> None:
    routed = make()
    dead = factories.make_provider(routed.team, "http://127.0.0.1:9/v1")
    routed.names = [routed.add(whole("never"), dead, priority=1), routed.add(whole("second"), priority=2)]
    assert said(routed.ask(stream=stream), stream=stream) == "second"


@BOTH
def test_the_next_route_answers_where_one_is_too_slow(make: Make, stream: bool) -> None:
    routed = make()
    slow = factories.make_provider(routed.team, routed.provider.url, total_seconds=1)
    routed.model.routes.create(provider=slow, upstream_name="never", priority=1)
    routed.names = [routed.add(whole("second"), priority=2)]
    response = routed.ask(stream=stream)
    assert said(response, stream=stream) == "second"
    assert record_of(response).attempts[0]["what"] == "no answer in time"


def test_a_stream_that_begins_with_an_error_is_tried_elsewhere(make: Make) -> None:
    error = Reply(b'data: {"error": {"message": "overloaded", "code": 503}}\n\n', "text/event-stream")
    routed = make(error, whole("second"))
    assert said(routed.ask(stream=True), stream=True) == "second"


def test_a_stream_that_broke_off_is_not(make: Make) -> None:
    begun = b'data: {"choices": [{"index": 0, "delta": {"content": "half"}}]}\n\n'
    routed = make(Reply(begun, "text/event-stream"), whole("second"))
    events = events_of(routed.ask(stream=True).text)
    assert text_of(events) == "half"
    assert events[-1][0] == "error"
    assert routed.calls() == routed.names[:1]


@BOTH
def test_the_caller_s_own_fault_is_not_tried_elsewhere(make: Make, stream: bool) -> None:
    routed = make(refusal(400, "context_length_exceeded", "Too long."), whole("second"))
    response = routed.ask(stream=stream)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert routed.calls() == routed.names[:1]


@BOTH
def test_a_model_that_one_provider_has_no_more(make: Make, stream: bool) -> None:
    routed = make(refusal(404, "model_not_found", "The model does not exist."), whole("second"))
    assert said(routed.ask(stream=stream), stream=stream) == "second"
    alone = make(refusal(404, "model_not_found", "The model does not exist."))
    assert alone.ask(stream=stream).json()["error"]["code"] == "model_not_found"


@BOTH
def test_the_last_error_is_the_answer_s(make: Make, stream: bool) -> None:
    routed = make(refusal(500), refusal(502), refusal(429, **{"Retry-After": "7"}), whole("a fourth is not tried"))
    response = routed.ask(stream=stream)
    check_refusal(response, "upstream_busy")
    assert response.headers["retry-after"] == "7"
    assert routed.calls() == routed.names[:3]
    record = record_of(response)
    assert (record.outcome, record.cost_micropoints) == (Outcome.FAILED, 0)
    assert [attempt["status"] for attempt in record.attempts] == [500, 502, 429]


def test_equal_routes_share_by_their_weights(make: Make) -> None:
    routed = make()
    routed.names = [
        routed.add(whole("a"), weight=9),
        routed.add(whole("b"), weight=1),
        routed.add(whole("c"), weight=0),
    ]
    for _ in range(60):
        routed.ask()
    counts = Counter(routed.calls())
    assert counts[routed.names[2]] == 0
    # The chance that this fails is less than one in ten million.
    assert counts[routed.names[0]] > 30
    assert 0 < counts[routed.names[1]] < 30


def test_without_a_route_in_use(make: Make) -> None:
    routed = make()
    response = routed.ask()
    assert (response.status_code, response.json()["error"]["message"]) == (502, "The model has no route in use.")


def test_changes_act_at_once(make: Make) -> None:
    routed = make(whole("first"), whole("second"))
    routed.ask()
    routed.model.routes.filter(upstream_name=routed.names[0]).update(weight=0)
    wait_for(lambda: content_of(routed.ask()) == "second", "the change is known", seconds=5)
    routed.model.routes.all().delete()
    wait_for(lambda: routed.ask().status_code == 502, "the change is known", seconds=5)


def test_an_archived_model(make: Make) -> None:
    routed = make(whole("first"))
    CatalogModel.objects.filter(pk=routed.model.pk).update(archived_at=timezone.now())
    check_refusal(routed.ask(), "model_not_allowed")
    assert routed.calls() == []


def test_a_route_that_fails_again_and_again_is_left_alone_in_every_process(
    make: Make, provider: FakeProvider, tmp_path: Path
) -> None:
    broken = [True]
    routed = make()
    routed.names = [
        routed.add(lambda: refusal(500) if broken[0] else whole("first"), priority=1),
        routed.add(whole("second"), priority=2),
    ]
    for _ in range(7):
        assert content_of(routed.ask()) == "second"
    wait_for(lambda: Circuit.objects.filter(route__model=routed.model).exists(), "the circuit opens")
    assert routed.calls().count(routed.names[0]) == 5
    # A process that starts now finds it open.
    with running_server(tmp_path / "log") as other:
        assert content_of(routed.ask(other)) == "second"
        assert routed.calls().count(routed.names[0]) == 5
        # After its pause it is tried again, and closes for all.
        broken[0] = False
        wait_for(lambda: content_of(routed.ask(other)) == "first", "the pause ends", seconds=60)
        wait_for(lambda: content_of(routed.ask()) == "first", "the first process knows", seconds=60)
    assert not Circuit.objects.filter(route__model=routed.model).exists()


def test_refusals_within_a_stream_count_against_no_route(make: Make) -> None:
    begun = b'data: {"choices": [{"index": 0, "delta": {"content": "half"}}]}\n\n'
    filtered = b'data: {"error": {"message": "It was filtered.", "code": 400}}\n\n'
    routed = make(Reply([begun, filtered], "text/event-stream"), whole("second"))
    for _ in range(7):
        assert text_of(events_of(routed.ask(stream=True).text)) == "half"
    assert routed.calls() == routed.names[:1] * 7


def test_all_routes_that_fail_are_asked_all_the_same(make: Make) -> None:
    broken = [True]
    routed = make()
    routed.names = [
        routed.add(lambda: refusal(500) if broken[0] else whole("up again"), priority=number) for number in (1, 2)
    ]
    for _ in range(8):
        assert routed.ask().status_code == 502
    broken[0] = False
    assert content_of(routed.ask()) == "up again"


def test_a_sick_provider_is_not_stormed(make: Make) -> None:
    routed = make(refusal(500), refusal(500), refusal(500))
    for _ in range(60):
        routed.ask()
    # Each request, the retries that were saved up, and a fifth of a retry for each.
    assert len(routed.calls()) <= 60 + 20 + 60 / 5


def test_an_error_of_one_route_leaks_nothing_of_another(make: Make) -> None:
    routed = make(refusal(500, "x", "the key sk-aaaaaaaaaaaaaaaa1 of http://10.0.0.7/ is bad"), refusal(500))
    response = routed.ask()
    record = record_of(response)
    for text in (response.text, json.dumps(record.attempts)):
        assert "sk-aaaa" not in text
        assert "10.0.0.7" not in text


@BOTH
def test_prices_are_the_model_s(make: Make, stream: bool) -> None:
    prices = {"prompt_price": 1000, "completion_price": 2000, "cached_prompt_price": 100, "reasoning_price": 4000}
    usage = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
    details = {"prompt_tokens_details": {"cached_tokens": 40}, "completion_tokens_details": {"reasoning_tokens": 10}}
    routed = make(whole("thought", **usage, **details), **prices)
    response = routed.ask(stream=stream, stream_options={"include_usage": True} if stream else None)
    record = record_of(response)
    # 60 at 1, 40 at a tenth, 40 at 2, 10 at 4.
    assert record.cost_micropoints == 60 + 4 + 80 + 40
    assert record.details == {
        "cached_tokens": 40,
        "cached_price": 100,
        "reasoning_tokens": 10,
        "reasoning_price": 4000,
    }
    reported = events_of(response.text)[-2][1]["usage"] if stream else response.json()["usage"]
    assert reported == usage | details
    explanation = explain(record.pk)
    assert explanation is not None
    assert "40 cached" in explanation.text()
    assert "10 reasoning" in explanation.text()


def test_a_price_that_changes_while_a_request_runs(make: Make) -> None:
    """The request is charged what it was admitted at."""
    asked, changed = threading.Event(), threading.Event()

    def reply() -> Reply:
        asked.set()
        assert changed.wait(60)
        return whole("late")

    routed = make(prompt_price=1_000)
    routed.names = [routed.add(reply)]
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(routed.ask)
        assert asked.wait(60)
        CatalogModel.objects.filter(pk=routed.model.pk).update(prompt_price=9_000)
        changed.set()
        record = record_of(answer.result())
    assert (record.prompt_price, record.cost_micropoints) == (1_000, 3)
    wait_for(lambda: record_of(routed.ask()).prompt_price == 9_000, "the change is known", seconds=5)


def test_images_have_a_price_of_their_own(make: Make) -> None:
    routed = make(whole("seen"), image_price=5_000)
    picture = {"type": "image_url", "image_url": {"url": "https://pictures.example/1.png"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "two"}, picture, picture]}]
    record = record_of(routed.ask(messages=messages))
    assert (record.cost_micropoints, record.details) == (10_000, {"images": 2, "image_price": 5_000})


@pytest.mark.parametrize(
    ("field", "body", "param"),
    [
        ("takes_tools", {"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ("takes_json_schema", {"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format"),
        (
            "takes_images",
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/1"}}]}]},
            "messages[0].content",
        ),
    ],
)
def test_what_the_model_does_not_take(make: Make, field: str, body: dict[str, Any], param: str) -> None:
    routed = make(whole("first"), **{field: False})
    response = routed.ask(**body)
    check_refusal(response, "invalid_parameter", param=param)
    assert routed.model.name in response.json()["error"]["message"]
    assert routed.calls() == []
    CatalogModel.objects.filter(pk=routed.model.pk).update(**{field: True})
    wait_for(lambda: routed.ask(**body).status_code == 200, "the change is known", seconds=5)


def test_a_provider_with_headers_of_its_own(make: Make, provider: FakeProvider) -> None:
    routed = make()
    hosted = factories.make_provider(
        routed.team, provider.url, query="api-version=2024-06-01&x=%20", auth_header="api-key"
    )
    hosted.set_secret("secret-of-the-host")
    hosted.set_headers({"X-Project": "seven"})
    hosted.save()
    routed.names = [routed.add(whole("hosted"), hosted)]
    assert content_of(routed.ask()) == "hosted"
    headers = provider.headers[-1]
    assert (headers["api-key"], headers["X-Project"]) == ("secret-of-the-host", "seven")
    assert "Authorization" not in headers
    assert provider.queries[-1] == "api-version=2024-06-01&x=%20"
    # They are not sent to another address.
    Provider.objects.filter(pk=hosted.pk).update(base_url=provider.url.replace("127.0.0.1", "127.0.0.2"))
    hosted.refresh_from_db()
    assert (hosted.has_secret, hosted.has_headers) == (False, False)


def test_a_route_that_spells_max_tokens_as_it_was_told(make: Make, provider: FakeProvider) -> None:
    routed = make()
    routed.names = [routed.add(whole("once"), tokens_field="max_completion_tokens")]
    routed.ask(max_tokens=9)
    call = provider.calls[-1]
    assert ("max_tokens" in call, call["max_completion_tokens"]) == (False, 9)
    assert len(routed.calls()) == 1


def embedded(provider: FakeProvider, team: Any, **fields: Any) -> CatalogModel:
    """A model of the catalog that embeds: its first route fails, its second answers."""
    model = CatalogModel.objects.create(team=team, name=factories.unique("embedder"), kind="embedding", **fields)
    dead = factories.make_provider(team, "http://127.0.0.1:9/v1")
    model.routes.create(provider=dead, upstream_name="embed", priority=1)
    model.routes.create(provider=factories.make_provider(team, provider.url), upstream_name="embed", priority=2)
    return model


def test_embeddings_by_a_model_of_the_catalog(server: Server, provider: FakeProvider) -> None:
    team = factories.make_team()
    model = embedded(provider, team, prompt_price=1_000)
    _, key = factories.make_key(team)
    texts = [factories.unique("text") for _ in range(70)]
    response = server.post("/api/v1/embeddings", key, json={"model": model.name, "input": texts})
    assert response.status_code == 200, response.text
    assert (len(response.json()["data"]), response.json()["model"]) == (70, model.name)
    record = record_of(response)
    # Later batches go to the route that answered the first.
    assert [attempt.get("what") for attempt in record.attempts] == ["ConnectFailed", None]
    assert (record.model, record.prompt_price) == (model.name, 1_000)
    foreign = factories.make_key(factories.make_team())[1]
    refused = server.post("/api/v1/embeddings", foreign, json={"model": model.name, "input": "x"})
    check_refusal(refused, "invalid_parameter", param="model")
