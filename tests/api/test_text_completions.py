"""`POST v1/completions`: OpenAI's older form, answered like a chat completion with one message."""

from __future__ import annotations

from typing import Any

import httpx2
import openai
import pytest

from apikeys.accounting.ledger import Outcome, UsageRecord
from apikeys.accounting.limits import Limit
from chat.models import Conversation
from tests.api.test_completions_leaving import recorded
from tests.api.test_completions_tolerance import DONE, END, REPORT, event, whole
from tests.conftest import Server
from tests.support import factories
from tests.support.conversations import events_of, make_app, make_app_key, record_of
from tests.support.fake_provider import FakeProvider, Reply
from tests.support.refusals import check_refusal

PATH = "/api/v1/completions"
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


def ask(server: Server, key: str, prompt: Any = "hello", **body: Any) -> httpx2.Response:
    return server.post(PATH, key, json={"prompt": prompt, **body})


def text_of(events: list[tuple[str | None, Any]]) -> str:
    return "".join(data["choices"][0]["text"] for _, data in events[:-1] if data["choices"])


def test_it_works(server: Server, provider: FakeProvider) -> None:
    app = make_app(provider, system_prompt="Be brief.")
    api_key, key = factories.make_key(app=app)
    prompt = factories.unique("hello")
    response = ask(server, key, prompt, model="gpt-3.5-turbo-instruct")
    body = response.json()
    assert body.pop("created") > 0
    assert body == {
        "id": response.headers["x-request-id"],
        "object": "text_completion",
        "model": "echo",
        "usage": USAGE,
        "choices": [{"index": 0, "text": f"2 messages, the last: {prompt}", "logprobs": None, "finish_reason": "stop"}],
    }
    (call,) = provider.calls_about(prompt)
    assert call["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": prompt}]
    record = record_of(response)
    assert (record.key, record.app, record.endpoint) == (api_key, app, "completions.create")
    assert (record.prompt_tokens, record.completion_tokens, record.outcome) == (11, 7, Outcome.COMPLETE)


def test_stream(server: Server, provider: FakeProvider) -> None:
    response = ask(server, make_app_key(provider), stream=True, stream_options={"include_usage": True})
    assert response.headers["content-type"] == "text/event-stream;charset=utf-8"
    events = events_of(response.text)
    assert text_of(events) == "1 messages, the last: hello"
    assert {name for name, _ in events} == {None}
    assert {data["object"] for _, data in events[:-1]} == {"text_completion"}
    assert {data["usage"] for _, data in events[:-2]} == {None}
    assert events[-3][1]["choices"] == [{"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}]
    assert (events[-2][1]["choices"], events[-2][1]["usage"]) == ([], USAGE)
    assert events[-1] == (None, "[DONE]")
    events = events_of(ask(server, make_app_key(provider), stream=True).text)
    assert not any("usage" in data for _, data in events[:-1])


@pytest.mark.parametrize("stream", [False, True])
def test_the_openai_client(server: Server, provider: FakeProvider, stream: bool) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=make_app_key(provider)) as client:
        if stream:
            chunks = list(client.completions.create(model="x", prompt=["hi"], max_tokens=16, echo=False, stream=True))
            text = "".join(chunk.choices[0].text for chunk in chunks)
            assert chunks[-1].choices[0].finish_reason == "stop"
        else:
            answer = client.completions.create(model="x", prompt="hi", n=1, best_of=1, suffix=None, logprobs=None)
            assert answer.usage is not None
            assert answer.usage.total_tokens == 18
            text = answer.choices[0].text
        assert text == "1 messages, the last: hi"
        with pytest.raises(openai.BadRequestError) as caught:
            client.completions.create(model="x", prompt="hi", logprobs=5)
    assert caught.value.param == "logprobs"


def test_a_global_key_names_its_app(server: Server, provider: FakeProvider) -> None:
    app = make_app(provider)
    _, key = factories.make_key(app.team, can_name_app=True)
    assert ask(server, key, model=app.pk).status_code == 200
    assert ask(server, key, appId=app.pk).status_code == 200
    assert ask(server, f"{key}-{app.pk}").status_code == 200
    check_refusal(ask(server, key), "invalid_parameter", param="appId")
    check_refusal(ask(server, key, appId=make_app(provider).pk), "appUnExist")
    _, plain = factories.make_key(app.team)
    check_refusal(ask(server, plain, model=app.pk), "wrong_key_kind")
    _, other = factories.make_key(app=make_app(provider))
    check_refusal(ask(server, other, appId=app.pk), "wrong_key_kind")
    _, bound = factories.make_key(app=app, allowed_models=["other"])
    check_refusal(ask(server, bound), "model_not_allowed")


def test_options_are_passed_on(server: Server, provider: FakeProvider) -> None:
    options = {
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["x"],
        "seed": 5,
        "presence_penalty": 1,
        "logit_bias": {"5": 1},
    }
    _, key = factories.make_key(app=make_app(provider, max_tokens=100, can_override=True))
    prompt = factories.unique("options")
    assert ask(server, key, prompt, max_tokens=7, **options).status_code == 200
    (call,) = provider.calls_about(prompt)
    assert {name: call[name] for name in options} == options
    assert call["max_tokens"] == 7


def test_it_keeps_no_conversation(server: Server, provider: FakeProvider) -> None:
    app = make_app(provider)
    _, key = factories.make_key(app=app)
    # It has none of the fields of FastGPT, and ignores what it does not know.
    response = ask(server, key, chatId="c", detail=True, tools=[{"type": "function"}], messages="?")
    assert response.status_code == 200
    assert response.json()["id"] == response.headers["x-request-id"]
    assert "responseData" not in response.json()
    assert not Conversation.objects.filter(app=app).exists()


@pytest.mark.parametrize("stream", [False, True])
def test_reasoning_and_calls_are_left_out(server: Server, provider: FakeProvider, stream: bool) -> None:
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    deltas: list[dict[str, Any]] = [{"reasoning_content": "hm"}, {"content": "so"}, {"tool_calls": [call]}]
    if stream:
        raw = [event(delta) for delta in deltas] + [event({}, "tool_calls") + REPORT + DONE]
        provider.replies["thinking"] = lambda body: Reply(raw, "text/event-stream")
    else:
        message = {"content": "so", "reasoning_content": "hm", "tool_calls": [call]}
        provider.replies["thinking"] = lambda body: Reply(whole(message, "tool_calls"))
    response = ask(server, make_app_key(provider, "thinking"), stream=stream)
    if stream:
        assert response.text.count(": \n\n") == 2
        events = events_of(response.text)
        assert text_of(events) == "so"
        choice = events[-2][1]["choices"][0]
    else:
        choice = response.json()["choices"][0]
        assert choice["text"] == "so"
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_is_cut_short(server: Server, provider: FakeProvider, stream: bool) -> None:
    response = ask(server, make_app_key(provider, "cut_short"), stream=stream)
    data = events_of(response.text)[-2][1] if stream else response.json()
    assert data["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": 1}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["one", "two"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1, 2]]}, "prompt"),
        ({"prompt": [None]}, "prompt"),
        ({"prompt": "x" * (1024 * 1024 + 1)}, "prompt"),
        ({"prompt": "x", "suffix": "y"}, "suffix"),
        ({"prompt": "x", "suffix": 1}, "suffix"),
        ({"prompt": "x", "echo": True}, "echo"),
        ({"prompt": "x", "n": 2}, "n"),
        ({"prompt": "x", "best_of": 3}, "best_of"),
        ({"prompt": "x", "logprobs": 0}, "logprobs"),
        ({"prompt": "x", "logprobs": True}, "logprobs"),
        ({"prompt": "x", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "x", "temperature": "hot"}, "temperature"),
        ({"prompt": "x", "stop": [1]}, "stop[0]"),
        ({"prompt": "x", "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"prompt": "x", "stream": "yes"}, "stream"),
        ([], None),
    ],
)
def test_bad_input(server: Server, provider: FakeProvider, body: Any, param: str | None) -> None:
    api_key, key = factories.make_key(app=make_app(provider))
    check_refusal(server.post(PATH, key, json=body), "invalid_parameter", param=param)
    assert not UsageRecord.objects.filter(key=api_key).exists()


@pytest.mark.parametrize("field", ["prompt", "stop", "logit_bias", "unknown"])
def test_a_body_that_is_nested_deeply(server: Server, provider: FakeProvider, field: str) -> None:
    raw = f'{{"prompt": "x", "{field}": {"[" * 100_000}{"]" * 100_000}}}'
    check_refusal(server.post(PATH, make_app_key(provider), content=raw), "invalid_parameter")


@pytest.mark.parametrize("prompt", ["", " ", "a\0b", "导演是谁", "\\u0000", '"]}'])
def test_odd_prompts(server: Server, provider: FakeProvider, prompt: str) -> None:
    response = ask(server, make_app_key(provider), prompt, suffix="", logprobs=False)
    assert response.json()["choices"][0]["text"] == f"1 messages, the last: {prompt}".replace("\0", "\ufffd")


def test_limits(server: Server, provider: FakeProvider) -> None:
    api_key, key = factories.make_key(app=make_app(provider))
    Limit.objects.create(team=api_key.team, key=api_key, measure="requests", period="day", amount=1)
    response = ask(server, key)
    assert "ratelimit" in response.headers
    check_refusal(ask(server, key), "insufficient_quota")
    check_refusal(ask(server, key, stream=True), "insufficient_quota")


@pytest.mark.parametrize("stream", [False, True])
def test_a_provider_that_fails(server: Server, provider: FakeProvider, stream: bool) -> None:
    response = ask(server, make_app_key(provider, "status_500"), stream=stream)
    check_refusal(response, "upstream_error")
    assert record_of(response).outcome == Outcome.FAILED


def test_a_provider_that_fails_in_its_stream(server: Server, provider: FakeProvider) -> None:
    events = events_of(ask(server, make_app_key(provider, "error_event"), stream=True).text)
    assert events[0][1]["choices"][0]["text"] == "fine so far"
    assert events[-1][0] == "error"
    assert events[-1][1]["error"]["code"] == "upstream_error"


def test_a_caller_who_leaves(server: Server, provider: FakeProvider) -> None:
    key = make_app_key(provider, "slow")
    with server.client.stream(
        "POST", PATH, json={"prompt": "x", "stream": True}, headers={"Authorization": f"Bearer {key}"}
    ) as response:
        assert b"word0" in next(response.iter_raw())
    record = recorded(response.headers["x-request-id"])
    assert (record.outcome, record.endpoint) == (Outcome.CANCELLED, "completions.create")
    assert record.completion_tokens > 0


def test_nothing_but_an_end(server: Server, provider: FakeProvider) -> None:
    provider.replies["silent"] = lambda body: Reply(END + REPORT + DONE, "text/event-stream")
    events = events_of(ask(server, make_app_key(provider, "silent"), stream=True).text)
    assert text_of(events) == ""
    assert events[-1][1] == "[DONE]"
