"""`POST v1/responses` that follow others: what is kept, what the model sees of it, and what is refused."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from apikeys.accounting.ledger import Outcome
from chat.models import App, Conversation, Message
from tests.api.test_completions_tolerance import CALL, DONE, Scripted, event, scripted, whole
from tests.api.test_responses import TOOL, ask, response_of, stream_of, text_in
from tests.conftest import Server
from tests.support import factories
from tests.support.conversations import make_app, make_app_key, record_of
from tests.support.fake_provider import FakeProvider, Reply
from tests.support.processes import wait_for
from tests.support.refusals import check_refusal

__all__ = ["scripted"]

NONE = "resp_0123456789abcdef01234567"
CALLED = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Ulm"}'}}


def tail_of(body: dict[str, Any]) -> str:
    return str(body["id"].removeprefix("resp_"))


def kept_in(app: App, chat_id: str) -> list[tuple[str, Any, Any]]:
    found = Message.objects.filter(conversation__app=app, conversation__chat_id=chat_id).order_by("pk")
    return list(found.values_list("role", "content", "extras"))


def follow(server: Server, key: str, previous: dict[str, Any], question: Any = "And?", **body: Any) -> httpx2.Response:
    return ask(server, key, question, previous_response_id=previous["id"], **body)


@pytest.mark.parametrize("stream", [False, True])
def test_one_follows_the_other(server: Server, provider: FakeProvider, stream: bool) -> None:
    app = make_app(provider, system_prompt="Be brief.")
    _, key = factories.make_key(app=app)

    def said(response: httpx2.Response) -> dict[str, Any]:
        return stream_of(response)[-1]["response"] if stream else response_of(response)

    questions = [factories.unique(name) for name in ("first", "second", "third")]
    first = said(ask(server, key, questions[0], instructions="In verse.", stream=stream, metadata={"a": "b"}))
    response = follow(server, key, first, questions[1], stream=stream, instructions="In prose.")
    second = said(response)
    third = said(follow(server, key, second, questions[2], stream=stream))
    assert second["previous_response_id"] == first["id"]
    assert second["id"] == first["id"] + response.headers["x-request-id"]
    assert len(third["id"]) == len(second["id"])
    (call,) = provider.calls_about(questions[2])
    answers = [text_in(body) for body in (first, second, third)]
    assert call["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": questions[0]},
        {"role": "assistant", "content": answers[0]},
        {"role": "user", "content": questions[1]},
        {"role": "assistant", "content": answers[1]},
        {"role": "user", "content": questions[2]},
    ]
    (call,) = (call for call in provider.calls_about(questions[1]) if len(call["messages"]) == 5)
    assert [message["content"] for message in call["messages"][:3]] == ["Be brief.", "In prose.", questions[0]]
    kept = kept_in(app, first["id"])
    assert kept[::2] == [("user", question, None) for question in questions]
    assert kept[1::2] == [("assistant", text, None) for text in answers]
    conversation = Conversation.objects.get(app=app)
    assert (conversation.chat_id, conversation.metadata) == (first["id"], {"a": "b"})


def test_all_of_the_input_is_kept(server: Server, provider: FakeProvider) -> None:
    app = make_app(provider)
    _, key = factories.make_key(app=app)
    items = [
        {"role": "developer", "content": "Speak up."},
        {"role": "user", "content": [{"type": "input_image", "image_url": "https://x.example/a.png"}]},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Ulm"}'},
        {"type": "function_call_output", "call_id": "c1", "output": "Rain."},
        {"role": "user", "content": "four"},
    ]
    first = response_of(ask(server, key, items))
    question = factories.unique("five")
    response_of(follow(server, key, first, question, instructions="Be brief."))
    (call,) = provider.calls_about(question)
    image = {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}
    assert call["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "system", "content": "Speak up."},
        {"role": "user", "content": [image]},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
        {"role": "assistant", "content": None, "tool_calls": [CALLED]},
        {"role": "tool", "content": "Rain.", "tool_call_id": "c1"},
        {"role": "user", "content": "four"},
        {"role": "assistant", "content": "7 messages, the last: four"},
        {"role": "user", "content": question},
    ]


def test_images_that_are_kept(server: Server, provider: FakeProvider) -> None:
    """Those of the question as in chat completions, and of earlier messages none."""
    app = make_app(provider)
    _, key = factories.make_key(app=app)

    def url(size: int) -> str:
        return "data:image/png;base64," + "A" * size

    def said(*sizes: int) -> dict[str, Any]:
        return {"role": "user", "content": [{"type": "input_image", "image_url": url(size)} for size in sizes]}

    def image(size: int) -> dict[str, Any]:
        return {"type": "image_url", "image_url": {"url": url(size)}}

    first = response_of(ask(server, key, [said(10), {"role": "assistant", "content": "x"}, said(20, 900_000)]))
    second = response_of(follow(server, key, first, [said(30)]))
    shown = [content for role, content, _ in kept_in(app, first["id"]) if role == "user"]
    left_out = {"type": "text", "text": "![image]"}
    assert shown == [[left_out], [image(20), left_out], [image(30)]]
    assert response_of(follow(server, key, second))["status"] == "completed"


def test_an_older_one_than_the_latest(server: Server, provider: FakeProvider) -> None:
    key = make_app_key(provider)
    first = response_of(ask(server, key))
    second = response_of(follow(server, key, first))
    for stream in (False, True):
        message = check_refusal(
            follow(server, key, first, stream=stream), "invalid_parameter", param="previous_response_id"
        )
        assert "latest" in message
    response_of(follow(server, key, second))


@pytest.mark.parametrize("stream", [False, True])
def test_one_that_is_not_there(server: Server, provider: FakeProvider, stream: bool) -> None:
    """Absent, not stored, deleted and foreign look alike."""
    app = make_app(provider)
    _, key = factories.make_key(app=app)
    unstored = response_of(ask(server, key, store=False))["id"]
    deleted = response_of(ask(server, key))["id"]
    Conversation.objects.get(app=app, chat_id=deleted).delete()
    known = response_of(ask(server, key))["id"]
    foreign = response_of(ask(server, make_app_key(provider)))["id"]
    sibling = response_of(ask(server, factories.make_key(app=make_app(provider, team=app.team))[1]))["id"]
    odd = [
        "",
        "resp_",
        "resp_1",
        NONE.upper(),
        f"{NONE}\0",
        "msg_" + NONE,
        f"{NONE}\n",
        "x" * 100_000,
        known + known[5:],
    ]
    texts = {
        check_refusal(
            ask(server, key, previous_response_id=named, stream=stream),
            "previous_response_not_found",
            param="previous_response_id",
        )
        for named in [unstored, deleted, foreign, sibling, NONE, *odd]
    }
    assert len(texts) == 1


def test_one_that_is_not_to_be_stored(server: Server, provider: FakeProvider) -> None:
    app = make_app(provider)
    _, key = factories.make_key(app=app)
    first = response_of(ask(server, key, "one"))
    aside = response_of(follow(server, key, first, "aside", store=False))
    assert text_in(aside) == "3 messages, the last: aside"
    check_refusal(follow(server, key, aside), "previous_response_not_found", param="previous_response_id")
    second = response_of(follow(server, key, first, "two"))
    assert text_in(second) == "3 messages, the last: two"
    assert [content for _, content, _ in kept_in(app, first["id"])] == ["one", text_in(first), "two", text_in(second)]


def test_a_failure_is_not_kept(scripted: Scripted) -> None:
    server, key = scripted.server, scripted.key
    scripted.ask(Reply(event({"content": "half"}), "text/event-stream"))
    events = stream_of(ask(server, key, stream=True))
    failed = events[-1]["response"]
    assert failed["status"] == "failed"
    check_refusal(follow(server, key, failed), "previous_response_not_found", param="previous_response_id")


def test_two_that_follow_the_same(server: Server, provider: FakeProvider) -> None:
    """Both are answered; the one that is done first goes on, and the other is not kept."""
    app = make_app(provider)
    _, key = factories.make_key(app=app)
    first = response_of(ask(server, key, "one"))

    def behave(behavior: str) -> None:
        app.model.routes.update(upstream_name=behavior)
        wait_for(
            lambda: ask(server, key, "x", store=False).is_success and provider.calls[-1]["model"] == behavior,
            "the route has changed",
        )

    behave("soon")
    calls = len(provider.calls)
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(lambda: response_of(follow(server, key, first, "slow")))
        wait_for(lambda: len(provider.calls) > calls, "it is under way")
        behave("echo")
        quick = response_of(follow(server, key, first, "quick"))
    check_refusal(follow(server, key, slow.result()), "previous_response_not_found", param="previous_response_id")
    response_of(follow(server, key, quick))
    assert [content for role, content, _ in kept_in(app, first["id"]) if role == "user"] == ["one", "quick", "And?"]


def answer(body: dict[str, Any]) -> Reply:
    """Ask for a tool, or two if the question says so, and then say what they said."""
    said = [message["content"] for message in body["messages"] if message["role"] == "tool"]
    if body["messages"][-1]["role"] == "tool":
        message, reason = {"content": f"It says: {', '.join(said)}"}, "stop"
    else:
        other = {"index": 1, "function": {"name": "other", "arguments": "{}"}}
        calls = [CALL | {"index": 0}] + ([other] if "both" in body["messages"][-1]["content"] else [])
        message, reason = {"content": None, "tool_calls": calls}, "tool_calls"
    if body["stream"]:
        return Reply(event(message) + event({}, reason) + DONE, "text/event-stream")
    return Reply(whole(message, reason))


@pytest.mark.parametrize("stream", [False, True])
def test_outputs_of_functions(scripted: Scripted, stream: bool) -> None:
    server, key = scripted.server, scripted.key
    scripted.provider.replies[scripted.model] = answer

    def said(response: httpx2.Response) -> dict[str, Any]:
        return stream_of(response)[-1]["response"] if stream else response_of(response)

    first = said(ask(server, key, "Try both.", tools=[TOOL], stream=stream))
    calls = first["output"]
    # The provider gave the second one no id.
    assert [call["call_id"] for call in calls] == ["c1", f"call_{tail_of(first)}_1"]
    outputs = [
        {"type": "function_call_output", "call_id": call["call_id"], "output": f"{number}."}
        for number, call in enumerate(calls)
    ]
    second = said(follow(server, key, first, outputs, tools=[TOOL], stream=stream))
    assert text_in(second) == "It says: 0., 1."
    third = said(follow(server, key, second, "Again.", tools=[TOOL], stream=stream))
    more = {"type": "function_call_output", "call_id": third["output"][0]["call_id"], "output": "2."}
    last = said(follow(server, key, third, [more, {"role": "user", "content": "So?"}], tools=[TOOL], stream=stream))
    assert last["output"][0]["type"] == "function_call"
    roles = [message["role"] for message in scripted.calls[-1]["messages"]]
    assert roles == [
        *("user", "assistant", "tool", "tool", "assistant"),
        *("user", "assistant", "tool", "user"),
    ]
    assert [call["id"] for call in scripted.calls[-1]["messages"][1]["tool_calls"]] == [
        call["call_id"] for call in calls
    ]
    assert [role for role, _, _ in kept_in(scripted.app, first["id"])] == [*roles, "assistant"]


@pytest.mark.parametrize(
    ("items", "param"),
    [
        ("And?", "input"),
        ([{"type": "function_call_output", "call_id": "c1", "output": "x"}], "input"),
        ([{"type": "function_call_output", "call_id": "other", "output": "x"}], "input"),
        (
            [
                {"role": "user", "content": "x"},
                {"type": "function_call_output", "call_id": "c1", "output": "x"},
            ],
            "input[1].call_id",
        ),
        ([{"role": "developer", "content": "x"}], "input"),
    ],
)
def test_outputs_that_do_not_fit(scripted: Scripted, items: Any, param: str) -> None:
    server, key = scripted.server, scripted.key
    scripted.provider.replies[scripted.model] = answer
    first = response_of(ask(server, key, "Try both.", tools=[TOOL]))
    check_refusal(follow(server, key, first, items), "invalid_parameter", param=param)


def test_outputs_where_none_are_waited_for(server: Server, provider: FakeProvider) -> None:
    key = make_app_key(provider)
    first = response_of(ask(server, key))
    outputs = [{"type": "function_call_output", "call_id": "c1", "output": "x"}]
    check_refusal(follow(server, key, first, outputs), "invalid_parameter", param="input")


@pytest.mark.parametrize("length", [0, 1, 2])
def test_the_model_sees_as_much_as_the_app_says(server: Server, provider: FakeProvider, length: int) -> None:
    key = make_app_key(provider, history_length=length)
    first = response_of(ask(server, key, "one"))
    second = response_of(follow(server, key, first, "two"))
    third = response_of(follow(server, key, second, "three"))
    # A turn is seen as a whole or not at all.
    assert text_in(third) == f"{3 if length == 2 else 1} messages, the last: three"


def test_a_follower_with_outputs_alone_is_searched_for_by_its_question(
    scripted: Scripted,
) -> None:
    app = scripted.app
    App.objects.filter(pk=app.pk).update(passes_tools=True, empty_answer="I know nothing of it.")
    server, key = scripted.server, scripted.key
    scripted.provider.replies[scripted.model] = answer
    first = response_of(ask(server, key, "How?", tools=[TOOL]))
    app.datasets.add(factories.make_dataset(app.team))
    outputs = [{"type": "function_call_output", "call_id": "c1", "output": "x"}]

    def found_nothing() -> bool:
        return text_in(response_of(ask(server, key, "x", store=False))) == "I know nothing of it."

    wait_for(found_nothing, "the app has datasets")
    second = response_of(follow(server, key, first, outputs, tools=[TOOL]))
    assert text_in(second) == "I know nothing of it."


def test_the_conversation_is_one_of_the_app(server: Server, provider: FakeProvider) -> None:
    """A chat completion with its chatId goes on in it, and then the response is not its latest message."""
    app = make_app(provider)
    _, key = factories.make_key(app=app)
    first = response_of(ask(server, key, "one"))
    body = server.ask(key, "two", chatId=first["id"]).json()
    assert body["choices"][0]["message"]["content"] == "3 messages, the last: two"
    check_refusal(follow(server, key, first), "invalid_parameter", param="previous_response_id")


def test_a_reader_that_left(scripted: Scripted) -> None:
    """What was produced until then is kept, and can be followed."""
    server, key = scripted.server, scripted.key
    slow = Reply([event({"content": "word "})] * 500, "text/event-stream")
    scripted.provider.replies[scripted.model] = lambda body: (
        slow if body["stream"] else Reply(whole({"content": "So."}))
    )
    headers = {"Authorization": f"Bearer {key}"}
    body = {"input": "x", "stream": True}
    with server.client.stream("POST", "/api/v1/responses", json=body, headers=headers) as left:
        next(text for text in left.iter_text() if "output_text.delta" in text)
    response_id = f"resp_{left.headers['x-request-id']}"
    wait_for(lambda: kept_in(scripted.app, response_id), "it is kept")
    response_of(ask(server, key, previous_response_id=response_id))
    assert [message["role"] for message in scripted.calls[-1]["messages"]] == ["user", "assistant", "user"]


def test_references(scripted: Scripted) -> None:
    """Clients that believe in the store send ids of items in place of the items."""
    server, key = scripted.server, scripted.key
    message = {"reasoning_content": "Hm.", "content": "I ask.", "tool_calls": [CALL]}
    scripted.provider.replies[scripted.model] = lambda body: Reply(
        whole({"content": "So."} if "tool" in json.dumps(body["messages"]) else message)
    )
    first = response_of(ask(server, key, "one", tools=[TOOL]))
    items = [
        {"role": "user", "content": "one"},
        *({"type": "item_reference", "id": item["id"]} for item in first["output"]),
        {"type": "function_call_output", "call_id": "c1", "output": "Rain."},
    ]
    second = response_of(ask(server, key, items, tools=[TOOL]))
    items += [{"id": second["output"][0]["id"]}, {"role": "user", "content": "two"}]
    third = response_of(ask(server, key, items, tools=[TOOL]))
    expected = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "I ask.", "tool_calls": [CALLED]},
        {"role": "tool", "content": "Rain.", "tool_call_id": "c1"},
        {"role": "assistant", "content": "So."},
        {"role": "user", "content": "two"},
    ]
    assert scripted.calls[-1]["messages"] == expected
    # They are kept as what they stand for.
    response_of(follow(server, key, third, "three"))
    assert scripted.calls[-1]["messages"][:5] == expected


@pytest.mark.parametrize("named", ["msg_1", "", "item", "resp_0", f"fc_{NONE[5:]}_0", f"msg_{NONE[5:]}_0", "x" * 9_999])
def test_references_to_what_is_not_there(server: Server, provider: FakeProvider, named: str) -> None:
    items = [{"role": "user", "content": "x"}, {"type": "item_reference", "id": named}]
    check_refusal(ask(server, make_app_key(provider), items), "invalid_parameter", param="input[1].id")


def test_references_to_what_others_have(server: Server, provider: FakeProvider) -> None:
    key = make_app_key(provider)
    own, foreign = response_of(ask(server, key)), response_of(ask(server, make_app_key(provider)))
    unstored = response_of(ask(server, key, store=False))
    absent = {"output": [{"id": f"msg_{NONE[5:]}_0"}]}
    calls = {"output": [{"id": f"fc_{tail_of(own)}_0"}]}
    items: Any = [{"role": "user", "content": "x"}, {}]
    texts = set()
    for body in (foreign, unstored, absent, calls):
        items[1] = {"type": "item_reference", "id": body["output"][0]["id"]}
        texts.add(check_refusal(ask(server, key, items), "invalid_parameter", param="input[1].id"))
    assert len(texts) == 1
    items[1]["id"] = own["output"][0]["id"]
    assert text_in(response_of(ask(server, key, items, store=False))).startswith("2 messages")


def test_many_references(server: Server, provider: FakeProvider) -> None:
    key = make_app_key(provider)
    own = response_of(ask(server, key))["output"][0]["id"]
    items = [{"role": "user", "content": "x"}, *[{"type": "item_reference", "id": own}] * 5_000]
    assert text_in(response_of(ask(server, key, items, store=False))).startswith("5001 messages")
    other = [{"type": "item_reference", "id": f"msg_{number:024x}_0"} for number in range(501)]
    check_refusal(ask(server, key, [items[0], *other]), "invalid_parameter", param="input")


def test_references_to_much(scripted: Scripted) -> None:
    server, key = scripted.server, scripted.key
    scripted.ask(Reply(whole({"content": "x" * 500_000})))
    own = response_of(ask(server, key))["output"][0]["id"]
    items: list[dict[str, Any]] = [{"role": "user", "content": "x"}, {"type": "item_reference", "id": own}]
    response_of(ask(server, key, items))
    items += [items[1]] * 10_000
    check_refusal(ask(server, key, items), "invalid_parameter", param="input")


def test_much_that_is_kept(server: Server, provider: FakeProvider) -> None:
    """Of thousands of messages only the latest are kept: no app shows more of them to its model."""
    app = make_app(provider)
    _, key = factories.make_key(app=app)
    items = [{"role": "user", "content": str(number)} for number in range(2_500)]
    first = response_of(ask(server, key, items))
    kept = kept_in(app, first["id"])
    assert (len(kept), kept[0][1]) == (1_001, "1500")
    record = record_of(follow(server, key, first))
    assert record.outcome == Outcome.COMPLETE


def test_text_that_no_database_takes(server: Server, provider: FakeProvider) -> None:
    app = make_app(provider)
    _, key = factories.make_key(app=app)
    items = [
        {"role": "user", "content": "a\0b"},
        {"role": "assistant", "content": "\0"},
        {"role": "user", "content": "c"},
    ]
    first = response_of(server.post("/api/v1/responses", key, content=json.dumps({"input": items})))
    assert [content for _, content, _ in kept_in(app, first["id"])][:3] == ["a\ufffdb", "\ufffd", "c"]
