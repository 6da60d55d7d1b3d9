"""Providers that leave out, misspell, mislabel and repeat: it costs the caller no answer, and us no count."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from apikeys.accounting.ledger import Outcome, TokenSource
from tests.api.test_completions_leaving import open_stream, recorded
from tests.conftest import Server
from tests.support import factories
from tests.support.conversations import content_of, events_of, make_app, record_of, text_of
from tests.support.fake_provider import FakeProvider, Reply
from tests.support.processes import wait_for
from tests.support.refusals import check_refusal

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
names = (f"tolerated_{number}" for number in itertools.count())


def whole(message: Any, finish_reason: str = "stop", **more: Any) -> bytes:
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return json.dumps({"choices": [choice], "usage": USAGE} | more).encode()


def event(delta: Any, finish_reason: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return b"data: " + json.dumps({"choices": [choice], **more}).encode() + b"\n\n"


END = event({}, "stop")
REPORT = b"data: " + json.dumps({"choices": [], "usage": USAGE}).encode() + b"\n\n"
DONE = b"data: [DONE]\n\n"
HELLO = event({"role": "assistant", "content": "Hello"})
STREAM = HELLO + END + REPORT + DONE
BEATS = b"data:\n\ndata: \n\n: x\n\n"
BOM = b"\xef\xbb\xbf"


class Scripted:
    """An app whose provider answers as the test says, and its key."""

    def __init__(self, server: Server, provider: FakeProvider) -> None:
        self.server, self.provider, self.model = server, provider, next(names)
        app = make_app(provider, self.model)
        its_provider = factories.provider_of(app)
        its_provider.set_secret("sk-provider-secret-do-not-leak-0123456789")
        its_provider.save()
        _, self.key = factories.make_key(app=app)
        self.app = app

    def ask(self, *replies: Reply, stream: bool = False, **body: Any) -> httpx2.Response:
        """Ask once; the provider answers call after call as the replies say, and the last one from then on."""
        left = list(replies)
        self.provider.replies[self.model] = lambda body: left.pop(0) if len(left) > 1 else left[0]
        return self.server.ask(self.key, stream=stream, **body)

    @property
    def calls(self) -> list[dict[str, Any]]:
        return [call for call in self.provider.calls if call["model"] == self.model]


@pytest.fixture
def scripted(server: Server, provider: FakeProvider) -> Iterator[Scripted]:
    made = Scripted(server, provider)
    yield made
    provider.replies.pop(made.model, None)


def said(response: httpx2.Response, *, stream: bool) -> str:
    if not stream:
        return content_of(response)
    assert response.status_code == 200, response.text
    events = events_of(response.text)
    assert events[-1][1] == "[DONE]", response.text
    return text_of(events)


PARTS = [{"type": "text", "text": "Hel"}, {"type": "reasoning", "text": "I think."}, {"type": "text", "text": "lo"}]
SAY_HELLO = {
    "as usual": (whole({"content": "Hello"}), STREAM),
    "parts": (whole({"content": PARTS}), event({"content": PARTS}) + END + REPORT + DONE),
    "byte order mark": (BOM + whole({"content": "Hello"}), BOM + STREAM),
    "heartbeats": (b"\n\n " + whole({"content": "Hello"}), BEATS + HELLO + BEATS + END + BEATS + REPORT + DONE),
    "blanks around the end": (whole({"content": "Hello"}), HELLO + END + REPORT + b"data:  [DONE] \r\n\r\n"),
    "unknown and misshapen fields": (
        whole({"content": "Hello", "refusal": 7, "tool_calls": "none"}, finish_reason="stop", object=[]),
        event({"content": "Hello", "tool_calls": {}}, usage="none", created="now") + END + REPORT + DONE,
    ),
    "NaN": (
        whole({"content": "Hello"}).replace(b'"index": 0', b'"index": 0, "logprobs": NaN'),
        HELLO.replace(b'"index": 0', b'"index": 0, "logprobs": -Infinity') + END + REPORT + DONE,
    ),
    "fractions in the usage": (
        whole({"content": "Hello"}, usage={"prompt_tokens": 11.0, "completion_tokens": 7.0}),
        HELLO + END + REPORT.replace(b"11", b"11.0").replace(b"7", b"7.0") + DONE,
    ),
    "another finish reason": (
        whole({"content": "Hello"}, "eos_token"),
        HELLO + event({}, "eos_token") + REPORT + DONE,
    ),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", SAY_HELLO)
def test_the_answer_is_read(scripted: Scripted, name: str, stream: bool) -> None:
    answer, events = SAY_HELLO[name]
    reply = Reply(events, "text/event-stream") if stream else Reply(answer)
    response = scripted.ask(reply, stream=stream)
    assert said(response, stream=stream) == "Hello"
    record = record_of(response)
    assert (record.outcome, record.prompt_tokens, record.completion_tokens) == (Outcome.COMPLETE, 11, 7)
    assert (record.token_source, record.failure) == (TokenSource.PROVIDER, None)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("content_type", "status"), [("", 200), ("text/plain", 200), ("application/octet-stream", 201), ("text/html", 202)]
)
@pytest.mark.parametrize("comes_streamed", [False, True])
def test_an_answer_is_read_by_what_it_is(
    scripted: Scripted, stream: bool, content_type: str, status: int, comes_streamed: bool
) -> None:
    """Whatever was asked for, and whatever it is called."""
    body = STREAM if comes_streamed else whole({"content": "Hello"})
    response = scripted.ask(Reply(body, content_type, status), stream=stream)
    assert said(response, stream=stream) == "Hello"
    assert (record_of(response).prompt_tokens, record_of(response).completion_tokens) == (11, 7)


@pytest.mark.parametrize("cut", range(1, 8))
def test_a_stream_that_begins_in_small_pieces(scripted: Scripted, cut: int) -> None:
    raw = BOM + b"\n" + STREAM
    response = scripted.ask(Reply([raw[:cut], raw[cut : cut + 3], raw[cut + 3 :]], "text/event-stream"), stream=True)
    assert said(response, stream=True) == "Hello"


HALVES = {
    "escaped": (b'{"choices":[{"delta":{"content":"a\\ud83d"}}]}', b'{"choices":[{"delta":{"content":"\\ude00b"}}]}'),
    "bytes": (b'{"choices":[{"delta":{"content":"a\xf0\x9f"}}]}', b'{"choices":[{"delta":{"content":"\x98\x80b"}}]}'),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", HALVES)
def test_a_character_in_two_chunks(scripted: Scripted, name: str, stream: bool) -> None:
    events = b"".join(b"data: " + half + b"\n\n" for half in HALVES[name]) + END + REPORT + DONE
    response = scripted.ask(Reply(events, "text/event-stream"), stream=stream)
    assert said(response, stream=stream) == "a\U0001f600b"


@pytest.mark.parametrize("stream", [False, True])
def test_half_a_character_at_the_end(scripted: Scripted, stream: bool) -> None:
    half = HALVES["bytes"][0]
    response = scripted.ask(Reply(b"data: " + half + b"\n\n" + END + REPORT + DONE, "text/event-stream"), stream=stream)
    assert said(response, stream=stream).rstrip("\ufffd") == "a"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_is_passed_on(scripted: Scripted, field: str, stream: bool) -> None:
    if stream:
        events = event({field: "Let me "}) + event({field: "think."}) + STREAM
        response = scripted.ask(Reply(events, "text/event-stream"), stream=True)
        deltas = [data["choices"][0]["delta"] for _, data in events_of(response.text) if isinstance(data, dict)]
        assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "Let me think."
    else:
        response = scripted.ask(Reply(whole({"content": "Hello", field: "Let me think."})))
        assert response.json()["choices"][0]["message"]["reasoning_content"] == "Let me think."
    assert said(response, stream=stream) == "Hello"


CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Ulm"}'}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("comes_streamed", [False, True])
def test_tool_calls_without_text_are_passed_on(scripted: Scripted, stream: bool, comes_streamed: bool) -> None:
    begun = {"index": 0, "id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":'}}
    rest = {"index": 0, "function": {"arguments": ' "Ulm"}'}}
    events = event({"content": None, "tool_calls": [begun]}) + event({"tool_calls": [rest]}) + event({}, "tool_calls")
    body = events + REPORT + DONE if comes_streamed else whole({"content": None, "tool_calls": [CALL]}, "tool_calls")
    response = scripted.ask(Reply(body, "text/plain"), stream=stream)
    assert response.status_code == 200, response.text
    if not stream:
        choice = response.json()["choices"][0]
        assert choice["message"] == {"role": "assistant", "content": None, "tool_calls": [CALL]}
        assert choice["finish_reason"] == "tool_calls"
        return
    choices = [data["choices"][0] for _, data in events_of(response.text) if isinstance(data, dict)]
    calls = [call for choice in choices for call in choice["delta"].get("tool_calls", [])]
    assert calls == ([begun, rest] if comes_streamed else [CALL])
    assert choices[-1]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_of_the_model_is_passed_on(scripted: Scripted, stream: bool) -> None:
    events = event({"refusal": "I cannot "}) + event({"refusal": "do that."}) + END + REPORT + DONE
    response = scripted.ask(Reply(events, "text/event-stream"), stream=stream)
    if stream:
        choices = [data["choices"][0] for _, data in events_of(response.text) if isinstance(data, dict)]
        assert "".join(choice["delta"].get("refusal", "") for choice in choices) == "I cannot do that."
    else:
        message = response.json()["choices"][0]["message"]
        assert message == {"role": "assistant", "content": None, "refusal": "I cannot do that."}


def reported(*usages: Any) -> bytes:
    return b"".join(b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n" for usage in usages)


@pytest.mark.parametrize(
    ("usages", "prompt", "completion", "source"),
    [
        ([USAGE, {"prompt_tokens": 0, "completion_tokens": 0}], 11, 7, TokenSource.PROVIDER),
        ([USAGE, {"prompt_tokens": 11}, {"completion_tokens": 3}], 11, 7, TokenSource.PROVIDER),
        ([{"prompt_tokens": 11}, {"completion_tokens": 7}], 11, 7, TokenSource.PROVIDER),
        ([USAGE, None, "much", [7]], 11, 7, TokenSource.PROVIDER),
        # What cannot be true is as good as nothing: the bound of each stands for it.
        ([{"prompt_tokens": 0, "completion_tokens": 7}], None, 7, TokenSource.BOUND),
        ([{"prompt_tokens": 11, "completion_tokens": 0}], 11, 5, TokenSource.BOUND),
        ([{"prompt_tokens": "11", "completion_tokens": True}], None, 5, TokenSource.BOUND),
        ([{"prompt_tokens": -1, "completion_tokens": 2**31}], None, 5, TokenSource.BOUND),
        ([], None, 5, TokenSource.BOUND),
    ],
)
def test_reports_are_merged(
    scripted: Scripted, usages: list[Any], prompt: int | None, completion: int, source: TokenSource
) -> None:
    response = scripted.ask(Reply(HELLO + END + reported(*usages) + DONE, "text/event-stream"), stream=True)
    assert said(response, stream=True) == "Hello"
    record = record_of(response)
    assert (record.completion_tokens, record.token_source) == (completion, source)
    assert record.prompt_tokens == prompt if prompt is not None else record.prompt_tokens > 16


def test_a_report_before_the_text(scripted: Scripted) -> None:
    """It cannot be of all of it, so the larger of the two counts."""
    early = reported({"prompt_tokens": 11, "completion_tokens": 1})
    response = scripted.ask(
        Reply(early + HELLO + event({"content": ", you"}) + END + DONE, "text/event-stream"), stream=True
    )
    record = record_of(response)
    assert (record.prompt_tokens, record.completion_tokens) == (11, len("Hello, you"))
    assert record.token_source == TokenSource.BOUND


def test_a_report_before_the_text_of_a_reader_who_leaves(scripted: Scripted) -> None:
    """What was produced is charged, and not what was reported when nothing was yet."""
    early = reported({"prompt_tokens": 11, "completion_tokens": 1})
    pieces = [early + event({"content": "word " * 10}), *[event({"content": "word "})] * 500]
    scripted.provider.replies[scripted.model] = lambda body: Reply(pieces, "text/event-stream")
    connection, request_id = open_stream(scripted.server, scripted.key, "hello")
    connection.close()
    record = recorded(request_id)
    assert record.outcome == Outcome.CANCELLED
    assert record.prompt_tokens == 11
    assert record.completion_tokens >= 50


@pytest.mark.parametrize("stream", [False, True])
def test_a_finish_reason_that_says_error(scripted: Scripted, stream: bool) -> None:
    events = HELLO + event({}, "error") + DONE
    response = scripted.ask(Reply(events, "text/event-stream"), stream=stream)
    if stream:
        assert events_of(response.text)[-1][0] == "error"
    else:
        check_refusal(response, "upstream_error")
    assert record_of(response).outcome == Outcome.FAILED


# Refusals.


def error(message: str, code: Any = None, status: int = 400, **headers: str) -> Reply:
    body = {"error": {"message": message, "type": "invalid_request_error", "code": code}}
    return Reply(json.dumps(body).encode(), status=status, headers=headers)


UNSUPPORTED_TOKENS = error(
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
    "unsupported_parameter",
)
UNSUPPORTED_OPTIONS = error("Unrecognized request argument supplied: stream_options")


def test_a_model_that_wants_max_completion_tokens(scripted: Scripted) -> None:
    hello = Reply(whole({"content": "Hello"}))
    assert content_of(scripted.ask(UNSUPPORTED_TOKENS, hello)) == "Hello"
    assert [call.get("max_tokens") for call in scripted.calls] == [1024, None]
    # It is remembered: nobody pays for it twice.
    assert content_of(scripted.ask(hello)) == "Hello"
    assert scripted.calls[-1]["max_completion_tokens"] == 1024
    assert len(scripted.calls) == 3
    # And unlearned, should the model change its mind.
    back = error("max_completion_tokens is not known here. Use max_tokens.")
    assert content_of(scripted.ask(back, hello)) == "Hello"
    assert [call.get("max_tokens") for call in scripted.calls] == [1024, None, None, None, 1024]


def test_a_provider_that_takes_no_stream_options(scripted: Scripted) -> None:
    hello = Reply(HELLO + END + DONE, "text/event-stream")
    for _ in range(2):
        response = scripted.ask(*([UNSUPPORTED_OPTIONS] if not scripted.calls else []), hello, stream=True)
        assert said(response, stream=True) == "Hello"
        # It reports nothing then, so our bound stands in the ledger, and the row says so.
        assert record_of(response).token_source == TokenSource.BOUND
    assert ["stream_options" in call for call in scripted.calls] == [True, False, False]


def test_a_model_with_both_habits(scripted: Scripted) -> None:
    hello = Reply(HELLO + END + DONE, "text/event-stream")
    response = scripted.ask(UNSUPPORTED_TOKENS, UNSUPPORTED_OPTIONS, hello, stream=True)
    assert said(response, stream=True) == "Hello"
    assert len(scripted.calls) == 3


def test_a_refusal_that_stays_is_not_asked_for_ever(scripted: Scripted) -> None:
    for _ in range(2):
        assert scripted.ask(UNSUPPORTED_TOKENS).json()["error"]["code"] == "unsupported_parameter"
    assert len(scripted.calls) == 6


OF_THE_CALLER = [
    (
        error("This model's maximum context length is 8192 tokens.", "context_length_exceeded"),
        "context_length_exceeded",
    ),
    (error("Filtered.", "content_filter"), "content_filter"),
    (error("The model `x` does not exist.", "model_not_found", 404), "model_not_found"),
    (error("Invalid image.", "invalid_image"), "invalid_image"),
    (error("Too large.", None, 413), "invalid_request_error"),
    (Reply(b'{"detail": [{"loc": ["body", "top_k"], "msg": "not allowed"}]}', status=422), "refused_by_provider"),
    (Reply(b'{"error": "model requires more memory"}', status=400), "refused_by_provider"),
    (
        Reply(b'[{"error": {"code": 400, "message": "Bad.", "status": "INVALID_ARGUMENT"}}]', status=400),
        "INVALID_ARGUMENT",
    ),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("reply", "code"), OF_THE_CALLER)
def test_what_the_caller_sent_is_the_callers_fault(scripted: Scripted, reply: Reply, code: str, stream: bool) -> None:
    response = scripted.ask(reply, stream=stream)
    assert response.status_code == 400
    body = response.json()
    assert (body["code"], body["statusText"]) == (400, "invalidParams")
    assert (body["error"]["type"], body["error"]["code"]) == ("invalid_request_error", code)
    assert body["error"]["message"] == body["message"]
    record = record_of(response)
    assert (record.outcome, record.status, record.prompt_tokens) == (Outcome.FAILED, 400, 0)
    assert record.failure["status"] == reply.status
    assert record.failure["message"] == body["message"]


@pytest.mark.parametrize(
    ("reply", "error_code"),
    [
        (error("Incorrect API key provided.", "invalid_api_key", 401), "upstream_error"),
        (error("You may not use this model.", None, 403), "upstream_error"),
        (error("Not Found", None, 500), "upstream_error"),
        (Reply(b"<html>Not Found</html>", "text/html", 404), "upstream_error"),
        (Reply(b'{"detail": "Not Found"}', status=404), "upstream_error"),
        (Reply(b"<html>Sign in</html>", "text/html"), "upstream_error"),
        (Reply(b"{}"), "upstream_error"),
        (Reply(b"[]"), "upstream_error"),
        (Reply(b"", status=204), "upstream_error"),
        (Reply(b'{"error": {"message": "overloaded", "code": 503}}'), "upstream_busy"),
        (error("Too long.", None, 504), "upstream_timeout"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_no_fault_of_the_caller(scripted: Scripted, reply: Reply, error_code: str, stream: bool) -> None:
    response = scripted.ask(reply, stream=stream)
    check_refusal(response, error_code)
    assert record_of(response).failure["what"]
    # OpenAI's clients would send it three times.
    is_hopeless = reply.status in (401, 403, 404)
    assert response.headers.get("x-should-retry") == ("false" if is_hopeless else None)


@pytest.mark.parametrize("status", [429, 503, 529])
@pytest.mark.parametrize(("retry_after", "seconds"), [("17", 17), ("x", 1), ("", 1), ("999999", 600), ("-3", 1)])
def test_a_busy_provider_says_when(scripted: Scripted, status: int, retry_after: str, seconds: int) -> None:
    response = scripted.ask(error("Slow down.", "rate_limit_exceeded", status, **{"Retry-After": retry_after}))
    check_refusal(response, "upstream_busy")
    assert response.status_code == 503
    assert response.headers["retry-after"] == str(seconds)


def test_operators_learn_why_and_nobody_else(scripted: Scripted) -> None:
    secret, url = "sk-provider-secret-do-not-leak-0123456789", scripted.provider.url
    text = f"Key {secret} of Bearer abc is\nover its limit at {url}/x and 10.0.0.7:99. Ask org-ABCDEFG123456789HIJKLM."
    response = scripted.ask(error(text, "insufficient_quota", 402))
    check_refusal(response, "upstream_error")
    assert "limit" not in response.text
    failure = record_of(response).failure
    assert (failure["what"], failure["status"], failure["code"]) == ("HTTP 402", 402, "insufficient_quota")
    assert failure["message"].startswith("Key ... of ... is over its limit at ")
    log = scripted.server.log
    wait_for(lambda: "insufficient_quota: Key ... of ... is over its limit" in log(), "the line in the log")
    for leak in (secret, "127.0.0.1", "10.0.0.7", str(scripted.provider.port), "org-ABCDEFG"):
        assert leak not in json.dumps(failure)
        assert leak not in response.text
    assert secret not in log()


def test_a_long_refusal_is_cut(scripted: Scripted) -> None:
    response = scripted.ask(error("word " * 10_000, "too_long"))
    assert response.status_code == 400
    assert len(response.json()["message"]) == 500
