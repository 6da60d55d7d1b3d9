"""`POST v1/responses`: what it answers, whole and as events, and what it refuses."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from apikeys.accounting.ledger import Outcome, TokenSource
from apikeys.accounting.limits import Limit
from tests.api.test_completions_leaving import recorded
from tests.api.test_completions_tolerance import CALL, DONE, END, Scripted, event, scripted, whole
from tests.conftest import Server
from tests.support import factories
from tests.support.conversations import events_of, make_app, make_app_key, record_of
from tests.support.fake_provider import FakeProvider, Reply
from tests.support.processes import wait_for
from tests.support.refusals import check_refusal

__all__ = ["scripted"]

PATH = "/api/v1/responses"
TOOL: dict[str, Any] = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
NESTED = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
EVENTS: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
REPORT = (
    b'data: {"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7,'
    b' "prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 3}}}\n\n'
)


def ask(server: Server, key: str, question: Any = "hello", **body: Any) -> httpx2.Response:
    return server.post(PATH, key, json={"input": question, **body})


def response_of(response: httpx2.Response) -> dict[str, Any]:
    """Return a response that OpenAI's own model takes without converting anything."""
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    Response.model_validate(body, strict=True)
    return body


def text_in(body: dict[str, Any]) -> str:
    parts = [part for item in body["output"] if item["type"] == "message" for part in item["content"]]
    return "".join(part["text"] for part in parts)


def stream_of(response: httpx2.Response) -> list[dict[str, Any]]:
    """Return the data of the events, each of which OpenAI's own models take, as its name says and in order."""
    assert response.status_code == 200, response.text
    assert "[DONE]" not in response.text
    events = events_of(response.text)
    assert [data["sequence_number"] for _, data in events] == list(range(len(events)))
    for name, data in events:
        assert data["type"] == name
        EVENTS.validate_python(data, strict=True)
    return [data for _, data in events]


def types_of(events: list[dict[str, Any]]) -> list[str]:
    """Return the types in order, each repeated one once and without what all have in common."""
    types = [data["type"].removeprefix("response.") for data in events]
    return [name for number, name in enumerate(types) if number == 0 or types[number - 1] != name]


MESSAGE = [
    *("output_item.added", "content_part.added", "output_text.delta", "output_text.done"),
    *("content_part.done", "output_item.done"),
]
REASONING = [
    *("output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta"),
    *("reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done"),
]
OPENING = ["created", "in_progress"]


def test_it_works(server: Server, provider: FakeProvider) -> None:
    _, key = factories.make_key(app=make_app(provider))
    response = ask(server, key, store=False)
    body = response_of(response)
    tail = response.headers["x-request-id"]
    created = body.pop("created_at")
    assert 0 <= body.pop("completed_at") - created < 60
    assert body == {
        "id": f"resp_{tail}",
        "object": "response",
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": 1024,
        "max_tool_calls": None,
        "metadata": {},
        "model": "echo",
        "output": [
            {
                "type": "message",
                "id": f"msg_{tail}_0",
                "status": "completed",
                "role": "assistant",
                "content": [
                    {
                        "type": "output_text",
                        "text": "1 messages, the last: hello",
                        "annotations": [],
                        "logprobs": [],
                    }
                ],
            }
        ],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": None,
        "store": False,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": None,
        "truncation": "disabled",
        "usage": {
            "input_tokens": 11,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 7,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 18,
        },
        "user": None,
    }
    record = record_of(response)
    assert (record.endpoint, record.outcome, record.token_source) == (
        "responses.create",
        Outcome.COMPLETE,
        TokenSource.PROVIDER,
    )
    assert (record.prompt_tokens, record.completion_tokens) == (11, 7)


def test_stream(server: Server, provider: FakeProvider) -> None:
    response = ask(server, make_app_key(provider), stream=True, store=False)
    assert response.headers["content-type"] == "text/event-stream;charset=utf-8"
    events = stream_of(response)
    assert types_of(events) == [*OPENING, *MESSAGE, "completed"]
    first, last = events[0]["response"], events[-1]["response"]
    assert (first["status"], first["output"], first["usage"]) == ("in_progress", [], None)
    assert last["id"] == first["id"]
    assert text_in(last) == "1 messages, the last: hello"
    assert last["usage"]["total_tokens"] == 18
    assert "".join(data.get("delta", "") for data in events) == text_in(last)
    assert [data["item"] for data in events if data["type"] == "response.output_item.done"] == last["output"]
    assert {data["item_id"] for data in events if "item_id" in data} == {last["output"][0]["id"]}


def test_items_of_the_input(server: Server, provider: FakeProvider) -> None:
    _, key = factories.make_key(app=make_app(provider, system_prompt="Be brief."))
    question = factories.unique("with items")
    data = "data:image/png;base64,AAAA"
    items = [
        {"role": "developer", "content": "Speak up."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "one"}]},
        {"id": "rs_1", "type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [
                {"type": "output_text", "text": "two", "annotations": []},
                {"type": "refusal", "refusal": "no"},
            ],
        },
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "weather", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "weather", "arguments": "no JSON"},
        {"type": "function_call_output", "call_id": "c1", "output": "Rain."},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "Sun."}]},
        {"type": "function_call", "call_id": "c3", "name": "weather", "arguments": ""},
        {"type": "function_call_output", "call_id": "c3", "output": ""},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": question},
                {"type": "input_image", "image_url": data, "detail": "low"},
                {"type": "input_file", "file_url": "https://x.example/a.pdf", "filename": "a.pdf"},
            ],
        },
    ]
    response_of(ask(server, key, items, instructions="Answer in verse.", store=False))
    (call,) = provider.calls_about(question)

    def called(call_id: str, arguments: str) -> dict[str, Any]:
        return {"id": call_id, "type": "function", "function": {"name": "weather", "arguments": arguments}}

    assert call["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "system", "content": "Answer in verse."},
        {"role": "system", "content": "Speak up."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two\nno", "tool_calls": [called("c1", "{}"), called("c2", "no JSON")]},
        {"role": "tool", "tool_call_id": "c1", "content": "Rain."},
        {"role": "tool", "tool_call_id": "c2", "content": "Sun."},
        {"role": "assistant", "content": None, "tool_calls": [called("c3", "")]},
        {"role": "tool", "tool_call_id": "c3", "content": ""},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": question},
                {"type": "image_url", "image_url": {"url": data, "detail": "low"}},
                {"type": "text", "text": "[a.pdf](https://x.example/a.pdf)"},
            ],
        },
    ]


def test_a_large_image(server: Server, provider: FakeProvider) -> None:
    """Its base64 is no text."""
    _, key = factories.make_key(app=make_app(provider))
    image = "data:image/png;base64," + "A" * 3_000_000
    question = factories.unique("image")
    parts = [{"type": "input_text", "text": question}, {"type": "input_image", "image_url": image, "detail": "auto"}]
    response_of(ask(server, key, [{"role": "user", "content": parts}], store=False))
    (call,) = provider.calls_about(question)
    assert call["messages"][0]["content"][1]["image_url"] == {"url": image, "detail": "auto"}


SCHEMA = {"type": "object", "properties": {}}
FORMAT = {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True}


@pytest.mark.parametrize(
    ("options", "passed"),
    [
        ({"tools": [TOOL]}, {"tools": [NESTED]}),
        ({"tools": [TOOL | {"strict": None, "description": None}]}, {"tools": [NESTED]}),
        (
            {"tools": [TOOL | {"strict": True, "description": "d"}], "parallel_tool_calls": False},
            {
                "tools": [{"type": "function", "function": {**NESTED["function"], "strict": True, "description": "d"}}],
                "parallel_tool_calls": False,
            },
        ),
        ({"tools": [TOOL], "tool_choice": "required"}, {"tools": [NESTED], "tool_choice": "required"}),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "name": "weather"}},
            {"tools": [NESTED], "tool_choice": {"type": "function", "function": {"name": "weather"}}},
        ),
        (
            {
                "tools": [TOOL, TOOL | {"name": "other"}],
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "auto",
                    "tools": [{"type": "function", "name": "weather"}],
                },
            },
            {"tools": [NESTED], "tool_choice": "auto"},
        ),
        # Without tools these say nothing.
        ({"tools": [], "tool_choice": "auto", "parallel_tool_calls": True}, {}),
        ({"text": {"format": {"type": "text"}}}, {}),
        ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
        (
            {"text": {"format": FORMAT}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": SCHEMA, "strict": True},
                }
            },
        ),
        ({"max_output_tokens": 20}, {"max_tokens": 20}),
        ({"max_output_tokens": 5_000}, {}),
    ],
)
def test_what_is_passed_on(
    server: Server, provider: FakeProvider, options: dict[str, Any], passed: dict[str, Any]
) -> None:
    _, key = factories.make_key(app=make_app(provider))
    question = factories.unique("passed on")
    body = response_of(ask(server, key, question, store=False, **options))
    (call,) = provider.calls_about(question)
    usual = {"model": "echo", "messages": [{"role": "user", "content": question}], "max_tokens": 1024, "stream": False}
    assert call == usual | passed
    for name in ("tool_choice", "parallel_tool_calls"):
        assert body[name] == options.get(name, body[name])
    assert [tool["name"] for tool in body["tools"]] == [tool["name"] for tool in options.get("tools", [])]


def test_what_the_app_lets_override(server: Server, provider: FakeProvider) -> None:
    options: dict[str, Any] = {"temperature": 0.5, "top_p": 0.25, "user": "ada", "service_tier": "flex"}
    passed = {**options, "reasoning_effort": "low", "verbosity": "low"}
    options |= {"reasoning": {"effort": "low"}, "text": {"verbosity": "low"}}
    for can_override in (False, True):
        _, key = factories.make_key(app=make_app(provider, can_override=can_override, temperature=1.5))
        question = factories.unique("overrides")
        body = response_of(ask(server, key, question, store=False, **options))
        (call,) = provider.calls_about(question)
        wanted = passed if can_override else {"temperature": 1.5}
        assert {name: call[name] for name in passed if name in call} == wanted
        assert (body["temperature"], body["top_p"]) == (wanted["temperature"], wanted.get("top_p"))


def test_what_is_ignored(server: Server, provider: FakeProvider) -> None:
    options = {
        "model": "gpt-5",
        "background": False,
        "conversation": None,
        "include": ["reasoning.encrypted_content"],
        "max_tool_calls": 3,
        "prompt_cache_key": "x",
        "safety_identifier": "x",
        "stream_options": {"include_obfuscation": False},
        "top_logprobs": 0,
        "truncation": "auto",
        "anything": {"else": 1},
    }
    body = response_of(ask(server, make_app_key(provider), store=False, metadata={"a": "b"}, **options))
    assert body["metadata"] == {"a": "b"}
    assert body["model"] == "echo"


def test_reasoning_text_and_calls(scripted: Scripted) -> None:
    """They are items in the order in which they came, whole and streamed alike."""
    other = {"id": "c2", "type": "function", "function": {"name": "other", "arguments": "{}"}}
    message = {"reasoning_content": "Hm, so.", "content": "I ask.", "tool_calls": [CALL, other]}
    scripted.ask(Reply(whole(message, "tool_calls")))
    body = response_of(ask(scripted.server, scripted.key, tools=[TOOL], store=False))
    begun = [
        {"index": index, "id": f"c{index + 1}", "type": "function", "function": {"name": name, "arguments": ""}}
        for index, name in enumerate(["weather", "other"])
    ]
    # The pieces of several calls may come in any order.
    pieces = [(0, '{"city"'), (1, "{"), (0, ': "Ulm"}'), (1, "}")]
    deltas = [
        *({"reasoning_content": "Hm, "}, {"reasoning_content": "so."}, {"content": "I "}, {"content": "ask."}),
        *({"tool_calls": [call]} for call in begun),
        *({"tool_calls": [{"index": index, "function": {"arguments": text}}]} for index, text in pieces),
    ]
    stream = b"".join(map(event, deltas)) + event({}, "tool_calls") + REPORT + DONE
    scripted.ask(Reply(stream, "text/event-stream"))
    events = stream_of(ask(scripted.server, scripted.key, tools=[TOOL], store=False, stream=True))
    arguments = "function_call_arguments"
    assert types_of(events) == [
        *OPENING,
        *REASONING,
        *MESSAGE,
        "output_item.added",
        f"{arguments}.delta",
        *[f"{arguments}.done", "output_item.done"] * 2,
        "completed",
    ]
    streamed = events[-1]["response"]
    for found in (body, streamed):
        tail = found["id"].removeprefix("resp_")
        reasoning, said, *calls = found["output"]
        assert reasoning == {
            "type": "reasoning",
            "id": f"rs_{tail}_0",
            "summary": [{"type": "summary_text", "text": "Hm, so."}],
        }
        assert (said["id"], said["content"][0]["text"]) == (f"msg_{tail}_0", "I ask.")
        assert [json.loads(call.pop("arguments")) for call in calls] == [{"city": "Ulm"}, {}]
        assert calls == [
            {"type": "function_call", "id": f"fc_{tail}_0", "status": "completed", "call_id": "c1", "name": "weather"},
            {"type": "function_call", "id": f"fc_{tail}_1", "status": "completed", "call_id": "c2", "name": "other"},
        ]
    assert streamed["usage"] == {
        "input_tokens": 11,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 18,
    }


@pytest.mark.parametrize("stream", [False, True])
def test_calls_as_some_providers_write_them(scripted: Scripted, stream: bool) -> None:
    """Without an index, without an id, with their arguments as an object, in the older form, or without anything."""
    calls: list[Any] = [
        {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}},
        {"id": "c2", "function": {"name": "g", "arguments": None}},
        {"id": 7, "function": "h"},
    ]
    message = {"content": None, "tool_calls": calls, "function_call": {"name": "i", "arguments": "{}"}}
    scripted.ask(Reply(event(message, "tool_calls") + DONE if stream else whole(message, "tool_calls")))
    response = ask(scripted.server, scripted.key, tools=[TOOL], store=False, stream=stream)
    body = stream_of(response)[-1]["response"] if stream else response_of(response)
    tail = body["id"].removeprefix("resp_")
    assert [(item["call_id"], item["name"], item["arguments"]) for item in body["output"]] == [
        (f"call_{tail}_0", "f", '{"a":1}'),
        ("c2", "g", ""),
        (f"call_{tail}_2", "", ""),
        (f"call_{tail}_3", "i", "{}"),
    ]


def test_texts_that_take_turns(scripted: Scripted) -> None:
    deltas = [{"content": "a"}, {"reasoning_content": "b"}, {"content": "c"}, {"tool_calls": [CALL | {"index": 0}]}]
    stream = b"".join(map(event, [*deltas, {"content": "d"}])) + END + DONE
    scripted.ask(Reply(stream, "text/event-stream"))
    events = stream_of(ask(scripted.server, scripted.key, tools=[TOOL], store=False, stream=True))
    output = events[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["message", "reasoning", "message", "function_call", "message"]
    assert text_in(events[-1]["response"]) == "acd"
    done = [data for data in events if data["type"] == "response.output_item.done"]
    assert sorted(data["output_index"] for data in done) == [0, 1, 2, 3, 4]
    assert [output[data["output_index"]] for data in done] == [data["item"] for data in done]


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal(scripted: Scripted, stream: bool) -> None:
    message = {"content": None, "refusal": "I will not."}
    scripted.ask(Reply(event(message, "stop") + DONE if stream else whole(message)))
    response = ask(scripted.server, scripted.key, store=False, stream=stream)
    events = stream_of(response) if stream else []
    body = events[-1]["response"] if stream else response_of(response)
    assert body["output"][0]["content"] == [{"type": "refusal", "refusal": "I will not."}]
    if stream:
        assert types_of(events)[4:6] == ["refusal.delta", "refusal.done"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("finish_reason", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_an_answer_that_is_not_whole(scripted: Scripted, stream: bool, finish_reason: str, reason: str) -> None:
    message = {"content": "cut"}
    scripted.ask(Reply(event(message, finish_reason) + DONE if stream else whole(message, finish_reason)))
    response = ask(scripted.server, scripted.key, store=False, stream=stream)
    events = stream_of(response) if stream else []
    body = events[-1]["response"] if stream else response_of(response)
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": reason})
    assert (body["output"][0]["status"], body["completed_at"]) == ("incomplete", None)
    assert not stream or events[-1]["type"] == "response.incomplete"


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_without_anything(scripted: Scripted, stream: bool) -> None:
    scripted.ask(Reply(event({}, "stop") + DONE if stream else whole({"content": ""})))
    response = ask(scripted.server, scripted.key, store=False, stream=stream)
    body = stream_of(response)[-1]["response"] if stream else response_of(response)
    assert [item["content"][0]["text"] for item in body["output"]] == [""]


@pytest.mark.parametrize("model", ["error_event", "half"])
def test_a_failure_in_the_stream(server: Server, provider: FakeProvider, model: str) -> None:
    response = ask(server, make_app_key(provider, model), store=False, stream=True)
    events = stream_of(response)
    assert types_of(events) == [
        *OPENING,
        *("output_item.added", "content_part.added", "output_text.delta"),
        *("error", "failed"),
    ]
    error, failed = events[-2], events[-1]["response"]
    assert error["code"] == error["error"]["code"] == "upstream_error"
    assert error["message"] == failed["error"]["message"] == error["error"]["message"]
    assert (failed["status"], failed["error"]["code"], failed["usage"]) == ("failed", "server_error", None)
    assert (failed["output"][0]["status"], text_in(failed)) == (
        "incomplete",
        "fine so far" if model == "error_event" else "half ",
    )
    assert provider.url not in response.text
    assert record_of(response).outcome == Outcome.FAILED


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_before_the_first_byte(server: Server, provider: FakeProvider, stream: bool) -> None:
    check_refusal(ask(server, make_app_key(provider, "status_500"), store=False, stream=stream), "upstream_error")


def test_a_provider_that_is_long_in_coming(server: Server, provider: FakeProvider) -> None:
    """The first events do not wait for it longer than headers do."""
    events = stream_of(ask(server, make_app_key(provider, "late"), store=False, stream=True))
    assert types_of(events) == [*OPENING, *MESSAGE, "completed"]


@pytest.mark.parametrize(
    ("param", "body"),
    [
        ("input", {"input": None}),
        ("input", {"input": 5}),
        ("input", {"input": []}),
        ("input[0]", {"input": ["text"]}),
        ("input", {"input": [{"role": "assistant", "content": "I begin."}]}),
        ("input[0].role", {"input": [{"content": "x"}]}),
        ("input[0].role", {"input": [{"role": "tool", "content": "x"}]}),
        ("input[0].content", {"input": [{"role": "user", "content": None}]}),
        ("input[0].type", {"input": [{"type": "web_search_call", "id": "ws_1"}]}),
        ("input[0].type", {"input": [{"type": ["message"]}]}),
        ("input[0].content[0].type", {"input": [{"role": "user", "content": [{"type": "input_audio"}]}]}),
        ("input[0].content[0].type", {"input": [{"role": "user", "content": [{"text": "x"}]}]}),
        (
            "input[0].content[0].image_url",
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "file-1"}]}]},
        ),
        (
            "input[0].content[0].file_url",
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_data": "data:a/b;base64,AA"}]}]},
        ),
        ("input[0].call_id", {"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}),
        ("input[0].output", {"input": [{"type": "function_call_output", "call_id": "c", "output": {"a": 1}}]}),
        ("instructions", {"instructions": ["x"]}),
        ("tools[0].type", {"tools": [{"type": "web_search"}]}),
        ("tools[0].type", {"tools": [{"type": "custom", "name": "x"}]}),
        ("tools[1].name", {"tools": [TOOL, {"type": "function"}]}),
        ("tool_choice", {"tool_choice": "sometimes"}),
        ("tool_choice.type", {"tool_choice": {"type": "file_search"}}),
        (
            "tool_choice.tools",
            {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "x"}]}},
        ),
        ("text.format.type", {"text": {"format": {"type": "grammar"}}}),
        ("text.format.name", {"text": {"format": {"type": "json_schema", "schema": {}}}}),
        ("text.format.schema", {"text": {"format": {"type": "json_schema", "name": "x"}}}),
        ("max_output_tokens", {"max_output_tokens": 0}),
        ("temperature", {"temperature": 3}),
        ("metadata", {"metadata": {str(number): "" for number in range(17)}}),
        ("background", {"background": True}),
        ("conversation", {"conversation": "conv_1"}),
        ("prompt", {"prompt": {"id": "pmpt_1"}}),
        ("context_management", {"context_management": [{"type": "compaction"}]}),
        ("moderation", {"moderation": {"model": "omni-moderation-latest"}}),
        ("top_logprobs", {"top_logprobs": 2}),
        ("include", {"include": ["message.output_text.logprobs"]}),
        ("input", {"input": "x" * 1_048_577}),
        ("instructions", {"instructions": "x" * 1_048_577}),
        ("tools", {"tools": [TOOL | {"description": "x" * 1_048_577}]}),
    ],
)
def test_what_is_refused(server: Server, provider: FakeProvider, param: str, body: dict[str, Any]) -> None:
    response = server.post(PATH, make_app_key(provider), json={"input": "x"} | body)
    check_refusal(response, "invalid_parameter", param=param)


def test_a_body_without_input(server: Server, provider: FakeProvider) -> None:
    response = server.post(PATH, make_app_key(provider), json={"messages": [{"role": "user", "content": "hi"}]})
    check_refusal(response, "invalid_parameter", param="input")


@pytest.mark.parametrize(
    ("param", "body"),
    [
        ("tools", {"tools": [TOOL]}),
        ("text.format", {"text": {"format": FORMAT}}),
        (
            "input",
            {
                "input": [
                    {"role": "user", "content": "x"},
                    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                    {"type": "function_call_output", "call_id": "c", "output": "x"},
                ]
            },
        ),
    ],
)
def test_an_app_that_passes_no_tools(server: Server, provider: FakeProvider, param: str, body: dict[str, Any]) -> None:
    key = make_app_key(provider, passes_tools=False)
    check_refusal(server.post(PATH, key, json={"input": "x", "store": False} | body), "invalid_parameter", param=param)


def test_a_global_key_names_the_app(server: Server, provider: FakeProvider) -> None:
    app = make_app(provider)
    _, key = factories.make_key(app.team, can_name_app=True)
    for named in ({"model": app.pk}, {"appId": app.pk}):
        assert text_in(response_of(ask(server, key, store=False, **named)))
    assert text_in(response_of(ask(server, f"{key}-{app.pk}", store=False, model="gpt-5")))
    check_refusal(ask(server, key, store=False, model="gpt-5"), "invalid_parameter", param="model")
    other = make_app(provider)
    check_refusal(ask(server, key, store=False, model=other.pk), "appUnExist")
    _, plain = factories.make_key(app.team)
    check_refusal(ask(server, plain, store=False, model=app.pk), "wrong_key_kind")


def test_limits_hold(server: Server, provider: FakeProvider) -> None:
    api_key, key = factories.make_key(app=make_app(provider))
    Limit.objects.create(team=api_key.team, key=api_key, measure="requests", period="day", amount=1)
    first = ask(server, key, store=False)
    assert first.headers["ratelimit"]
    response_of(first)
    check_refusal(ask(server, key, store=False, stream=True), "insufficient_quota")


def test_quotes_are_inserted(server: Server, provider: FakeProvider) -> None:
    """An app with datasets answers from them here too."""
    app = make_app(provider, empty_answer="I know nothing of it.")
    app.datasets.add(factories.make_dataset(app.team))
    _, key = factories.make_key(app=app)
    body = response_of(ask(server, key, store=False))
    assert text_in(body) == "I know nothing of it."
    assert body["usage"]["total_tokens"] == 0
    events = stream_of(ask(server, key, store=False, stream=True))
    assert text_in(events[-1]["response"]) == "I know nothing of it."


def test_other_methods_and_paths(server: Server, provider: FakeProvider) -> None:
    key = make_app_key(provider)
    check_refusal(server.get(PATH, key), "method_not_allowed")
    stored = response_of(ask(server, key))["id"]
    for method in ("GET", "DELETE"):
        check_refusal(server.request(method, f"{PATH}/{stored}", key), "not_found")
    assert server.post("/v1/responses/", key, json={"input": "x"}).status_code == 200


def test_nuls_and_deep_bodies(server: Server, provider: FakeProvider) -> None:
    key = make_app_key(provider)
    question = factories.unique("nul")
    response_of(server.post(PATH, key, content=json.dumps({"input": f"{question} a\0b", "instructions": "\0"})))
    (call,) = provider.calls_about(question)
    assert call["messages"][-1]["content"] == f"{question} a\ufffdb"
    deep = "[" * 100_000 + "]" * 100_000
    check_refusal(server.post(PATH, key, content=f'{{"input": [{{"x": {deep}}}]}}'), "invalid_parameter")
    deep = '{"properties":' * 1_000 + "{}" + "}" * 1_000
    tools = f'[{{"type": "function", "name": "f", "parameters": {deep}}}]'
    response = server.post(PATH, key, content=f'{{"input": "x", "tools": {tools}}}')
    assert "too deeply" in check_refusal(response, "invalid_parameter")
    check_refusal(server.post(PATH, key, content='{"input": "\\ud800"}'), "invalid_parameter")


@pytest.mark.parametrize("size", [1, 200_000])
def test_no_depth_is_a_fault_of_ours(server: Server, provider: FakeProvider, size: int) -> None:
    """It is passed on, or refused as too deep. Large bodies are read in a thread, whose stack is another."""
    key = make_app_key(provider)
    statuses = set()
    for depth in (100, 400, *range(850, 1000, 6)):
        deep = '{"p":' * depth + "{}" + "}" * depth
        tools = f'[{{"type": "function", "name": "f", "parameters": {deep}}}]'
        text = f'{{"format": {{"type": "json_schema", "name": "x", "schema": {deep}}}}}'
        for field in (f'"tools": {tools}', f'"text": {text}', f'"variables": {deep}'):
            response = server.post(PATH, key, content=f'{{"input": "{"x" * size}", {field}}}')
            if response.status_code != 200:
                assert "too deeply" in check_refusal(response, "invalid_parameter"), depth
            statuses.add(response.status_code)
    assert statuses == {200, 400}


def test_thousands_of_calls_in_a_row(server: Server, provider: FakeProvider) -> None:
    key = make_app_key(provider)
    items: list[dict[str, Any]] = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    items += [{"type": "function_call", "call_id": "c", "name": "f", "arguments": ""}] * 13_000
    assert ask(server, key, items, store=False).elapsed.total_seconds() < 3


def test_a_client_that_leaves_in_the_middle(server: Server, provider: FakeProvider) -> None:
    key = make_app_key(provider, "slow")
    question = factories.unique("leaving")
    with server.client.stream(
        "POST", PATH, json={"input": question, "stream": True}, headers={"Authorization": f"Bearer {key}"}
    ) as response:
        next(text for text in response.iter_text() if "output_text.delta" in text)
    wait_for(lambda: provider.left_at.get(question), "the provider's call is cancelled", seconds=2)
    assert recorded(response.headers["x-request-id"]).outcome == Outcome.CANCELLED
