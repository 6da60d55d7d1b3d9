"""Connections of anybody: what they may cost before it is known who asks, and what the server itself refuses."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from apikeys.keys import crypto
from apikeys.sign_in.throttle import PAIR
from tests.conftest import Server, running_server
from tests.support import factories
from tests.support.conversations import content_of, make_app_key
from tests.support.fake_provider import FakeProvider
from tests.support.processes import wait_for
from tests.support.refusals import check_body

HEAD_SECONDS, KEEP_ALIVE_SECONDS, STALL_SECONDS = 2, 4, 2
MOST, MOST_OF_ADDRESS = 150, 60
PROXY = "127.0.0.9"
CHAT = "/api/v1/chat/completions"
LIST = "/api/core/dataset/list"
LOGIN = "/admin/login/"
STATIC = "/static/admin/css/base.css"
# What a file of the admin, some threads and the measuring itself may take.
SPARE_KIB = 40 * 1024
# One test's connections are not counted against another's.
addresses = (f"127.0.2.{number}" for number in itertools.count(1))


@pytest.fixture(scope="module")
def door(database: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    changes = {
        "HEAD_SECONDS": str(HEAD_SECONDS),
        "KEEP_ALIVE_SECONDS": str(KEEP_ALIVE_SECONDS),
        "STREAM_STALL_SECONDS": str(STALL_SECONDS),
        "MAX_CONNECTIONS": str(MOST),
        "MAX_CONNECTIONS_PER_ADDRESS": str(MOST_OF_ADDRESS),
    }
    with running_server(tmp_path_factory.mktemp("door") / "log", changes) as server:
        yield server


@pytest.fixture
def opened(door: Server) -> Iterator[Opened]:
    with contextlib.ExitStack() as stack:
        yield Opened(door, stack)


class Opened:
    """Connections from an address of their own, closed at the end of a test."""

    def __init__(self, server: Server, stack: contextlib.ExitStack) -> None:
        self.server, self.stack = server, stack
        self.address = next(addresses)

    def __call__(self, sent: bytes = b"", address: str | None = None) -> socket.socket:
        connection = self.stack.enter_context(socket.socket())
        # Little of what the server sends lies in the system, so that it notices who reads nothing.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(20)
        connection.bind((address or self.address, 0))
        connection.connect(("127.0.0.1", self.server.port))
        connection.sendall(sent)
        return connection

    def is_served(self, address: str | None = None) -> bool:
        with self(get("/healthz", "Connection: close"), address) as connection:
            return answer(connection).status == 200


def answer(connection: socket.socket) -> http.client.HTTPResponse:
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response


def refusal(connection: socket.socket, error_code: str) -> http.client.HTTPResponse:
    response = answer(connection)
    check_body(json.loads(response.read()), error_code)
    assert response.getheader("content-type") == "application/json"
    assert len(response.getheader("x-request-id") or "") == 24
    return response


def is_ended(connection: socket.socket, seconds: float) -> bool:
    """Return whether the server ends the connection in time. What it sends before is read."""
    connection.settimeout(seconds)
    deadline = time.monotonic() + seconds
    with contextlib.suppress(ConnectionError):
        while connection.recv(65536):
            if time.monotonic() > deadline:
                return False
    return True


def resident_kib(server: Server) -> int:
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def chunked(path: str, *lines: str, body: str = "2\r\n{}\r\n") -> bytes:
    """Return the head and the body of a request up to the line after which trailers come."""
    head = "".join(f"{line}\r\n" for line in ("Host: localhost", *lines, "Transfer-Encoding: chunked"))
    return f"POST {path} HTTP/1.1\r\n{head}\r\n{body}0\r\n".encode()


def post(path: str, body: str, *lines: str) -> bytes:
    head = "".join(f"{line}\r\n" for line in ("Host: localhost", *lines, f"Content-Length: {len(body)}"))
    return f"POST {path} HTTP/1.1\r\n{head}\r\n{body}".encode()


def get(path: str, *lines: str) -> bytes:
    head = "".join(f"{line}\r\n" for line in ("Host: localhost", *lines))
    return f"GET {path} HTTP/1.1\r\n{head}\r\n".encode()


def test_keep_alive_and_pipelining(opened: Opened) -> None:
    connection = opened(get("/healthz") * 3 + b"\r\n" + get("/api"))
    with connection.makefile("rb") as file:
        for status in (b"200", b"200", b"200", b"404"):
            assert file.readline().split()[1] == status
            headers = http.client.parse_headers(file)
            file.read(int(headers["content-length"]))


def test_refusals_in_a_row(opened: Opened, provider: FakeProvider) -> None:
    """Those of a key that is known to be none need no wait; they come in order all the same, and end nothing."""
    unknown, key = crypto.generate(), make_app_key(provider)
    question = json.dumps({"messages": [{"role": "user", "content": "hi"}]})
    refused, accepted = (post(CHAT, question, f"Authorization: Bearer {each}") for each in (unknown, key))
    connection = opened()
    with connection.makefile("rb") as file:
        for requests in ([refused], [refused] * 300 + [accepted], [refused], [accepted, refused], [refused, accepted]):
            connection.sendall(b"".join(requests))
            for request in requests:
                assert file.readline().split()[1] == (b"401" if request is refused else b"200")
                headers = http.client.parse_headers(file)
                body = json.loads(file.read(int(headers["content-length"])))
                if request is refused:
                    check_body(body, "invalid_api_key")


def test_a_refusal_before_the_body_has_come(opened: Opened, provider: FakeProvider) -> None:
    lines = (f"Authorization: Bearer {crypto.generate()}", "Content-Length: 100")
    for _ in range(2):
        connection = opened(get(CHAT, *lines).replace(b"GET", b"POST", 1))
        response = refusal(connection, "invalid_api_key")
        assert response.getheader("connection") == "close"
        connection.sendall(b"x" * 100)
        assert is_ended(connection, 10)


def test_a_trailer_names_no_client(opened: Opened) -> None:
    _, key = factories.make_key(allowed_networks=["203.0.113.0/24"])
    lines = [f"Authorization: Bearer {key}", "X-Forwarded-For: 198.51.100.9"]
    connection = opened(chunked(LIST, *lines) + b"X-Forwarded-For: 203.0.113.7\r\n\r\n", PROXY)
    assert refusal(connection, "ip_not_allowed").status == 403
    # The same as a header of the proxy is believed.
    lines[1] = "X-Forwarded-For: 203.0.113.7"
    assert answer(opened(chunked(LIST, *lines) + b"X-Forwarded-For: 198.51.100.9\r\n\r\n", PROXY)).status == 200


def test_a_trailer_holds_no_key(opened: Opened) -> None:
    _, key = factories.make_key()
    assert refusal(opened(chunked(LIST) + f"Authorization: Bearer {key}\r\n\r\n".encode()), "missing_api_key")


def test_a_trailer_does_not_slip_through_the_sign_in_throttle(opened: Opened) -> None:
    token = opened.server.get(LOGIN).cookies["csrftoken"]
    name = factories.unique("nobody")
    form = f"username={name}&password=wrong&csrfmiddlewaretoken={token}&next=/admin/"
    lines = (
        "Content-Type: application/x-www-form-urlencoded",
        f"Cookie: csrftoken={token}",
        "X-Forwarded-For: 198.51.100.77",
        "Connection: close",
    )
    guess = chunked(LOGIN, *lines, body=f"{len(form):x}\r\n{form}\r\n")
    pages = []
    for number in range(PAIR.free + 5):
        connection = opened(guess + f"X-Forwarded-For: 203.0.113.{number}\r\n\r\n".encode(), PROXY)
        pages.append(answer(connection).read().decode())
    slowed = ["Too many attempts to sign in." in page for page in pages]
    assert slowed == [False] * PAIR.free + [True] * 5


@pytest.mark.parametrize("piece", [b"X-Long: y\r\n" * 1000, b"x" * 10_000], ids=["many fields", "one field"])
@pytest.mark.parametrize("is_answered", [False, True])
def test_trailers_without_end(opened: Opened, piece: bytes, *, is_answered: bool) -> None:
    before = resident_kib(opened.server)
    _, key = factories.make_key()
    lines = () if is_answered else (f"Authorization: Bearer {key}",)
    connection = opened(chunked(LIST, *lines) + b"X: ")
    started = time.monotonic()
    sent = 0
    with contextlib.suppress(ConnectionError, TimeoutError):
        while sent < 256 * 1024 * 1024 and time.monotonic() - started < 30:
            connection.sendall(piece)
            sent += len(piece)
    with contextlib.suppress(ConnectionError):
        assert answer(connection).status in (400, 401)
    assert is_ended(connection, 10)
    assert resident_kib(opened.server) - before < SPARE_KIB
    assert opened.server.get("/healthz").status_code == 200


def test_trailers_that_do_not_come(opened: Opened) -> None:
    _, key = factories.make_key()
    connection = opened(chunked(LIST, f"Authorization: Bearer {key}") + b"X: y\r\n")
    assert refusal(connection, "request_timeout").status == 408
    assert is_ended(connection, 10)


def test_pipelining_is_bounded(opened: Opened) -> None:
    before = resident_kib(opened.server)
    connection = opened()
    connection.settimeout(1)
    sent = 0
    requests = get(STATIC) * 1000
    with contextlib.suppress(TimeoutError, ConnectionError):
        while sent < 48 * 1024 * 1024:
            sent += connection.send(requests)
    assert resident_kib(opened.server) - before < SPARE_KIB
    # A reader that takes nothing is ended, and not waited for.
    time.sleep(STALL_SECONDS + 3)
    assert is_ended(connection, 10)
    assert resident_kib(opened.server) - before < SPARE_KIB


def test_slow_readers_stop_nobody(opened: Opened, provider: FakeProvider) -> None:
    key = make_app_key(provider)
    readers = []
    for _ in range(50):
        reader = opened()
        reader.sendall(get(STATIC) * 200)
        readers.append(reader)
    for _ in range(3):
        for path in ("/healthz", "/readyz", "/metrics", LOGIN, "/api/v1/key"):
            response = opened.server.get(path, key if path == "/api/v1/key" else None, timeout=5)
            # No worker of jobs runs here, which /readyz says.
            assert response.status_code == (503 if path == "/readyz" else 200)
        assert content_of(opened.server.ask(key))
    time.sleep(STALL_SECONDS)
    assert all(is_ended(reader, 30) for reader in readers)


def test_a_slow_reader_that_reads(opened: Opened) -> None:
    """It may take longer than the limit for all of it, as long as it takes something meanwhile."""
    reader = opened()
    reader.sendall(get(STATIC) * 100)
    began, size = time.monotonic(), 0
    while time.monotonic() - began < 2 * STALL_SECONDS + 2:
        piece = reader.recv(16 * 1024)
        assert piece, "it was ended"
        size += len(piece)
        time.sleep(0.02)
    assert size


def test_half_a_head(opened: Opened) -> None:
    started = time.monotonic()
    connection = opened(b"GET / HTTP/1.1\r\nHost: ")
    response = refusal(connection, "request_timeout")
    assert response.getheader("connection") == "close"
    assert time.monotonic() - started >= HEAD_SECONDS - 0.1
    assert is_ended(connection, 10)


def test_a_head_that_comes_drop_by_drop(opened: Opened) -> None:
    """Each byte comes in time, and the whole of it never."""
    connection = opened(b"GET / HTTP/1.1\r\n")
    connection.settimeout(0.1)
    for _ in range(20 * HEAD_SECONDS):
        connection.sendall(b"X: y\r\n")
        with contextlib.suppress(TimeoutError):
            assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")
            return
    raise AssertionError("it may go on")


def test_nothing_at_all(opened: Opened) -> None:
    assert is_ended(opened(), HEAD_SECONDS + 5)


def test_silence_between_requests(opened: Opened) -> None:
    connection = opened(get("/healthz"))
    assert answer(connection).read()
    time.sleep(HEAD_SECONDS + 1)
    connection.sendall(get("/healthz"))
    assert answer(connection).read()
    started = time.monotonic()
    assert is_ended(connection, KEEP_ALIVE_SECONDS + 5)
    assert time.monotonic() - started >= KEEP_ALIVE_SECONDS - 0.1


def test_connections_of_one_address(opened: Opened) -> None:
    held = [opened(b"GET ") for _ in range(MOST_OF_ADDRESS)]
    response = refusal(opened(), "service_unavailable")
    assert response.status == 503
    assert int(response.getheader("retry-after") or "") >= 1
    # Others are not concerned, and one that ends makes room.
    assert opened.is_served(next(addresses))
    held.pop().close()
    wait_for(opened.is_served, "room", seconds=5)


def test_connections_in_all(opened: Opened) -> None:
    for _ in range(4):
        address = next(addresses)
        for _ in range(MOST // 3):
            with contextlib.suppress(ConnectionError):
                opened(b"GET ", address)
    assert refusal(opened(), "service_unavailable").status == 503
    wait_for(opened.is_served, "they are ended", seconds=HEAD_SECONDS + 15)


def test_behind_a_proxy_the_reported_address_counts(opened: Opened, provider: FakeProvider) -> None:
    key = make_app_key(provider, "slow")
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "stream": True}).encode()

    def ask(client: str) -> socket.socket:
        head = (
            f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
            f"X-Forwarded-For: {client}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return opened(head.encode() + body, PROXY)

    held = [ask("198.51.100.20") for _ in range(MOST_OF_ADDRESS)]
    assert [answer(connection).status for connection in held] == [200] * MOST_OF_ADDRESS
    assert refusal(ask("198.51.100.20"), "service_unavailable").status == 503
    assert answer(ask("198.51.100.21")).status == 200


@pytest.mark.parametrize("path", [LIST, "/api/v1/nowhere", "/api", LOGIN, "/admin/apikeys/apikey/"])
def test_a_body_of_nobody_is_not_kept(opened: Opened, path: str) -> None:
    before = resident_kib(opened.server)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\n\r\n".encode()
    connections = [opened(head) for _ in range(50)]
    for connection in connections:
        connection.settimeout(2)
        with contextlib.suppress(ConnectionError, TimeoutError):
            connection.sendall(b"x" * 1_900_000)
    # With all of them it would be 93 MiB.
    assert resident_kib(opened.server) - before < SPARE_KIB
    assert {answer(connection).status for connection in connections} <= {401, 404, 413, 503}


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"hello\r\n\r\n", 400, "invalid_parameter"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n", 400, "invalid_parameter"),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", 431, "head_too_large"),
        (b"POST /api HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "invalid_parameter"),
    ],
)
def test_what_is_not_http(opened: Opened, sent: bytes, status: int, code: str) -> None:
    connection = opened(sent)
    response = refusal(connection, code)
    assert response.status == status
    assert response.getheader("connection") == "close"
    request_id = response.getheader("x-request-id") or ""
    wait_for(lambda: request_id in opened.server.log(), "the line in the log", seconds=5)
    assert is_ended(connection, 10)


@pytest.mark.parametrize("path", [CHAT, "/api/v1/key", LIST, LOGIN])
def test_a_thousand_fields_in_the_query(opened: Opened, provider: FakeProvider, path: str) -> None:
    key = make_app_key(provider)
    query = "&".join(f"f{number}=1" for number in range(1_001))
    send = opened.server.get if path in ("/api/v1/key", LOGIN) else opened.server.post
    response = send(f"{path}?{query}", key)
    assert response.status_code == 400
    assert len(response.headers["x-request-id"]) == 24
    if path.startswith("/api"):
        check_body(response.json(), "invalid_parameter")
    assert "Traceback" not in response.text
    assert "Traceback" not in opened.server.log()


def test_a_client_that_waits_to_be_asked(opened: Opened, provider: FakeProvider) -> None:
    key = make_app_key(provider)
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}]}).encode()
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    )
    connection = opened(head.encode())
    assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(body)
    assert answer(connection).status == 200
    # Nobody is asked for a body that is not wanted.
    assert answer(opened(head.replace(key, key[:-1]).encode())).status == 401


def test_an_old_client(opened: Opened, provider: FakeProvider) -> None:
    key = make_app_key(provider)
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "stream": True}).encode()
    head = f"POST {CHAT} HTTP/1.0\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    response = answer(opened(head.encode() + body))
    assert response.getheader("transfer-encoding") is None
    assert response.read().endswith(b"data: [DONE]\n\n")


def test_a_proxy_that_is_not_listed_is_named_once(opened: Opened) -> None:
    for _ in range(3):
        assert answer(opened(get("/healthz", "X-Forwarded-For: 203.0.113.7"))).status == 200
    assert answer(opened(get("/healthz", "X-Forwarded-For: 203.0.113.7"), PROXY)).status == 200
    warnings = [line for line in opened.server.log().splitlines() if "TRUSTED_PROXIES" in line]
    assert len(warnings) == 1
    assert opened.address in warnings[0]
