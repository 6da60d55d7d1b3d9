"""Tools, functions and the format of the answer: passed on to the model, and back, where the app lets them be.

`test_completions_tool_turns.py` is about tools in conversations.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai import OpenAI

from apikeys.accounting.ledger import TokenSource
from tests.api.test_completions_tolerance import CALL, DONE, END, REPORT, event, whole
from tests.conftest import Server
from tests.support import factories
from tests.support.conversations import content_of, make_app, record_of
from tests.support.fake_provider import FakeProvider, Reply
from tests.support.refusals import check_refusal

PATH = "/api/v1/chat/completions"
USER = {"role": "user", "content": "How is the weather in Ulm?"}
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "Rain."}
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
OPTIONS: list[dict[str, Any]] = [
    {"tools": [TOOL]},
    {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False},
    {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "weather"}}},
    {"functions": [TOOL["function"]], "function_call": {"name": "weather"}},
    {"response_format": {"type": "json_object"}},
    {"response_format": FORMAT},
]


def ask(server: Server, key: str, *messages: dict[str, Any], **body: Any) -> Any:
    return server.post(PATH, key, json={"messages": list(messages) or [USER], **body})


@pytest.fixture
def weather(provider: FakeProvider) -> Any:
    """A model that asks for its tool, and then says what it was told."""

    def answer(body: dict[str, Any]) -> Reply:
        last = body["messages"][-1]
        if last["role"] == "tool":
            text = f"It says: {last['content']}"
            if body["stream"]:
                return Reply(event({"content": text}) + END + REPORT + DONE, "text/event-stream")
            return Reply(whole({"content": text}))
        if body["stream"]:
            begun = {"index": 0, "id": "c1", "type": "function", "function": {"name": "weather", "arguments": ""}}
            pieces = [{"index": 0, "function": {"arguments": piece}} for piece in ('{"city"', ': "Ulm"}')]
            deltas = [event({"tool_calls": [call]}) for call in (begun, *pieces)]
            return Reply(b"".join(deltas) + event({}, "tool_calls") + REPORT + DONE, "text/event-stream")
        return Reply(whole({"content": None, "tool_calls": [CALL]}, "tool_calls"))

    provider.replies["weather"] = answer
    yield answer
    del provider.replies["weather"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_round_trip_through_openais_client(
    server: Server, provider: FakeProvider, weather: Any, stream: bool
) -> None:
    _, key = factories.make_key(app=make_app(provider, "weather"))
    client = OpenAI(base_url=f"{server.url}/api/v1", api_key=key)
    messages: list[Any] = [USER]
    if stream:
        arguments = name = ""
        for chunk in client.chat.completions.create(model="x", messages=messages, tools=[TOOL], stream=True):
            for call in (chunk.choices[0].delta.tool_calls or []) if chunk.choices else []:
                assert call.function is not None
                name += call.function.name or ""
                arguments += call.function.arguments or ""
        called: Any = {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}
        messages.append({"role": "assistant", "content": None, "tool_calls": [called]})
    else:
        choice = client.chat.completions.create(model="x", messages=messages, tools=[TOOL]).choices[0]
        assert choice.finish_reason == "tool_calls"
        messages.append(choice.message.model_dump(exclude_none=True))
        (made,) = choice.message.tool_calls or []
        called = made.model_dump()
    assert called["function"]["name"] == "weather"
    assert json.loads(called["function"]["arguments"]) == {"city": "Ulm"}
    messages.append({"role": "tool", "tool_call_id": "c1", "content": "Rain."})
    answer = client.chat.completions.create(model="x", messages=messages, tools=[TOOL])
    assert answer.choices[0].message.content == "It says: Rain."


@pytest.mark.parametrize("chat_id", [None, "c"])
@pytest.mark.parametrize("options", OPTIONS)
def test_what_is_passed_on(
    server: Server, provider: FakeProvider, options: dict[str, Any], chat_id: str | None
) -> None:
    _, key = factories.make_key(app=make_app(provider))
    question = factories.unique("passed on")
    assert ask(server, key, {"role": "user", "content": question}, chatId=chat_id, **options).status_code == 200
    (call,) = provider.calls_about(question)
    assert {name: call.get(name) for name in options} == options


def test_messages_of_tools_are_passed_on_as_they_are(server: Server, provider: FakeProvider) -> None:
    _, key = factories.make_key(app=make_app(provider))
    question = {"role": "user", "content": factories.unique("with tools"), "name": "ada"}
    legacy = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "no JSON"}}
    result = {"role": "function", "name": "f", "content": "1"}
    messages = [question, CALLED, RESULT, legacy, result, {"role": "assistant"}, {"role": "user", "content": "well?"}]
    assert ask(server, key, *messages).status_code == 200
    (call,) = provider.calls_about(str(question["content"]))
    messages[5] = {"role": "assistant", "content": ""}
    assert call["messages"] == messages


def test_what_the_app_overrides_is_passed_on_only_where_it_may(server: Server, provider: FakeProvider) -> None:
    options = {"logit_bias": {"5": -100}, "reasoning_effort": "low", "service_tier": "flex"}
    for can_override in (False, True):
        _, key = factories.make_key(app=make_app(provider, can_override=can_override))
        question = factories.unique("overrides")
        assert ask(server, key, {"role": "user", "content": question}, **options).status_code == 200
        (call,) = provider.calls_about(question)
        assert {name: call[name] for name in options if name in call} == (options if can_override else {})


def test_tokens_of_tools_count(server: Server, provider: FakeProvider) -> None:
    """They are part of the prompt's bound, where the provider reports nothing."""
    _, key = factories.make_key(app=make_app(provider, "no_usage"))
    plain, with_tools = record_of(ask(server, key)), record_of(ask(server, key, USER, CALLED, RESULT, tools=[TOOL]))
    assert plain.token_source == with_tools.token_source == TokenSource.BOUND
    more = len(json.dumps(TOOL)) + len(json.dumps(CALL)) + len("Rain.")
    assert with_tools.prompt_tokens - plain.prompt_tokens > 0.8 * more


@pytest.mark.parametrize(("passes_tools", "has_datasets"), [(False, False), (None, True)])
@pytest.mark.parametrize("options", OPTIONS)
def test_an_app_that_passes_none(
    server: Server, provider: FakeProvider, passes_tools: bool | None, has_datasets: bool, options: dict[str, Any]
) -> None:
    app = make_app(provider, passes_tools=passes_tools)
    if has_datasets:
        app.datasets.add(factories.make_dataset(app.team))
    _, key = factories.make_key(app=app)
    check_refusal(ask(server, key, **options), "invalid_parameter", param=next(iter(options)))
    check_refusal(ask(server, key, USER, CALLED, RESULT), "invalid_parameter", param="messages")
    # What asks for none is answered as ever.
    assert ask(server, key, tools=[TOOL], tool_choice="none").status_code == 200
    assert ask(server, key, USER | {"name": "ada"}).status_code == 200


def test_an_app_with_datasets_that_passes_them(server: Server, provider: FakeProvider) -> None:
    app = make_app(provider, passes_tools=True)
    app.datasets.add(factories.make_dataset(app.team))
    _, key = factories.make_key(app=app)
    question = factories.unique("both")
    assert ask(server, key, {"role": "user", "content": question}, tools=[TOOL]).status_code == 200
    (call,) = provider.calls_about(question)
    assert call["tools"] == [TOOL]


def test_a_thousand_tools(server: Server, provider: FakeProvider) -> None:
    _, key = factories.make_key(app=make_app(provider))
    tools = [{"type": "function", "function": {"name": f"f{number}"}} for number in range(1_000)]
    assert content_of(ask(server, key, tools=tools))
    check_refusal(ask(server, key, tools=[TOOL | {"x": "y" * 1_048_576}]), "invalid_parameter", param="tools")


def test_a_schema_a_thousand_deep(server: Server, provider: FakeProvider) -> None:
    _, key = factories.make_key(app=make_app(provider))
    deep = '{"properties":' * 1_000 + "{}" + "}" * 1_000
    tools = f'[{{"type": "function", "function": {{"name": "f", "parameters": {deep}}}}}]'
    response = server.post(PATH, key, content=f'{{"messages": [{json.dumps(USER)}], "tools": {tools}}}')
    assert "too deeply" in check_refusal(response, "invalid_parameter")


def test_ten_thousand_deltas_of_tools(server: Server, provider: FakeProvider, weather: Any) -> None:
    pieces = [event({"tool_calls": [{"index": 0, "function": {"arguments": "x" * 100}}]}) * 100] * 100
    _, key = factories.make_key(app=make_app(provider, "weather"))
    provider.replies["weather"] = lambda body: Reply(b"".join(pieces) + event({}, "tool_calls") + DONE, "text/plain")
    answer = ask(server, key, tools=[TOOL]).json()["choices"][0]["message"]
    assert len(answer["tool_calls"][0]["function"]["arguments"]) == 1_000_000
