"""Tools in conversations: what is stored of a turn, what the model sees of it later, which results are refused."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import OpenAI
from openai.lib.streaming.chat import ChatCompletionStreamState

from apikeys.accounting.ledger import Outcome, TokenSource
from apikeys.object_ids import new_object_id
from chat.completions.histories import MAX_TURN_MESSAGES
from chat.completions.tool_events import RESPONSE_CHARACTERS
from chat.models import App, Conversation, Dialect, Message
from tests.api.test_completions_leaving import open_stream, recorded
from tests.api.test_completions_tolerance import DONE, REPORT, event, whole
from tests.api.test_completions_tools import TOOL, USER
from tests.conftest import Server, running_server
from tests.support import factories
from tests.support.conversations import content_of, events_of, make_app, record_of, text_of
from tests.support.fake_provider import FakeProvider, Reply
from tests.support.processes import wait_for
from tests.support.refusals import check_refusal

PATH = "/api/v1/chat/completions"
numbers = itertools.count()


def call(id: str, arguments: Any = '{"city": "Ulm"}', name: str = "weather") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def called(*ids: str, content: str | None = None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": [call(id) for id in ids]}


def result(id: str, content: Any = "Rain.") -> dict[str, Any]:
    return {"role": "tool", "content": content, "tool_call_id": id}


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def deltas_of(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a message as chunks: each call begins with its name, and its arguments come in pieces."""
    if message.get("content"):
        yield {"role": "assistant", "content": message["content"]}
    for index, made in enumerate(message.get("tool_calls") or ()):
        function = made["function"]
        yield {"tool_calls": [{**made, "index": index, "function": {**function, "arguments": ""}}]}
        for start in range(0, len(function["arguments"]), 8):
            piece = {"arguments": function["arguments"][start : start + 8]}
            yield {"tool_calls": [{"index": index, "function": piece}]}
    for name in ("function_call", "refusal"):
        if message.get(name):
            yield {name: message[name]}


class Agent:
    """An app whose model gives one scripted message after the other; without a script, it says what it was told."""

    def __init__(self, server: Server, provider: FakeProvider, **fields: Any) -> None:
        self.server, self.provider, self.model = server, provider, f"agent_{next(numbers)}"
        self.app: App = make_app(provider, self.model, **fields)
        _, self.key = factories.make_key(app=self.app)
        self.script: list[dict[str, Any]] = []
        self.has_usage = True
        provider.replies[self.model] = self.reply

    def reply(self, body: dict[str, Any]) -> Reply:
        message = self.script.pop(0) if self.script else assistant(f"I heard: {body['messages'][-1]['content']}")
        reason = "tool_calls" if message.get("tool_calls") else "stop"
        if not body["stream"]:
            return Reply(whole(message, reason, **({} if self.has_usage else {"usage": None})))
        chunks = [event(delta) for delta in deltas_of(message)]
        return Reply([*chunks, event({}, reason) + (REPORT if self.has_usage else b"") + DONE], "text/event-stream")

    def ask(self, *messages: dict[str, Any], server: Server | None = None, **body: Any) -> httpx2.Response:
        json_body = {"messages": list(messages), "chatId": "c", "tools": [TOOL], **body}
        with httpx2.Client(timeout=30, trust_env=False) as client:
            url = (server or self.server).url + PATH
            return client.post(url, headers={"Authorization": f"Bearer {self.key}"}, json=json_body)

    @property
    def calls(self) -> list[dict[str, Any]]:
        return [call for call in self.provider.calls if call["model"] == self.model]

    @property
    def seen(self) -> list[dict[str, Any]]:
        """Return the messages of the model's latest call."""
        messages: list[dict[str, Any]] = self.calls[-1]["messages"]
        return messages

    @property
    def rows(self) -> list[tuple[str, Any, Any]]:
        """Return (role, content, extras) of what is stored, oldest first."""
        stored = Message.objects.filter(conversation__app=self.app, conversation__chat_id="c").order_by("pk")
        return list(stored.values_list("role", "content", "extras"))


@pytest.fixture
def agent(server: Server, provider: FakeProvider) -> Iterator[Agent]:
    made = Agent(server, provider)
    yield made
    del provider.replies[made.model]


FIRST_ROWS = [
    ("user", USER["content"], None),
    ("assistant", "", {"tool_calls": [call("c1")]}),
]
RESULT_ROWS = [
    ("tool", "Rain.", {"tool_call_id": "c1"}),
    ("assistant", "I heard: Rain.", None),
]


@pytest.mark.parametrize("stream", [False, True])
def test_a_round_trip(agent: Agent, stream: bool) -> None:
    agent.script = [called("c1")]
    asked = agent.ask(USER, stream=stream)
    assert asked.status_code == 200
    if not stream:
        assert asked.json()["choices"][0]["message"] == called("c1")
    assert agent.rows == FIRST_ROWS
    told = agent.ask(result("c1"), stream=stream)
    text = text_of(events_of(told.text)) if stream else content_of(told)
    assert text == "I heard: Rain."
    assert agent.seen == [USER, called("c1"), result("c1")]
    assert agent.calls[-1]["tools"] == [TOOL]
    assert agent.rows == [*FIRST_ROWS, *RESULT_ROWS]
    agent.ask(user("Thanks."), stream=stream)
    assert agent.seen == [USER, called("c1"), result("c1"), assistant("I heard: Rain."), user("Thanks.")]
    assert len({row.data_id for row in Message.objects.filter(conversation__app=agent.app)}) == 6


def test_the_whole_list_sent_again(agent: Agent) -> None:
    """As OpenAI's clients do it. Nothing is stored twice, and only the results and the last question count."""
    agent.script = [called("c1", content="Let me see."), called("c2")]
    messages: list[dict[str, Any]] = [{"role": "system", "content": "ignored"}, USER]
    for answer in ("c1", "c2"):
        message = agent.ask(*messages).json()["choices"][0]["message"]
        messages += [message, result(answer)]
    assert content_of(agent.ask(*messages)) == "I heard: Rain."
    turn = [USER, called("c1", content="Let me see."), result("c1"), called("c2"), result("c2")]
    assert agent.seen == turn
    messages += [assistant("I heard: Rain."), user("And now?")]
    agent.ask(*messages)
    assert agent.seen == [*turn, *messages[-2:]]
    assert len(agent.rows) == len(turn) + 3


def test_openais_client_streaming(agent: Agent) -> None:
    agent.script = [called("c1", "c2")]
    client = OpenAI(base_url=f"{agent.server.url}/api/v1", api_key=agent.key)
    messages: list[Any] = [USER]

    def ask() -> Any:
        state: Any = ChatCompletionStreamState()
        for chunk in client.chat.completions.create(
            model="any", messages=messages, tools=[TOOL], stream=True, extra_body={"chatId": "c"}
        ):
            state.handle_chunk(chunk)
        return state.get_final_completion().choices[0].message

    message = ask()
    assert [json.loads(made.function.arguments) for made in message.tool_calls] == [{"city": "Ulm"}] * 2
    messages += [message.model_dump(exclude_none=True), *(result(made.id) for made in message.tool_calls)]
    assert ask().content == "I heard: Rain."
    assert [role for role, _, _ in agent.rows] == ["user", "assistant", "tool", "tool", "assistant"]
    assert agent.seen == [USER, called("c1", "c2"), result("c1"), result("c2")]


def test_results_come_all_together(agent: Agent) -> None:
    agent.script = [called("c1", "c2")]
    agent.ask(USER)
    before, calls = agent.rows, len(agent.calls)
    for alone, missing in (("c1", "c2"), ("c2", "c1")):
        message = check_refusal(agent.ask(result(alone)), "invalid_parameter", param="messages")
        assert missing in message
        assert alone not in message
    assert (agent.rows, len(agent.calls)) == (before, calls)
    # In whichever order.
    assert content_of(agent.ask(result("c2", "Two."), result("c1", "One."))) == "I heard: One."
    assert agent.seen[2:] == [result("c2", "Two."), result("c1", "One.")]
    assert [content for role, content, _ in agent.rows if role == "tool"] == ["Two.", "One."]


@pytest.mark.parametrize(
    ("results", "param"),
    [
        ([result("c2")], "messages[0].tool_call_id"),
        ([USER, called("c2"), result("c2")], "messages[2].tool_call_id"),
        ([{"role": "tool", "content": "Rain."}], "messages[0].tool_call_id"),
        ([result("")], "messages[0].tool_call_id"),
        ([result("c1"), result("c1")], "messages[1].tool_call_id"),
        ([result("c1"), result("c2")], "messages[1].tool_call_id"),
        ([{"role": "function", "name": "weather", "content": "Rain."}], "messages[0].name"),
        ([{"role": "function", "content": "Rain."}], "messages[0].name"),
        ([{"role": "tool", "tool_call_id": "c1"}], "messages[0].content"),
    ],
)
def test_results_of_what_was_not_called(agent: Agent, results: list[dict[str, Any]], param: str) -> None:
    agent.script = [called("c1")]
    agent.ask(USER)
    check_refusal(agent.ask(*results), "invalid_parameter", param=param)
    assert (agent.rows, len(agent.calls)) == (FIRST_ROWS, 1)
    assert content_of(agent.ask(result("c1"))) == "I heard: Rain."


def test_a_result_sent_twice(agent: Agent) -> None:
    agent.script = [called("c1")]
    agent.ask(USER)
    agent.ask(result("c1"))
    check_refusal(agent.ask(result("c1")), "invalid_parameter", param="messages[0].tool_call_id")
    assert agent.rows == [*FIRST_ROWS, *RESULT_ROWS]


def test_a_result_that_comes_first(agent: Agent) -> None:
    for messages in ([result("c1")], [USER, called("c1"), result("c1")]):
        param = f"messages[{len(messages) - 1}].tool_call_id"
        check_refusal(agent.ask(*messages), "invalid_parameter", param=param)
    assert not Conversation.objects.filter(app=agent.app).exists()
    # Without a chat, a request needs a question and the call itself.
    check_refusal(agent.ask(result("c1"), chatId=None), "invalid_parameter", param="messages[0].tool_call_id")


def test_a_result_in_another_chat(agent: Agent, provider: FakeProvider) -> None:
    agent.script = [called("c1")]
    agent.ask(USER)
    check_refusal(agent.ask(result("c1"), chatId="d"), "invalid_parameter", param="messages[0].tool_call_id")
    other = Agent(agent.server, provider, team=agent.app.team)
    check_refusal(other.ask(result("c1")), "invalid_parameter", param="messages[0].tool_call_id")
    assert not Conversation.objects.filter(app=other.app).exists()


def test_results_that_a_question_follows(agent: Agent) -> None:
    agent.script = [called("c1")]
    agent.ask(USER)
    messages = [USER, called("c1"), result("c1"), user("In Fahrenheit.")]
    assert content_of(agent.ask(*messages)) == "I heard: In Fahrenheit."
    assert agent.seen == messages
    rows = [*FIRST_ROWS, RESULT_ROWS[0], ("user", "In Fahrenheit.", None)]
    assert agent.rows == [*rows, ("assistant", "I heard: In Fahrenheit.", None)]
    # Brought once more, they are ignored like all that is stored already.
    stored = [*messages, assistant("I heard: In Fahrenheit.")]
    for again in (messages, [result("c9"), user("In Fahrenheit.")]):
        agent.ask(*again)
        assert agent.seen == [*stored, user("In Fahrenheit.")]
        stored += [user("In Fahrenheit."), assistant("I heard: In Fahrenheit.")]
    assert [role for role, _, _ in agent.rows].count("tool") == 1


def test_some_of_the_results_and_a_question(agent: Agent) -> None:
    agent.script = [called("c1", "c2")]
    agent.ask(USER)
    check_refusal(agent.ask(result("c1"), user("Well?")), "invalid_parameter", param="messages")
    refused = agent.ask(result("c1"), result("c3"), user("Well?"))
    check_refusal(refused, "invalid_parameter", param="messages[1].tool_call_id")


@pytest.mark.parametrize("history_length", [0, 2])
def test_ignored_results_lengthen_no_history(server: Server, provider: FakeProvider, history_length: int) -> None:
    agent = Agent(server, provider, history_length=history_length)
    agent.script = [called("c1")]
    agent.ask(USER)
    agent.ask(result("c1"))
    agent.ask(user("Thanks."))
    agent.ask(result("c1"), user("And now?"))
    earlier = [user("Thanks."), assistant("I heard: Thanks.")] if history_length else []
    assert agent.seen == [*earlier, user("And now?")]


def test_a_question_instead_of_results(agent: Agent) -> None:
    """A turn whose calls have no result is stored, but not shown to the model: its provider would refuse it."""
    agent.ask(user("Hello."))
    agent.script = [called("c1"), called("c2")]
    agent.ask(USER)
    agent.ask(result("c1"))
    agent.ask(USER, called("c1"), result("c1"), called("c2"), user("Never mind."))
    hello = [user("Hello."), assistant("I heard: Hello.")]
    assert agent.seen == [*hello, user("Never mind.")]
    roles = ["user", "assistant", "user", "assistant", "tool", "assistant", "user", "assistant"]
    assert [role for role, _, _ in agent.rows] == roles
    # It is too late for its results.
    check_refusal(agent.ask(result("c2")), "invalid_parameter", param="messages[0].tool_call_id")
    agent.ask(user("And now?"))
    assert agent.seen == [*hello, user("Never mind."), assistant("I heard: Never mind."), user("And now?")]


def test_an_app_that_passes_no_tools_any_more(agent: Agent) -> None:
    agent.script = [called("c1")]
    agent.ask(USER)
    App.objects.filter(pk=agent.app.pk).update(passes_tools=False)
    wait_for(lambda: agent.ask(USER, chatId="d").status_code == 400, "the app passes none")
    check_refusal(agent.ask(result("c1"), tools=None), "invalid_parameter", param="messages")
    assert agent.rows == FIRST_ROWS


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("arguments", ["no JSON", '{"city": ', "", '{"a": "\\ud83d"}', '{"a": 1e999}'])
def test_arguments_are_passed_as_they_are(agent: Agent, stream: bool, arguments: str) -> None:
    made = {"role": "assistant", "content": None, "tool_calls": [call("c1", arguments)]}
    agent.script = [made]
    assert agent.ask(USER, stream=stream).status_code == 200
    assert content_of(agent.ask(result("c1"))) == "I heard: Rain."
    assert agent.seen == [USER, made, result("c1")]


def test_calls_that_providers_misspell(agent: Agent) -> None:
    """Without an id, the result needs none; whatever else there is comes back to the provider as it was."""
    calls: list[dict[str, Any]] = [
        {"function": {"name": "f", "arguments": {"city": "Ulm"}}},
        {"id": 7, "function": "weather", "custom": [None]},
        {"id": ""},
    ]
    agent.script = [{"role": "assistant", "content": None, "tool_calls": calls}]
    assert agent.ask(USER, detail=True).status_code == 200
    check_refusal(agent.ask(result("")), "invalid_parameter", param="messages")
    assert agent.ask(result(""), {"role": "tool", "content": "?"}, result("")).status_code == 200
    assert agent.seen[1]["tool_calls"] == calls


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("depth", [100, 900, 10_000])
def test_calls_that_are_nested_deeply(agent: Agent, provider: FakeProvider, stream: bool, depth: int) -> None:
    made = json.dumps({"content": None, "tool_calls": [{"id": "c1", "function": {"arguments": "deep"}}]})
    message = '{"a":' * depth + "1" + "}" * depth
    raw = '{"choices": [{"message": MADE, "finish_reason": "tool_calls"}]}'
    raw = raw.replace("MADE", made.replace('"deep"', message))
    whole, chunk = raw.encode(), b"data: " + raw.replace("message", "delta").encode() + b"\n\n" + DONE
    provider.replies[agent.model] = lambda body: Reply(chunk if stream else whole)
    asked = agent.ask(USER, stream=stream)
    if depth > 100:
        check_refusal(asked, "upstream_error")
        assert agent.rows == []
    else:
        assert asked.status_code == 200
        assert len(agent.rows) == 2


def test_functions(agent: Agent) -> None:
    """OpenAI's older form of a tool: a call has no id, and its result names the function."""
    made = {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": "{}"}}
    told = {"role": "function", "content": "Rain.", "name": "weather"}
    agent.script = [made]
    agent.ask(USER, tools=None, functions=[TOOL["function"]])
    assert content_of(agent.ask(told, tools=None)) == "I heard: Rain."
    assert agent.seen == [USER, made, told]
    agent.ask(user("Thanks."), tools=None)
    assert agent.seen == [USER, made, told, assistant("I heard: Rain."), user("Thanks.")]
    assert agent.rows[1:3] == [
        ("assistant", "", {"function_call": made["function_call"]}),
        ("function", "Rain.", {"name": "weather"}),
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_is_stored_and_replayed_as_text(agent: Agent, stream: bool) -> None:
    agent.script = [{"role": "assistant", "content": None, "refusal": "I cannot."}]
    agent.ask(USER, response_format={"type": "json_object"}, stream=stream)
    agent.ask(user("Why?"))
    assert agent.rows[1] == ("assistant", "", {"refusal": "I cannot."})
    assert agent.seen == [USER, assistant("I cannot."), user("Why?")]


def test_an_answer_that_says_nothing(agent: Agent) -> None:
    agent.script = [called("c1"), {"role": "assistant", "content": None}]
    agent.ask(USER)
    assert content_of(agent.ask(result("c1"))) == ""
    agent.ask(user("Well?"))
    assert agent.seen == [USER, called("c1"), result("c1"), assistant(""), user("Well?")]


def test_the_contents_of_a_result(agent: Agent) -> None:
    agent.script = [called("c1", "c2", "c3")]
    agent.ask(USER)
    parts = [{"type": "text", "text": "Rain"}, {"type": "text", "text": "and wind."}]
    results = [result("c1", parts), result("c2", ""), result("c3", "a\0b")]
    assert agent.ask(*results, detail=True).status_code == 200
    assert agent.seen[2:] == [result("c1", "Rain\nand wind."), result("c2", ""), result("c3", "a\ufffdb")]
    assert [content for role, content, _ in agent.rows if role == "tool"] == [parts, "", "a\ufffdb"]


def test_a_thousand_calls(agent: Agent) -> None:
    ids = [f"c{number}" for number in range(1_000)]
    agent.script = [called(*ids)]
    agent.ask(USER)
    message = check_refusal(agent.ask(result("c7")), "invalid_parameter", param="messages")
    assert len(message) < 500
    assert agent.ask(*map(result, ids)).status_code == 200
    assert agent.seen[2:] == [*map(result, ids)]
    agent.ask(user("And now?"))
    # They are more than the app's history is long.
    assert agent.seen == [user("And now?")]


@pytest.mark.parametrize("history_length", [0, 1, 2, 3, 5, 6, 7])
def test_the_window_begins_with_a_question(server: Server, provider: FakeProvider, history_length: int) -> None:
    agent = Agent(server, provider, history_length=history_length)
    first = [user("Hello."), assistant("I heard: Hello.")]
    agent.ask(user("Hello."))
    agent.script = [called("c1"), called("c2")]
    turn = [USER, called("c1"), result("c1"), called("c2"), result("c2")]
    # The turn that a request goes on with is there in whole, however short the history.
    agent.ask(USER)
    earlier = first if history_length >= 2 else []
    assert agent.seen == [*earlier, USER]
    for id, length in (("c1", 3), ("c2", 5)):
        agent.ask(result(id))
        assert agent.seen == [*earlier, *turn[:length]]
    agent.ask(user("And now?"))
    whole_turn = [*turn, assistant("I heard: Rain.")] if history_length >= 6 else []
    assert agent.seen == [*whole_turn, user("And now?")]


def test_a_turn_of_too_many_messages(agent: Agent) -> None:
    agent.script = [called("c1")]
    agent.ask(USER)
    conversation = Conversation.objects.get(app=agent.app)
    rounds = [("tool", {"tool_call_id": "c1"}), ("assistant", {"tool_calls": [call("c1")]})] * (MAX_TURN_MESSAGES // 2)
    for role, extras in rounds[2:]:
        fields = {"data_id": new_object_id(), "role": role, "content": "", "extras": extras, "request_id": "r"}
        Message.objects.create(conversation=conversation, **fields)
    agent.script = [called("c1")]
    assert agent.ask(result("c1")).status_code == 200
    assert len(agent.seen) == MAX_TURN_MESSAGES + 1
    message = check_refusal(agent.ask(result("c1")), "invalid_parameter", param="messages")
    assert str(MAX_TURN_MESSAGES) in message
    # It can be left, but not gone on with.
    assert content_of(agent.ask(user("Enough."))) == "I heard: Enough."
    assert agent.seen == [user("Enough.")]


def test_a_turn_of_too_many_bytes(agent: Agent) -> None:
    agent.script = [called("c1"), called("c2")]
    agent.ask(USER)
    long = "x" * 600_000
    agent.ask(result("c1", long))
    agent.script = [called("c3")]
    assert agent.ask(result("c2", long)).status_code == 200
    assert "bytes" in check_refusal(agent.ask(result("c3")), "invalid_parameter", param="messages")
    agent.ask(user("Enough."))
    assert agent.seen == [user("Enough.")]
    agent.script = [{"role": "assistant", "content": None, "tool_calls": [call("c4", "x" * 1_100_000)]}]
    agent.ask(USER)
    assert "too long" in check_refusal(agent.ask(result("c4")), "invalid_parameter", param="messages[0].tool_call_id")


def test_a_client_that_leaves_while_calls_come(server: Server, provider: FakeProvider) -> None:
    """Half a call cannot be made. What was said before it stays, and without a word nothing is stored."""
    for has_text in (True, False):
        agent = Agent(server, provider)
        # The caller of `open_stream` waits for a word; the arguments are one too.
        pieces = [event({"content": "wait"})] if has_text else []
        begun = call("c1", "") | {"index": 0}
        pieces += [event({"tool_calls": [begun]}), event({"tool_calls": [{"index": 0, "content": "x"}]})]
        more = event({"tool_calls": [{"index": 0, "function": {"arguments": "x"}}]})
        provider.replies[agent.model] = lambda body, pieces=pieces, more=more: Reply(
            [*pieces, *[more] * 500], "text/event-stream"
        )
        connection, request_id = open_stream(server, agent.key, factories.unique("left"), chatId="c", tools=[TOOL])
        connection.close()
        record = recorded(request_id)
        assert record.outcome == Outcome.CANCELLED
        assert record.completion_tokens > 0
        assert [row[1:] for row in agent.rows if row[0] == "assistant"] == ([("wait", None)] if has_text else [])
        provider.replies[agent.model] = agent.reply
        assert content_of(agent.ask(user("Again."))) == "I heard: Again."


def test_a_client_that_leaves_after_it_brought_results(agent: Agent, provider: FakeProvider) -> None:
    """What the model said of them is kept with them; without a word, they may be brought again."""
    agent.script = [called("c1")]
    agent.ask(USER)
    for pieces in ([event({"reasoning_content": "wx"})] * 500, [event({"content": "word "})] * 500):
        provider.replies[agent.model] = lambda body, pieces=pieces: Reply(pieces, "text/event-stream")
        told = {"messages": [result("c1")], "chatId": "c", "stream": True}
        with (
            httpx2.Client(timeout=30, trust_env=False) as client,
            client.stream(
                "POST", agent.server.url + PATH, headers={"Authorization": f"Bearer {agent.key}"}, json=told
            ) as response,
        ):
            next(line for line in response.iter_lines() if "w" in line.partition("delta")[2])
        assert recorded(response.headers["x-request-id"]).outcome == Outcome.CANCELLED
    assert [role for role, _, _ in agent.rows] == ["user", "assistant", "tool", "assistant"]
    check_refusal(agent.ask(result("c1")), "invalid_parameter", param="messages[0].tool_call_id")


@pytest.mark.parametrize("model", ["status_500", "error_event", "half"])
def test_a_provider_that_fails_leaves_the_calls_open(agent: Agent, provider: FakeProvider, model: str) -> None:
    agent.script = [called("c1")]
    agent.ask(USER)
    failing = {
        "status_500": Reply(b"{}", status=500),
        "error_event": Reply(event({"content": "well"}) + b'data: {"error": "no"}\n\n', "text/event-stream"),
        "half": Reply(event({"tool_calls": [call("c2", "{") | {"index": 0}]}), "text/event-stream"),
    }
    provider.replies[agent.model] = lambda body: failing[model]
    agent.ask(result("c1"), stream=True)
    assert agent.rows == FIRST_ROWS
    provider.replies[agent.model] = agent.reply
    assert content_of(agent.ask(result("c1"))) == "I heard: Rain."


def slow_reply(text: str) -> Reply:
    return Reply([event({"content": letter}) for letter in text] + [event({}, "stop") + DONE], "text/event-stream")


def test_results_brought_twice_at_once(agent: Agent, provider: FakeProvider, tmp_path: Path) -> None:
    """Each gets its answer. The first to end is stored with its answer, and the others not at all."""
    agent.script = [called("c1")]
    agent.ask(USER)
    provider.replies[agent.model] = lambda body: slow_reply("It rains.")
    with running_server(tmp_path / "log") as other, ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda server: agent.ask(result("c1"), server=server), [agent.server, other] * 4))
    accepted = [response for response in told if response.status_code == 200]
    assert {content_of(response) for response in accepted} == {"It rains."}
    assert {record_of(response).outcome for response in accepted} == {Outcome.COMPLETE}
    assert len(accepted) > 1
    for response in told:
        if response not in accepted:
            check_refusal(response, "invalid_parameter", param="messages[0].tool_call_id")
    assert agent.rows == [*FIRST_ROWS, ("tool", "Rain.", {"tool_call_id": "c1"}), ("assistant", "It rains.", None)]
    provider.replies[agent.model] = agent.reply
    agent.ask(user("And now?"))
    assert [message["role"] for message in agent.seen] == ["user", "assistant", "tool", "assistant", "user"]


def test_results_and_questions_at_once(agent: Agent, provider: FakeProvider) -> None:
    """Whatever comes first, no result is stored apart from its call."""
    for number in range(4):
        agent.script = [called(f"c{number}")]
        agent.ask(USER)
        messages = [[result(f"c{number}")], [user("Q1")], [result(f"c{number}")], [user("Q2")]]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda asked: agent.ask(*asked), messages))
    roles = [role for role, _, _ in agent.rows]
    for before, role in itertools.pairwise(roles):
        assert (before, role) in {
            ("user", "assistant"),
            ("assistant", "user"),
            ("assistant", "tool"),
            ("tool", "assistant"),
        }
    for (_, _, extras), (role, _, named) in itertools.pairwise(agent.rows):
        if role == "tool":
            assert named["tool_call_id"] == extras["tool_calls"][0]["id"]


def test_tokens_of_stored_turns_count(agent: Agent) -> None:
    """They are part of the prompt's bound, where the provider reports nothing."""
    agent.has_usage = False
    agent.script = [called("c1")]
    plain = record_of(agent.ask(USER))
    told = record_of(agent.ask(result("c1", "x" * 1_000)))
    later = record_of(agent.ask(user("Thanks.")))
    assert {record.token_source for record in (plain, told, later)} == {TokenSource.BOUND}
    more = len(json.dumps(call("c1"))) + 1_000
    assert told.prompt_tokens - plain.prompt_tokens > 0.9 * more
    assert later.prompt_tokens > told.prompt_tokens + 1_000


def tool(id: str, **fields: str) -> dict[str, Any]:
    return {"tool": {"id": id, "toolName": "", "toolAvatar": "", "params": "", "response": "", **fields}}


@pytest.mark.parametrize("dialect", Dialect.values)
def test_events_of_a_detailed_stream(server: Server, provider: FakeProvider, dialect: str) -> None:
    agent = Agent(server, provider, dialect=dialect)
    agent.script = [called("c1", "c2", content="Let me see.")]
    events = events_of(agent.ask(USER, stream=True, detail=True).text)
    begun = {"toolName": "weather", "functionName": "weather"}
    pieces = ['{"city":', ' "Ulm"}']
    assert [(name, data) for name, data in events if name and name.startswith("tool")] == [
        (name, data)
        for id in ("c1", "c2")
        for name, data in [
            ("toolCall", tool(id, **begun)),
            *(("toolParams", tool(id, params=piece)) for piece in pieces),
        ]
    ]
    # OpenAI's own deltas are there as well, each behind its events.
    names = [name for name, _ in events]
    assert names[names.index("toolCall") - 1 : names.index("toolCall") + 4] == [
        *("answer", "toolCall", "answer", "toolParams", "answer")
    ]
    steps = next(data for name, data in events if name in ("flowResponses", "appStreamResponse"))
    shown = [{"id": id, "functionName": "weather", "params": '{"city": "Ulm"}'} for id in ("c1", "c2")]
    assert steps[0]["toolCalls"] == shown
    assert steps[0]["historyPreview"][-1]["value"].startswith('Let me see.\nweather({"city": "Ulm"})')

    long = "x" * (RESPONSE_CHARACTERS + 1)
    events = events_of(agent.ask(result("c2"), result("c1", long), stream=True, detail=True).text)
    assert [name for name, _ in events[:4]] == [events[0][0], "toolResponse", "toolResponse", "answer"]
    assert events[1][1] == tool("c2", response="Rain.")
    assert events[2][1] == tool("c1", response=long[:-1])
    steps = next(data for name, data in events if name in ("flowResponses", "appStreamResponse"))
    assert "toolCalls" not in steps[0]
    assert steps[0]["query"] == USER["content"]
    assert [message["obj"] for message in steps[0]["historyPreview"]] == ["Human", "AI", "Tool", "Tool", "AI"]


def test_a_detailed_answer_shows_its_calls(agent: Agent) -> None:
    agent.script = [called("c1")]
    body = agent.ask(USER, detail=True).json()
    assert body["responseData"][0]["toolCalls"][0]["functionName"] == "weather"
    stored = Message.objects.get(conversation__app=agent.app, role="assistant")
    assert stored.response_data[0]["toolCalls"] == body["responseData"][0]["toolCalls"]
    body = agent.ask(result("c1"), detail=True).json()
    assert body["responseData"][0]["query"] == USER["content"]


def test_without_detail_there_are_no_such_events(agent: Agent) -> None:
    agent.script = [called("c1")]
    assert {name for name, _ in events_of(agent.ask(USER, stream=True).text)} == {None}
    assert {name for name, _ in events_of(agent.ask(result("c1"), stream=True).text)} == {None}


def test_events_without_a_chat(agent: Agent) -> None:
    events = events_of(agent.ask(USER, called("c1"), result("c1"), chatId=None, stream=True, detail=True).text)
    assert [data for name, data in events if name == "toolResponse"] == [tool("c1", response="Rain.")]


def test_events_of_results_that_count(agent: Agent) -> None:
    agent.script = [called("c1")]
    agent.ask(USER)
    for count in (1, 0):
        asked = agent.ask(result("c1"), user("Well?"), stream=True, detail=True)
        assert [name for name, _ in events_of(asked.text)].count("toolResponse") == count


def test_events_of_functions(agent: Agent) -> None:
    made = {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": "{}"}}
    agent.script = [made]
    events = events_of(agent.ask(USER, stream=True, detail=True).text)
    assert [(name, data["tool"]["id"]) for name, data in events if name and name.startswith("tool")] == [
        ("toolCall", "weather"),
        ("toolParams", "weather"),
    ]


def test_knowledge_goes_with_the_question_of_the_turn(server: Server, provider: FakeProvider) -> None:
    agent = Agent(server, provider, passes_tools=True, quote_prompt="{{quote}}|{{question}}")
    agent.app.datasets.add(factories.make_dataset(agent.app.team))
    agent.script = [called("c1")]
    agent.ask(USER)
    body = agent.ask(result("c1"), detail=True).json()
    assert body["responseData"][0]["query"] == USER["content"]
    assert body["choices"][0]["message"]["content"] == "I heard: Rain."
