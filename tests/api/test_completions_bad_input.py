"""Bodies that are wrong: each gets its line of the contract, and the next request is answered as ever."""

import http.client
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from apikeys.accounting.ledger import UsageRecord
from apikeys.accounting.limits import Limit
from chat.models import Conversation, Message
from tests.conftest import Server
from tests.support import factories
from tests.support.conversations import content_of, make_app, make_app_key
from tests.support.fake_provider import FakeProvider
from tests.support.pages import browser, url
from tests.support.refusals import check_body, check_refusal

PATH = "/api/v1/chat/completions"
USER = {"role": "user", "content": "hi"}
CALLING = {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f"}}]}
TOLD = {"role": "tool", "content": "x", "tool_call_id": "c"}
DEEP = "[" * 10_000 + "]" * 10_000

WRONG_BODIES: dict[str, tuple[str | bytes, str | None]] = {
    "empty": (b"", None),
    "not JSON": (b"chatId=111", None),
    "a list": (b"[]", None),
    "a string": (b'"hi"', None),
    "half": (b'{"messages": [', None),
    "invalid UTF-8": (b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}', None),
    "lone surrogate": (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', None),
    "half of a pair in a name": (b'{"messages": [{"role": "user", "content": "hi"}], "\\udc00": 1}', None),
    "pair the wrong way round": (b'{"messages": [{"role": "user", "content": "\\udc00\\ud800"}]}', None),
    "surrogate in UTF-8": (b'{"messages": [{"role": "user", "content": "\xed\xa0\x80"}]}', None),
    "byte order mark": (b'\xef\xbb\xbf{"messages": [{"role": "user", "content": "hi"}]}', None),
    "a number of 5,000 digits": (
        b'{"messages": [{"role": "user", "content": "hi"}], "tools": [{"x": %b}]}' % (b"9" * 5_000),
        "tools[0][...]",
    ),
    "UTF-16": ('{"messages": [{"role": "user", "content": "hi"}]}'.encode("utf-16"), None),
    "NUL behind it": (b'{"messages": [{"role": "user", "content": "hi"}]}\0', None),
    "NaN": (b'{"messages": [{"role": "user", "content": "hi"}], "temperature": NaN}', None),
    "deep": (DEEP, None),
    "deep in messages": (f'{{"messages": {DEEP}}}', "messages[0]"),
    "deep in an unknown field": (f'{{"messages": [{json.dumps(USER)}], "x": {DEEP}}}', None),
    "no messages": (b"{}", "messages"),
    "null messages": (b'{"messages": null}', "messages"),
    "messages as text": (b'{"messages": "hi"}', "messages"),
}

WRONG_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    ({"messages": ["hi"]}, "messages[0]"),
    ({"messages": [{"role": "wizard", "content": "hi"}]}, "messages[0].role"),
    ({"messages": [USER, {"role": "user"}]}, "messages[1].content"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "smell"}]}]}, "messages[0].content[0].type"),
    ({"messages": [{"role": "assistant", "content": "hi"}]}, "messages"),
    ({"messages": [{"role": "user", "content": "x" * (1024 * 1024 + 1)}]}, "messages"),
    ({"chatId": 111}, "chatId"),
    ({"chatId": "x" * 251}, "chatId"),
    ({"chatId": "a\0b"}, "chatId"),
    ({"responseChatItemId": "x" * 251}, "responseChatItemId"),
    ({"customUid": "x" * 1025}, "customUid"),
    ({"stream": "yes"}, "stream"),
    ({"detail": 1}, "detail"),
    ({"variables": []}, "variables"),
    ({"metadata": "x"}, "metadata"),
    ({"metadata": {"x": "y" * 65536}}, "metadata"),
    ({"variables": {"x": "y" * 65536}}, "variables"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 2**31}, "max_tokens"),
    ({"temperature": 3}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"n": 129}, "n"),
    ({"tools": {}}, "tools"),
    ({"tools": ["f"]}, "tools[0]"),
    ({"functions": "f"}, "functions"),
    ({"tool_choice": 7}, "tool_choice"),
    ({"response_format": "json_object"}, "response_format"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "c"}]}, "messages[0].tool_call_id"),
    ({"messages": [USER, {"role": "tool", "content": "x"}]}, "messages[1].tool_call_id"),
    ({"messages": [USER, {"role": "assistant", "tool_calls": "x"}]}, "messages[1].tool_calls"),
    ({"messages": [USER, CALLING, {"role": "tool", "content": "x", "tool_call_id": "d"}]}, "messages[2].tool_call_id"),
    ({"messages": [USER, {"role": "tool", "content": "x", "tool_call_id": "c"}, CALLING]}, "messages[1].tool_call_id"),
    ({"messages": [USER, CALLING, {"role": "tool", "tool_call_id": "c"}]}, "messages[2].content"),
    (
        {"messages": [USER, {**CALLING, "tool_calls": [{}]}, {**TOLD, "tool_call_id": "None"}]},
        "messages[2].tool_call_id",
    ),
    ({"messages": [{"role": "assistant"}]}, "messages"),
    ({"seed": 10**400}, "seed"),
    ({"logit_bias": {"1": "x"}}, "logit_bias[...]"),
    ({"logprobs": "x"}, "logprobs"),
    ({"audio": {}}, "audio"),
]


@pytest.fixture(scope="module")
def key(provider: FakeProvider, database: None) -> str:
    return make_app_key(provider)


@pytest.mark.parametrize("name", WRONG_BODIES)
def test_wrong_body(server: Server, key: str, name: str) -> None:
    body, param = WRONG_BODIES[name]
    check_refusal(server.post(PATH, key, content=body), "invalid_parameter", param=param)


@pytest.mark.parametrize(("fields", "param"), WRONG_FIELDS, ids=[str(fields)[:40] for fields, _ in WRONG_FIELDS])
def test_wrong_field(server: Server, key: str, fields: dict[str, Any], param: str) -> None:
    response = server.post(PATH, key, json={"messages": [USER], **fields})
    message = check_refusal(response, "invalid_parameter", param=param)
    assert param.partition("[")[0] in message


def test_null_means_absent_and_unknown_fields_are_ignored(server: Server, key: str) -> None:
    optional = [
        *("chatId", "stream", "detail", "variables", "responseChatItemId", "customUid", "metadata", "appId", "model"),
        *("max_tokens", "temperature", "top_p", "stop", "seed", "user", "stream_options", "tools", "functions", "n"),
        *("response_format", "logprobs", "audio"),
    ]
    body = {"messages": [USER], "outLinkUid": "x", "shareId": 7, **dict.fromkeys(optional)}
    assert content_of(server.post(PATH, key, json=body)) == "1 messages, the last: hi"


def test_what_asks_for_the_usual_form_is_accepted(server: Server, key: str) -> None:
    usual = {"n": 1, "tools": [], "response_format": {"type": "text"}, "logprobs": False, "tool_choice": "none"}
    assert server.post(PATH, key, json={"messages": [USER], **usual}).status_code == 200
    tool = {"type": "function", "function": {"name": "f"}}
    for unused in ({"tool_choice": "auto"}, {"tools": [tool], "tool_choice": "none"}, {"function_call": "auto"}):
        assert server.post(PATH, key, json={"messages": [USER], **unused}).status_code == 200


@pytest.mark.parametrize(
    "turns",
    [
        # What a model called, and how, is for its provider to judge.
        [{**CALLING, "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{no JSON"}}]}, TOLD],
        [{**CALLING, "tool_calls": [{"id": 7, "function": {"name": "f"}}]}, {**TOLD, "tool_call_id": "7"}],
        [CALLING],
        [CALLING, TOLD, TOLD],
        [{**CALLING, "content": ""}, {**TOLD, "content": []}],
    ],
)
def test_turns_that_are_passed_on(
    server: Server, provider: FakeProvider, key: str, turns: list[dict[str, Any]]
) -> None:
    question = {"role": "user", "content": factories.unique("turns")}
    assert server.post(PATH, key, json={"messages": [question, *turns]}).status_code == 200
    (call,) = provider.calls_about(str(question["content"]))
    expected = [{"content": None, **turn} for turn in turns]
    assert call["messages"][1:] == [
        {**turn, "content": "" if turn["content"] == [] else turn["content"]} for turn in expected
    ]


@pytest.mark.parametrize("nothing", [{}, {"content": None}, {"content": ""}, {"content": []}, {"tool_calls": []}])
def test_an_assistant_that_says_nothing(server: Server, provider: FakeProvider, nothing: dict[str, Any]) -> None:
    """It asks for no tools either, so that an app that passes none answers it."""
    key = make_app_key(provider, passes_tools=False)
    question = {"role": "user", "content": factories.unique("nothing")}
    messages = [question, {"role": "assistant", **nothing}, USER]
    assert server.post(PATH, key, json={"messages": messages}).status_code == 200
    (call,) = provider.calls_about(str(question["content"]))
    assert call["messages"][1] == {"role": "assistant", "content": ""}


def test_a_thousand_messages(server: Server, key: str) -> None:
    assert content_of(server.post(PATH, key, json={"messages": [USER] * 1_000})) == "1000 messages, the last: hi"
    check_refusal(server.post(PATH, key, json={"messages": [USER] * 100_000}), "body_too_large")


def test_ten_megabytes(server: Server, key: str) -> None:
    body = json.dumps({"messages": [USER], "x": "y" * 10_000_000})
    check_refusal(server.post(PATH, key, content=body), "body_too_large")


def test_ten_megabytes_in_chunks_of_unknown_length(server: Server, key: str) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(160):
            yield b"x" * 65536

    check_refusal(server.post(PATH, key, content=chunks()), "body_too_large")


def test_a_chunked_body(server: Server, key: str) -> None:
    body = json.dumps({"messages": [USER]}).encode()
    response = server.post(PATH, key, content=iter([body[:10], body[10:]]))
    assert content_of(response) == "1 messages, the last: hi"


def test_a_body_that_never_ends(server: Server, key: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nContent-Length: 100\r\n\r\n"
        started = time.monotonic()
        connection.sendall(head.encode() + b'{"messages"')
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert response.status == 408
        check_body(json.loads(response.read()), "request_timeout")
        assert response.getheader("connection") == "close"
        # Two seconds in these tests. Others were not kept waiting by it.
        assert time.monotonic() - started < 8
        response.close()
    assert server.post(PATH, key, json={"messages": [USER]}).status_code == 200


def test_nul_and_depth_together(server: Server, key: str) -> None:
    body = f'{{"messages": [{json.dumps(USER)}], "x": ["\\u0000", {DEEP}]}}'
    check_refusal(server.post(PATH, key, content=body), "invalid_parameter")


def test_without_a_key_no_body_is_kept(server: Server) -> None:
    """The refusal comes although the body does not: it is not waited for as that of a known key is."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=15) as connection:
        head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
        connection.sendall(head.encode() + b"x" * 1000)
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert response.status == 401
        check_body(json.loads(response.read()), "missing_api_key")
        response.close()


def test_nul_in_a_message_and_in_what_is_kept(server: Server, provider: FakeProvider) -> None:
    app = make_app(provider)
    _, key = factories.make_key(app=app)
    response = server.ask(key, "a\0b", chatId="c", metadata={"k\0": ["v\0"]}, customUid="u\0")
    assert content_of(response) == "1 messages, the last: a\ufffdb"
    assert Message.objects.get(conversation__app=app, role="user").content == "a\ufffdb"
    conversation = Conversation.objects.get(app=app)
    assert conversation.metadata == {"k\ufffd": ["v\ufffd"]}
    assert conversation.custom_uid == "u\ufffd"


def test_nothing_of_a_refused_request_is_kept(server: Server, provider: FakeProvider) -> None:
    app = make_app(provider)
    api_key, key = factories.make_key(app=app)
    for fields, _ in WRONG_FIELDS:
        # In a chat, only its last question and results at the end count.
        if CALLING not in (fields.get("messages") or [None])[-1:]:
            server.post(PATH, key, json={"messages": [USER], "chatId": "c", **fields})
    assert not Conversation.objects.filter(app=app).exists()
    assert not UsageRecord.objects.filter(key=api_key).exists()


@pytest.mark.parametrize("path", [PATH, "/api/v1/embeddings"])
def test_a_large_body_that_is_wrong_counts_for_the_rate(server: Server, provider: FakeProvider, path: str) -> None:
    app = make_app(provider)
    api_key, key = factories.make_key(app.team, app=app if path == PATH else None)
    Limit.objects.create(team=app.team, key=api_key, measure="requests", period="minute", amount=2)
    small = json.dumps({"messages": "hi", "input": 7})
    for _ in range(3):
        check_refusal(server.post(path, key, content=small), "invalid_parameter", param=any_param(path))
    assert not UsageRecord.objects.filter(key=api_key).exists()
    large = json.dumps({"messages": "hi", "input": 7, "x": "y" * 100_000})
    for _ in range(2):
        response = server.post(path, key, content=large)
        check_refusal(response, "invalid_parameter", param=any_param(path))
    record = UsageRecord.objects.get(pk=response.headers["x-request-id"])
    assert (record.status, record.outcome, record.prompt_tokens, record.cost_micropoints) == (400, "failed", 0, 0)
    check_refusal(server.post(path, key, content=large), "rate_limit_exceeded")


def any_param(path: str) -> str:
    return "messages" if path == PATH else "model"


# --- depth: what is read is written again where the stack is deeper


def nested(field: str, depth: int) -> str:
    deep = "[" * depth + "]" * depth
    return {
        "tools": f'"tools": [{{"type": "function", "function": {deep}}}]',
        "prediction": f'"prediction": {{"content": {deep}}}',
        "tool_calls": f'"tool_calls": [{{"id": "c", "function": {deep}}}]',
    }.get(field, f'"{field}": {{"x": {deep}}}')


@pytest.mark.parametrize("size", [1, 200_000])
@pytest.mark.parametrize("field", ["tools", "prediction", "tool_calls", "metadata", "variables"])
def test_no_depth_is_a_fault_of_ours(server: Server, provider: FakeProvider, field: str, size: int) -> None:
    """It is passed on, or refused as too deep. Large bodies are read in a thread, whose stack is another."""
    app = make_app(provider, can_override=True)
    api_key, key = factories.make_key(app=app)
    Limit.objects.create(team=app.team, key=api_key, measure="tokens", period="total", amount=10**9)
    statuses = set()
    for depth in (100, 400, *range(850, 1000, 6)):
        messages = json.dumps(USER)
        if field == "tool_calls":
            messages += f', {{"role": "assistant", {nested(field, depth)}}}, {json.dumps(USER)}'
        body = f'"messages": [{messages}], "x": "{"y" * size}"'
        if field != "tool_calls":
            body += f", {nested(field, depth)}"
        if field in ("metadata", "variables"):
            body += f', "chatId": "{depth}"'
        response = server.post(PATH, key, content=f"{{{body}}}")
        if response.status_code != 200:
            assert "too deeply" in check_refusal(response, "invalid_parameter", param=None), depth
        statuses.add(response.status_code)
    assert statuses == {200, 400}
    assert content_of(server.ask(key)) == "1 messages, the last: hello"
    # Pages read what was kept where the stack is deeper still.
    admin_client = browser(factories.make_user(is_superuser=True))
    assert admin_client.get(url(Conversation, "changelist")).status_code == 200
