"""Several answers to one question, and the probabilities of their tokens: as the provider gives them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from openai import OpenAI

from apikeys.accounting.ledger import TokenSource
from apikeys.accounting.limits import Limit
from tests.api.test_completions_tolerance import CALL, DONE, REPORT, USAGE
from tests.conftest import Server
from tests.support import factories
from tests.support.conversations import content_of, events_of, make_app, record_of
from tests.support.fake_provider import FakeProvider, Reply
from tests.support.refusals import check_refusal

PATH = "/api/v1/chat/completions"
MODEL = "choosing"
Ask = Callable[..., httpx2.Response]


def logprobs_of(token: str) -> dict[str, Any]:
    top = [{"token": token, "logprob": -0.1, "bytes": list(token.encode())}]
    return {"content": [{**top[0], "top_logprobs": top}], "refusal": None}


def chunk(*choices: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps({"choices": list(choices)}).encode() + b"\n\n"


def delta(index: Any, text: str, **more: Any) -> dict[str, Any]:
    return {"index": index, "delta": {"content": text}, "finish_reason": None, **more}


def end(index: int, reason: str = "stop") -> dict[str, Any]:
    return {"index": index, "delta": {}, "finish_reason": reason}


def whole(*choices: tuple[str, str], **more: Any) -> bytes:
    made = [
        {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": reason, **more}
        for index, (text, reason) in enumerate(choices)
    ]
    return json.dumps({"choices": made, "usage": USAGE}).encode()


@pytest.fixture
def ask(server: Server, provider: FakeProvider) -> Iterator[Ask]:
    """Ask an app whose provider answers with this reply."""
    _, key = factories.make_key(app=make_app(provider, MODEL))

    def ask(reply: bytes, question: str = "hi", **body: Any) -> httpx2.Response:
        kind = "text/event-stream" if reply.startswith(b"data:") else "application/json"
        provider.replies[MODEL] = lambda body: Reply(reply, kind)
        return server.ask(key, question, **body)

    yield ask
    provider.replies.pop(MODEL, None)


def choices_of(response: httpx2.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["choices"]
    return found


def streamed(response: httpx2.Response) -> dict[int, dict[str, Any]]:
    """Return what a stream's chunks come to, by index: text, roles, reasons to end, and probabilities."""
    found: dict[int, dict[str, Any]] = {}
    events = events_of(response.text)
    assert events[-1] == (None, "[DONE]")
    for _, data in events[:-1]:
        for choice in data["choices"]:
            known = found.setdefault(choice["index"], {"text": "", "roles": 0, "reasons": [], "logprobs": []})
            known["text"] += choice["delta"].get("content") or ""
            known["roles"] += "role" in choice["delta"]
            known["reasons"] += filter(None, [choice["finish_reason"]])
            known["logprobs"] += filter(None, [choice.get("logprobs")])
    return found


def test_it_works(ask: Ask, provider: FakeProvider) -> None:
    question = factories.unique("choices")
    response = ask(whole(("one", "stop"), ("two", "length"), ("three", "odd")), question, n=3)
    assert choices_of(response) == [
        {"index": 0, "message": {"role": "assistant", "content": "one"}, "logprobs": None, "finish_reason": "stop"},
        {"index": 1, "message": {"role": "assistant", "content": "two"}, "logprobs": None, "finish_reason": "length"},
        {"index": 2, "message": {"role": "assistant", "content": "three"}, "logprobs": None, "finish_reason": "stop"},
    ]
    assert response.json()["usage"] == USAGE
    (call,) = provider.calls_about(question)
    assert call["n"] == 3
    assert "logprobs" not in call
    assert record_of(response).completion_tokens == 7


def test_a_stream(ask: Ask, provider: FakeProvider) -> None:
    chunks = [chunk(delta(0, "a"), delta(1, "x")), chunk(delta(1, "y")), chunk(delta(0, "b")), chunk(end(1, "length"))]
    question = factories.unique("choices")
    reply = b"".join(chunks) + chunk(end(0)) + REPORT + DONE
    response = ask(reply, question, n=2, stream=True, stream_options={"include_usage": True})
    expected = {"roles": 1, "logprobs": []}
    assert streamed(response) == {
        0: {"text": "ab", "reasons": ["stop"], **expected},
        1: {"text": "xy", "reasons": ["length"], **expected},
    }
    assert events_of(response.text)[-2][1]["usage"] == USAGE
    (call,) = provider.calls_about(question)
    assert (call["n"], call["stream"]) == (2, True)


@pytest.mark.parametrize("stream", [False, True])
def test_probabilities(ask: Ask, provider: FakeProvider, stream: bool) -> None:
    question = factories.unique("logprobs")
    options = {"logprobs": True, "top_logprobs": 1, "stream": stream}
    if stream:
        reply = chunk(delta(0, "a", logprobs=logprobs_of("a"))) + chunk(delta(0, "b", logprobs=logprobs_of("b")))
        found = streamed(ask(reply + chunk(end(0)) + REPORT + DONE, question, **options))
        assert found[0]["logprobs"] == [logprobs_of("a"), logprobs_of("b")]
        assert found[0]["text"] == "ab"
    else:
        (choice,) = choices_of(ask(whole(("a", "stop"), logprobs=logprobs_of("a")), question, **options))
        assert choice["logprobs"] == logprobs_of("a")
    (call,) = provider.calls_about(question)
    assert (call["logprobs"], call["top_logprobs"]) == (True, 1)
    assert call.get("n") is None


def test_each_answer_has_its_own(ask: Ask) -> None:
    """Probabilities, tool calls and reasoning go with the answer that they belong to."""
    called = {"index": 1, "delta": {"tool_calls": [{"index": 0, **CALL}]}, "finish_reason": None}
    thought = {"index": 2, "delta": {"reasoning_content": "hm"}, "finish_reason": None, "logprobs": logprobs_of("hm")}
    reply = chunk(delta(0, "a", logprobs=logprobs_of("a"))) + chunk(called, thought)
    reply += chunk(end(0)) + chunk(end(1, "tool_calls")) + chunk(end(2)) + DONE
    first, second, third = choices_of(ask(reply, n=3, logprobs=True))
    assert first["logprobs"] == logprobs_of("a")
    assert second["message"] == {"role": "assistant", "content": None, "tool_calls": [CALL]}
    assert (second["logprobs"], second["finish_reason"]) == (None, "tool_calls")
    assert third["message"] == {"role": "assistant", "content": "", "reasoning_content": "hm"}
    assert third["logprobs"] == logprobs_of("hm")


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_in_the_other_form(ask: Ask, stream: bool) -> None:
    pieces = chunk(delta(0, "a", logprobs=logprobs_of("a")), delta(1, "x")) + chunk(
        delta(0, "b", logprobs=logprobs_of("b"))
    )
    if stream:
        found = streamed(ask(whole(("a", "stop"), ("b", "length")), n=2, stream=True))
        assert [(choice["text"], choice["reasons"]) for choice in found.values()] == [
            ("a", ["stop"]),
            ("b", ["length"]),
        ]
    else:
        first, second = choices_of(ask(pieces + chunk(end(0), end(1)) + DONE, n=2, logprobs=True))
        assert [first["message"]["content"], second["message"]["content"]] == ["ab", "x"]
        both = [logprobs_of(token)["content"][0] for token in "ab"]
        assert first["logprobs"] == {"content": both, "refusal": None}


@pytest.mark.parametrize("stream", [False, True])
def test_through_openais_client(server: Server, provider: FakeProvider, ask: Ask, stream: bool) -> None:
    ask(whole(("one", "stop"), ("two", "stop"), logprobs=logprobs_of("x")))
    if stream:
        reply = chunk(delta(0, "one", logprobs=logprobs_of("x")), delta(1, "two")) + chunk(end(0), end(1)) + DONE
        provider.replies[MODEL] = lambda body: Reply(reply, "text/event-stream")
    _, key = factories.make_key(app=make_app(provider, MODEL))
    client = OpenAI(base_url=f"{server.url}/api/v1", api_key=key)
    messages: list[Any] = [{"role": "user", "content": "hi"}]
    texts, probabilities = {0: "", 1: ""}, []
    if stream:
        for made in client.chat.completions.create(model="x", messages=messages, n=2, logprobs=True, stream=True):
            for piece in made.choices:
                texts[piece.index] += piece.delta.content or ""
                probabilities += [piece.logprobs] if piece.logprobs else []
    else:
        for choice in client.chat.completions.create(model="x", messages=messages, n=2, logprobs=True).choices:
            texts[choice.index] = choice.message.content or ""
            probabilities += [choice.logprobs] if choice.logprobs else []
    assert texts == {0: "one", 1: "two"}
    assert probabilities[0].content is not None
    assert probabilities[0].content[0].token == "x"


@pytest.mark.parametrize("stream", [False, True])
def test_with_detail(ask: Ask, stream: bool) -> None:
    if stream:
        reply = chunk(delta(0, "a"), delta(1, "x")) + chunk(end(0), end(1)) + DONE
        events = events_of(ask(reply, n=2, detail=True, stream=True).text)
        indexes = [choice["index"] for name, data in events if name == "answer" for choice in data_of(data)]
        assert indexes == [0, 0, 1, 1, 0, 1]
    else:
        body = ask(whole(("a", "stop"), ("b", "stop")), n=2, detail=True).json()
        assert len(body["choices"]) == 2
        assert body["responseData"][0]["historyPreview"][-1] == {"obj": "AI", "value": "a"}


def data_of(data: Any) -> list[dict[str, Any]]:
    return data["choices"] if isinstance(data, dict) else []


# --- what it costs


def test_what_is_reserved_is_as_many_answers(server: Server, provider: FakeProvider, ask: Ask) -> None:
    api_key, key = factories.make_key(app=make_app(provider, MODEL, max_tokens=1_000))
    Limit.objects.create(team=api_key.team, key=api_key, measure="tokens", period="total", amount=3_500)
    ask(whole(("one", "stop"), ("two", "stop"), ("three", "stop")))
    assert server.ask(key, n=3).status_code == 200
    check_refusal(server.ask(key, n=4), "insufficient_quota")


def test_all_answers_are_counted(server: Server, provider: FakeProvider, ask: Ask) -> None:
    reply = json.dumps({"choices": json.loads(whole(("abc", "stop"), ("defgh", "stop")))["choices"]}).encode()
    record = record_of(ask(reply, n=2))
    assert (record.completion_tokens, record.token_source) == (8, TokenSource.BOUND)
    _, key = factories.make_key(app=make_app(provider, MODEL, max_tokens=3))
    # Each may have as many tokens as the app allows.
    assert record_of(server.ask(key, n=2)).completion_tokens == 6


# --- what is refused


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"n": "2"}, "n"),
        ({"n": 1.5}, "n"),
        ({"logprobs": 1}, "logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
        ({"n": 2, "chatId": "c"}, "n"),
    ],
)
def test_wrong_values(ask: Ask, options: dict[str, Any], param: str) -> None:
    check_refusal(ask(whole(("a", "stop")), **options), "invalid_parameter", param=param)


@pytest.mark.parametrize("options", [{"n": 2}, {"logprobs": True}, {"top_logprobs": 3}])
@pytest.mark.parametrize("has_datasets", [False, True])
def test_an_app_that_passes_none(
    server: Server, provider: FakeProvider, options: dict[str, Any], has_datasets: bool
) -> None:
    app = make_app(provider, passes_tools=None if has_datasets else False)
    if has_datasets:
        app.datasets.add(factories.make_dataset(app.team))
    _, key = factories.make_key(app=app)
    check_refusal(server.ask(key, **options), "invalid_parameter", param=next(iter(options)))
    usual = {"n": 1, "logprobs": False, "top_logprobs": 0}
    assert server.ask(key, **usual).status_code == 200


def test_a_conversation_has_one_answer_with_its_probabilities(ask: Ask) -> None:
    (choice,) = choices_of(ask(whole(("a", "stop"), logprobs=logprobs_of("a")), chatId="c", n=1, logprobs=True))
    assert choice["logprobs"] == logprobs_of("a")


# --- what providers make of it


def test_a_provider_that_gives_one_answer(ask: Ask) -> None:
    assert [choice["index"] for choice in choices_of(ask(whole(("a", "stop")), n=3))] == [0]


@pytest.mark.parametrize("index", [7, -1, 2, 10**12])
def test_more_answers_than_asked_for_are_left_out(ask: Ask, index: int) -> None:
    reply = chunk(delta(0, "a"), delta(index, "x")) + chunk(end(0)) + DONE
    assert streamed(ask(reply, n=2, stream=True)).keys() == {0}
    assert content_of(ask(whole(("a", "stop"), ("b", "stop")), logprobs=True)) == "a"


@pytest.mark.parametrize("index", [None, "0", 1.0, True, {}])
def test_answers_without_an_index_are_counted(ask: Ask, index: Any) -> None:
    reply = chunk({**delta(0, "a"), "index": index}, {**delta(0, "x"), "index": index}) + chunk(end(0)) + DONE
    found = streamed(ask(reply, n=2, stream=True))
    assert [choice["text"] for choice in found.values()] == ["a", "x"]


@pytest.mark.parametrize("logprobs", [7, "x", [], {"content": "x"}, {"content": [{"token": "\ud83d\0"}]}, {}])
@pytest.mark.parametrize("stream", [False, True])
def test_strange_probabilities_cost_no_text(ask: Ask, logprobs: Any, stream: bool) -> None:
    if stream:
        reply = chunk(delta(0, "a", logprobs=logprobs)) * 2 + chunk(end(0)) + DONE
        assert streamed(ask(reply, logprobs=True, stream=True))[0]["text"] == "aa"
    else:
        assert content_of(ask(whole(("a", "stop"), logprobs=logprobs), logprobs=True)) == "a"


def test_a_character_that_is_cut_in_two(ask: Ask) -> None:
    """Each answer has its own halves."""
    reply = chunk(delta(0, "\ud83d", logprobs=logprobs_of("?")), delta(1, "x")) + chunk(delta(1, "\ud83d"))
    reply += chunk(delta(0, "\ude00")) + chunk(end(0), end(1)) + DONE
    found = streamed(ask(reply, n=2, stream=True))
    assert [choice["text"] for choice in found.values()] == ["\U0001f600", "x\ufffd"]
