"""Images in a completion's body: passed on as they came, within bounds of their own, and stored if there is room."""

import base64
import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from django.utils import timezone

from apikeys.access.rules import EndpointRule
from apikeys.accounting.ledger import TokenSource
from apikeys.accounting.limits import Limit
from apikeys.keys import crypto
from chat.completions.provider_messages import IMAGE_TOKENS
from chat.models import App, Message
from tests.api.test_completions_tolerance import DONE, END, REPORT, event, whole
from tests.api.test_connection import resident_kib
from tests.conftest import Server, running_server
from tests.support import factories
from tests.support.conversations import content_of, events_of, make_app, make_app_key, messages_of, record_of
from tests.support.fake_provider import FakeProvider, Reply
from tests.support.processes import wait_for
from tests.support.refusals import check_body, check_refusal

PATH = "/api/v1/chat/completions"
MIB = 1024 * 1024
SMALL_ROOM = 2 * MIB


def image(size: int) -> dict[str, Any]:
    """Return a part with an image whose URL has about so many bytes."""
    data = base64.b64encode(bytes(range(256)) * (size * 3 // 4 // 256)).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def ask(server: Server, key: str, *parts: dict[str, Any], text: str = "look", **body: Any) -> httpx2.Response:
    content = [{"type": "text", "text": text}, *parts]
    return server.post(PATH, key, json={"messages": [{"role": "user", "content": content}], **body})


@pytest.fixture(scope="module", autouse=True)
def counting(provider: FakeProvider) -> Iterator[None]:
    """A model that says how many messages it sees, where others would say an image back."""

    def answer(body: dict[str, Any]) -> Reply:
        text = f"{len(body['messages'])} messages"
        if body["stream"]:
            return Reply(event({"content": text}) + END + REPORT + DONE, "text/event-stream")
        return Reply(whole({"content": text}))

    provider.replies["counting"] = answer
    yield
    del provider.replies["counting"]


@pytest.fixture(scope="module")
def small_server(database: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    changes = {"MAX_OPEN_BODY_BYTES": str(SMALL_ROOM), "COMPLETIONS_MAX_BODY_BYTES": str(MIB)}
    with running_server(tmp_path_factory.mktemp("small") / "log", changes) as server:
        yield server


@pytest.mark.parametrize("size", [1_000, 100_000, 3 * MIB, 15 * MIB])
@pytest.mark.parametrize("stream", [False, True])
def test_it_works(server: Server, provider: FakeProvider, size: int, stream: bool) -> None:
    key, part, text = make_app_key(provider, "counting"), image(size), factories.unique("image")
    response = ask(server, key, part, text=text, stream=stream)
    assert response.status_code == 200
    assert not stream or events_of(response.text)[-1] == (None, "[DONE]")
    (call,) = provider.calls_about(text)
    assert call["messages"] == [{"role": "user", "content": [{"type": "text", "text": text}, part]}]


def test_in_chunks_of_unknown_length(server: Server, provider: FakeProvider) -> None:
    key, text = make_app_key(provider, "counting"), factories.unique("image")
    content = [{"type": "text", "text": text}, image(3 * MIB)]
    body = json.dumps({"messages": [{"role": "user", "content": content}]}).encode()
    pieces = (body[start : start + 100_000] for start in range(0, len(body), 100_000))
    assert server.post(PATH, key, content=pieces).status_code == 200
    assert provider.calls_about(text)[0]["messages"][0]["content"] == content


def test_as_php_writes_it(server: Server, provider: FakeProvider) -> None:
    """With every slash escaped."""
    key, text, part = make_app_key(provider, "counting"), factories.unique("image"), image(3 * MIB)
    content = [{"type": "text", "text": text}, part]
    body = json.dumps({"messages": [{"role": "user", "content": content}]}).replace("/", "\\/")
    assert server.post(PATH, key, content=body).status_code == 200
    assert provider.calls_about(text)[0]["messages"][0]["content"] == content


def test_its_base64_is_not_counted_as_text(server: Server, provider: FakeProvider) -> None:
    _, key = factories.make_key(app=make_app(provider, "no_usage"))
    record = record_of(ask(server, key, image(3 * MIB), text="look"))
    assert record.token_source == TokenSource.BOUND
    assert IMAGE_TOKENS < record.prompt_tokens < IMAGE_TOKENS + 100


def test_text_keeps_its_bound(server: Server, provider: FakeProvider) -> None:
    key, part = make_app_key(provider, "counting"), image(3 * MIB)
    check_refusal(ask(server, key, part, text="x" * (MIB + 1)), "invalid_parameter", param="messages")
    long = {"type": "text", "text": f"data:text/plain;base64,{'x' * MIB}"}
    check_refusal(ask(server, key, part, long), "invalid_parameter", param="messages")
    message = check_refusal(ask(server, key, part, text="x" * 2 * MIB), "body_too_large")
    assert "Besides" in message
    # Besides its base64, it is as large as another body.
    check_refusal(ask(server, key, part, x=[[]] * 1_000_000), "body_too_large")
    check_refusal(ask(server, key, part, x={"data": "\u00e9" * 3 * MIB}), "body_too_large")


def test_only_what_holds_base64_may_be_large(server: Server, provider: FakeProvider) -> None:
    """Elsewhere a string that looks like it has the bound of its field."""
    key, data = make_app_key(provider, "counting"), f"data:image/png;base64,{'A' * 3 * MIB}"
    content = "messages[0].content[0]"
    for part, param in (
        (
            {"type": "image_url", "image_url": {"url": "https://x.example", "detail": data}},
            f"{content}.image_url.detail",
        ),
        ({"type": "input_audio", "input_audio": {"data": "x", "format": data}}, f"{content}.input_audio.format"),
        ({"type": "file", "file": {"filename": data}}, "messages"),
        ({"type": "file_url", "url": data}, "messages"),
    ):
        body = {"messages": [{"role": "user", "content": [part]}], "chatId": "c"}
        check_refusal(server.post(PATH, key, json=body), "invalid_parameter", param=param)
    for name, value in (
        *((name, data) for name in ("chatId", "customUid", "user", "stop", "service_tier")),
        *((name, {"data": data}) for name in ("metadata", "variables")),
        ("tools", [{"data": data}]),
    ):
        response = ask(server, key, **{name: value})
        check_refusal(response, "invalid_parameter", param=name)


def test_more_than_the_setting_allows(server: Server, provider: FakeProvider) -> None:
    key = make_app_key(provider, "counting")
    assert "20971520" in check_refusal(ask(server, key, image(20 * MIB)), "body_too_large")
    body = json.dumps({"messages": [{"role": "user", "content": [image(20 * MIB)]}]}).encode()
    pieces = (body[start : start + 100_000] for start in range(0, len(body), 100_000))
    check_refusal(server.post(PATH, key, content=pieces), "body_too_large")


def test_other_endpoints_keep_their_bound(server: Server) -> None:
    _, key = factories.make_key()
    body = {"query": "x", "documents": ["y"], "model": "none", "y": image(3 * MIB)}
    assert "2097152" in check_refusal(server.post("/api/v1/rerank", key, json=body), "body_too_large")


def test_nul_beside_an_image(server: Server, provider: FakeProvider) -> None:
    key, text, part = make_app_key(provider, "counting"), factories.unique("image"), image(3 * MIB)
    assert ask(server, key, part, text=f"{text}\0").status_code == 200
    content = provider.calls_about(text)[0]["messages"][0]["content"]
    assert content == [{"type": "text", "text": f"{text}\ufffd"}, part]


# --- in a conversation


@pytest.fixture
def app(provider: FakeProvider) -> App:
    return make_app(provider, "counting")


def test_a_small_image_is_stored_and_sent_again(server: Server, provider: FakeProvider, app: App) -> None:
    _, key = factories.make_key(app=app)
    text, part = factories.unique("image"), image(500_000)
    assert ask(server, key, part, text=text, chatId="c").status_code == 200
    assert messages_of(app, "c")[0][1] == [{"type": "text", "text": text}, part]
    assert content_of(server.ask(key, "and now?", chatId="c")) == "3 messages"
    assert provider.calls_about(text)[-1]["messages"][0]["content"] == [{"type": "text", "text": text}, part]


def test_a_large_image_is_named_in_its_place(server: Server, provider: FakeProvider, app: App) -> None:
    _, key = factories.make_key(app=app)
    assert server.ask(key, "first", chatId="c").status_code == 200
    text = factories.unique("image")
    assert ask(server, key, image(15 * MIB), image(500_000), image(500_000), text=text, chatId="c").status_code == 200
    assert len(provider.calls_about(text)[0]["messages"][-1]["content"]) == 4
    stored = Message.objects.filter(conversation__app=app, role="user").order_by("pk").last()
    assert stored is not None
    assert [part.get("text", part["type"]) for part in stored.content] == [text, "![image]", "image_url", "![image]"]
    # So the history is not cut off before it.
    assert content_of(server.ask(key, "and now?", chatId="c")) == "5 messages"


# --- who asks is known before a body is read


def refused_keys(provider: FakeProvider) -> dict[str, tuple[str, str]]:
    """Return a key for each reason to refuse it, with the code of the refusal."""
    now = timezone.now()
    app = make_app(provider)
    revoked, revoked_key = factories.make_key(app=app)
    revoked.revoke(by="test", reason="test")
    return {
        "no key at all": ("x", "invalid_api_key"),
        "unknown": (crypto.generate(), "invalid_api_key"),
        "revoked": (revoked_key, "revoked_api_key"),
        "expired": (factories.make_key(app=app, expires_at=now - timedelta(days=1))[1], "expired_api_key"),
        "disabled": (factories.make_key(app=app, disabled_at=now)[1], "disabled_api_key"),
        "of another network": (factories.make_key(app=app, allowed_networks=["192.0.2.0/24"])[1], "ip_not_allowed"),
        "for another endpoint": (
            factories.make_key(app=app, allowed_endpoints=["key.self"])[1],
            "endpoint_not_allowed",
        ),
        "global": (factories.make_key(app.team)[1], "wrong_key_kind"),
    }


REASONS = ["no key at all", "unknown", "revoked", "expired", "disabled"]
REASONS += ["of another network", "for another endpoint", "global", "closed"]


@pytest.mark.parametrize("reason", REASONS)
def test_who_may_not_is_told_before_the_body(server: Server, provider: FakeProvider, reason: str) -> None:
    """The body never comes, and is not asked for."""
    with contextlib.ExitStack() as stack:
        if reason == "closed":
            key, code = make_app_key(provider, "counting"), "endpoint_not_allowed"
            rule = EndpointRule.objects.create(endpoint="chat.completions", denied_kinds=["app"])
            stack.callback(rule.delete)
            wait_for(lambda: server.ask(key).status_code == 403, "the rule", seconds=10)
        else:
            key, code = refused_keys(provider)[reason]
        for more in ("", "Expect: 100-continue\r\n"):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=15))
            head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n{more}"
            connection.sendall(f"{head}Content-Length: 20000000\r\n\r\n".encode() + b"x" * (0 if more else 1000))
            # An interim response would be read past.
            assert connection.recv(12, socket.MSG_PEEK) in (b"HTTP/1.1 401", b"HTTP/1.1 403")
            response = http.client.HTTPResponse(connection)
            response.begin()
            check_body(json.loads(response.read()), code)
            response.close()


def test_a_length_that_is_too_large_is_told_before_the_body(server: Server, provider: FakeProvider) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=15) as connection:
        head = (
            f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {make_app_key(provider, 'counting')}\r\n"
        )
        connection.sendall(f"{head}Content-Length: 20971521\r\nExpect: 100-continue\r\n\r\n".encode())
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert response.status == 413
        check_body(json.loads(response.read()), "body_too_large")
        response.close()


# --- the room for large bodies


def test_large_bodies_have_so_much_room(small_server: Server, provider: FakeProvider) -> None:
    """A team leaves others as much of it as it takes, and gets it back when its requests have been answered."""
    team = factories.make_team()
    stalling = make_app_key(provider, "stall", team=team)
    answering, other = make_app_key(provider, "counting", team=team), make_app_key(provider, "counting")
    part = image(900_000)
    with small_server.client.stream(
        "POST",
        PATH,
        headers={"Authorization": f"Bearer {stalling}"},
        json={"messages": [{"role": "user", "content": [part]}], "stream": True},
    ) as stream:
        received = stream.iter_bytes()
        assert next(received)
        message = check_refusal(ask(small_server, answering, part), "service_unavailable")
        assert "large" in message
        # Neither small ones nor others have to wait.
        assert small_server.ask(answering).status_code == 200
        assert ask(small_server, other, part).status_code == 200
    wait_for(lambda: ask(small_server, answering, part).status_code == 200, "the room", seconds=10)


def test_room_is_given_back_whatever_becomes_of_a_body(small_server: Server, provider: FakeProvider) -> None:
    key = make_app_key(provider, "counting")
    for _ in range(5):
        # Of the client that left, the server has to hear.
        wait_for(
            lambda: small_server.post(PATH, key, content=b"x" * 900_000).status_code == 400, "the room", seconds=10
        )
        check_refusal(small_server.post(PATH, key, content=b"x" * 1_100_000), "body_too_large")
        with socket.create_connection(("127.0.0.1", small_server.port), timeout=15) as connection:
            head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
            connection.sendall(f"{head}Content-Length: 1000000\r\n\r\n".encode() + b"x" * 500_000)
    wait_for(lambda: ask(small_server, key, image(900_000)).status_code == 200, "the room", seconds=10)


def test_a_body_that_is_too_large_counts_for_the_rate(server: Server, provider: FakeProvider) -> None:
    api_key, key = factories.make_key(app=make_app(provider, "counting"))
    Limit.objects.create(team=api_key.team, key=api_key, measure="requests", period="total", amount=1)
    response = ask(server, key, text="x" * 3 * MIB)
    check_refusal(response, "body_too_large")
    record = record_of(response)
    assert (record.status, record.outcome, record.cost_micropoints) == (413, "failed", 0)
    check_refusal(ask(server, key, text="x" * 3 * MIB), "insufficient_quota")


def test_memory_is_given_back(server: Server, provider: FakeProvider) -> None:
    """Several at once take at most twice their size, and nothing of that afterwards."""
    key, part = make_app_key(provider, "counting"), image(15 * MIB)
    assert ask(server, key, part).status_code == 200
    before = resident_kib(server)
    with ThreadPoolExecutor(4) as pool:
        responses = list(pool.map(lambda _: ask(server, key, part), range(12)))
    assert [response.status_code for response in responses] == [200] * 12
    wait_for(lambda: resident_kib(server) - before < 25 * 1024, "the memory", seconds=10)
