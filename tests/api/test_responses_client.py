"""`POST v1/responses` through OpenAI's own client."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from tests.api.test_completions_tolerance import CALL, DONE, END, REPORT, Scripted, event, scripted, whole
from tests.conftest import Server
from tests.support.conversations import make_app_key
from tests.support.fake_provider import FakeProvider, Reply

__all__ = ["scripted"]

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL: Any = {"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": False}
Connect = Callable[[str], OpenAI]
QUESTION = "How is the weather in Ulm?"


@pytest.fixture
def client_of(server: Server) -> Iterator[Connect]:
    """Makes clients with a key, and closes them."""
    with ExitStack() as clients:
        yield lambda key: clients.enter_context(OpenAI(base_url=f"{server.url}/api/v1", api_key=key, max_retries=0))


@pytest.fixture
def client(client_of: Connect, provider: FakeProvider) -> OpenAI:
    return client_of(make_app_key(provider))


def answer(body: dict[str, Any]) -> Reply:
    """Ask for the tool, and then say what it said."""
    last = body["messages"][-1]
    if last["role"] == "tool":
        message, reason = {"content": f"It says: {last['content']}"}, "stop"
    else:
        message, reason = {"content": None, "tool_calls": [CALL | {"index": 0}]}, "tool_calls"
    if body["stream"]:
        return Reply(event(message) + event({}, reason) + REPORT + DONE, "text/event-stream")
    return Reply(whole(message, reason))


@pytest.fixture
def weather(scripted: Scripted, client_of: Connect) -> OpenAI:
    scripted.provider.replies[scripted.model] = answer
    return client_of(scripted.key)


def test_a_plain_answer(client: OpenAI) -> None:
    response = client.responses.create(model="x", input="hello", instructions="Be brief.")
    assert response.output_text == "2 messages, the last: hello"
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (11, 7, 18)
    assert response.status == "completed"


def test_a_stream(client: OpenAI) -> None:
    with client.responses.stream(model="x", input="hello") as stream:
        text = "".join([event.delta for event in stream if event.type == "response.output_text.delta"])
        response = stream.get_final_response()
    assert text == response.output_text == "1 messages, the last: hello"
    assert response.usage is not None
    assert response.usage.total_tokens == 18


def test_an_unparsed_stream(client: OpenAI) -> None:
    events = list(client.responses.create(model="x", input="hello", stream=True))
    assert [event.type for event in (events[0], events[-1])] == ["response.created", "response.completed"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_round_trip_of_a_tool(weather: OpenAI, stream: bool) -> None:
    items: list[Any] = [{"role": "user", "content": QUESTION}]
    for _ in range(2):
        if stream:
            with weather.responses.stream(model="x", input=items, tools=[TOOL], store=False) as events:
                arguments = [event.snapshot for event in events if event.type.endswith("arguments.delta")]
                response: Any = events.get_final_response()
            assert not arguments or json.loads(arguments[-1]) == {"city": "Ulm"}
        else:
            response = weather.responses.create(model="x", input=items, tools=[TOOL], store=False)
        items += response.output
        for call in response.output:
            if call.type == "function_call":
                assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Ulm"})
                items.append({"type": "function_call_output", "call_id": call.call_id, "output": "Rain."})
    assert response.output_text == "It says: Rain."


@pytest.mark.parametrize("stream", [False, True])
def test_a_round_trip_of_a_tool_in_a_conversation(weather: OpenAI, stream: bool) -> None:
    items: Any = QUESTION
    response: Any = None
    for _ in range(2):
        previous = response.id if response else None
        if stream:
            with weather.responses.stream(
                model="x", input=items, tools=[TOOL], **({"previous_response_id": previous} if previous else {})
            ) as events:
                response = events.get_final_response()
        else:
            response = weather.responses.create(model="x", input=items, tools=[TOOL], previous_response_id=previous)
        items = [
            {"type": "function_call_output", "call_id": call.call_id, "output": "Rain."}
            for call in response.output
            if call.type == "function_call"
        ]
    assert response.output_text == "It says: Rain."
    last = weather.responses.create(model="x", input="Thank you.", tools=[TOOL], previous_response_id=response.id)
    assert last.previous_response_id == response.id
    with pytest.raises(openai.NotFoundError) as refused:
        weather.responses.create(model="x", input="?", previous_response_id="resp_1")
    assert (refused.value.code, refused.value.param) == ("previous_response_not_found", "previous_response_id")


class City(BaseModel):
    name: str
    inhabitants: int


@pytest.mark.parametrize("stream", [False, True])
def test_structured_output(scripted: Scripted, client_of: Connect, stream: bool) -> None:
    text = '{"name": "Ulm", "inhabitants": 128928}'
    scripted.ask(Reply(event({"content": text}) + END + DONE if stream else whole({"content": text})))
    client = client_of(scripted.key)
    if stream:
        with client.responses.stream(model="x", input="Ulm?", text_format=City) as events:
            response: Any = events.get_final_response()
    else:
        response = client.responses.parse(model="x", input="Ulm?", text_format=City)
    assert response.output_parsed == City(name="Ulm", inhabitants=128_928)
    passed = scripted.calls[-1]["response_format"]
    assert (passed["type"], passed["json_schema"]["name"], passed["json_schema"]["strict"]) == (
        "json_schema",
        "City",
        True,
    )


@pytest.mark.parametrize("stream", [False, True])
def test_reasoning(scripted: Scripted, client_of: Connect, stream: bool) -> None:
    message = {"reasoning_content": "Hm.", "content": "So."}
    scripted.ask(Reply(event(message) + END + DONE if stream else whole(message)))
    client = client_of(scripted.key)
    with client.responses.stream(model="x", input="?") as events:
        response: Any = events.get_final_response()
    reasoning, said = response.output
    assert [part.text for part in reasoning.summary] == ["Hm."]
    assert said.content[0].text == response.output_text == "So."
    # What it thought comes back with the next question, and is not asked of the model.
    items: Any = [{"role": "user", "content": "?"}, *response.output, {"role": "user", "content": "And?"}]
    assert client.responses.create(model="x", input=items, store=False).output_text == "So."
    assert [message["content"] for message in scripted.calls[-1]["messages"]] == ["?", "So.", "And?"]


def test_an_answer_that_was_cut(client_of: Connect, provider: FakeProvider) -> None:
    client = client_of(make_app_key(provider, "cut_short"))
    response = client.responses.create(model="x", input="hello", max_output_tokens=20)
    assert response.incomplete_details is not None
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    events = list(client.responses.create(model="x", input="hello", stream=True))
    assert events[-1].type == "response.incomplete"


def test_errors(client_of: Connect, provider: FakeProvider, client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model="x", input="hello", tools=[{"type": "web_search"}])
    assert (refused.value.code, refused.value.param) == ("invalid_parameter", "tools[0].type")
    with pytest.raises(openai.AuthenticationError):
        client_of("sk-none").responses.create(model="x", input="hello")
    with pytest.raises(openai.InternalServerError) as failed:
        client_of(make_app_key(provider, "status_500")).responses.create(model="x", input="hello")
    assert failed.value.code == "upstream_error"
    with (
        pytest.raises(openai.APIError) as ended,
        client_of(make_app_key(provider, "error_event")).responses.stream(model="x", input="hello") as stream,
    ):
        stream.until_done()
    assert (ended.value.code, ended.value.message) == ("upstream_error", "The model's provider failed.")
