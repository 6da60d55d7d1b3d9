"""The attacks, each bounded in time and number: what it tries, and what of it was answered as it must not be."""

from __future__ import annotations

import json
import random
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tests.attack.target import CHAT, LIST, LOGIN, PROXY, STATIC, Target, addresses, closing_all

QUESTION = {"messages": [{"role": "user", "content": "hi"}]}
MEBIBYTE = 1024 * 1024


@dataclass
class Outcome:
    """How often something was tried, and each time that it did what it must not."""

    tried: int = 0
    wrong: list[str] = field(default_factory=list)

    def check(self, is_right: bool, what: str) -> None:
        self.tried += 1
        if not is_right:
            self.wrong.append(what)


def head(method: str, path: str, *lines: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def statuses(answered: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answered)]


def read_all(connection: socket.socket, seconds: float = 3.0) -> bytes:
    """Return everything that comes until the connection ends, or nothing has come for so long."""
    connection.settimeout(seconds)
    received = b""
    with suppress(OSError):
        while piece := connection.recv(65536):
            received += piece
    return received


def talk(target: Target, sent: bytes, *, address: str, seconds: float = 3.0) -> list[int]:
    with target.connect(address) as connection:
        with suppress(OSError):
            connection.sendall(sent)
        return statuses(read_all(connection, seconds))


def trailers_as_headers(target: Target) -> Outcome:
    """Claim another address, or a key, in the trailer fields of a body."""
    outcome = Outcome()
    chunked = "Transfer-Encoding: chunked"
    key = target.keys["key of one network"]
    for name in ("X-Forwarded-For", "x-forwarded-for", "Forwarded", "X-Real-IP"):
        sent = head(
            "POST", LIST, f"Authorization: Bearer {key}", "X-Forwarded-For: 198.51.100.9", "Connection: close", chunked
        )
        sent += f"2\r\n{{}}\r\n0\r\n{name}: 203.0.113.7\r\n\r\n".encode()
        found = talk(target, sent, address=PROXY)
        outcome.check(found == [403], f"{name} in a trailer: {found}")
    sent = head("POST", LIST, "Connection: close", chunked)
    sent += f"2\r\n{{}}\r\n0\r\nAuthorization: Bearer {target.keys['global key']}\r\n\r\n".encode()
    found = talk(target, sent, address=next(addresses))
    outcome.check(found == [401], f"Authorization in a trailer: {found}")
    return outcome


def trailers_without_end(target: Target) -> Outcome:
    """Never end the trailer fields: many of them, one long one, with a key and without."""
    outcome = Outcome()
    for piece in (b"X: y\r\n" * 10_000, b"x" * 60_000):
        for lines in ((), (f"Authorization: Bearer {target.keys['global key']}",)):
            with target.connect(next(addresses)) as connection:
                sent = 0
                with suppress(OSError):
                    connection.sendall(
                        head("POST", LIST, *lines, "Transfer-Encoding: chunked") + b"2\r\n{}\r\n0\r\nX: "
                    )
                    started = time.monotonic()
                    while sent < 100 * MEBIBYTE and time.monotonic() - started < 15:
                        connection.sendall(piece)
                        sent += len(piece)
                outcome.check(sent < 100 * MEBIBYTE, f"{sent // MEBIBYTE} MiB of trailers were taken")
    return outcome


def requests_sent_ahead(target: Target) -> Outcome:
    """Send 48 MiB of small requests on one connection, and read nothing."""
    outcome = Outcome()
    with target.connect(next(addresses), slow=True) as connection:
        sent, requests = 0, head("GET", STATIC) * 1000
        connection.settimeout(2)
        with suppress(OSError):
            while sent < 48 * MEBIBYTE:
                sent += connection.send(requests)
        outcome.check(sent < 48 * MEBIBYTE, f"{sent // MEBIBYTE} MiB of requests were taken")
        time.sleep(5)
    return outcome


def slow_readers(target: Target) -> Outcome:
    """Ask for files on 200 connections, and read nothing, for 15 seconds."""
    outcome = Outcome()
    with closing_all() as keep:
        for _ in range(4):
            address = next(addresses)
            for _ in range(50):
                connection = keep(target.connect(address, slow=True))
                connection.sendall(head("GET", STATIC) * 50)
                outcome.tried += 1
        began = time.monotonic()
        while time.monotonic() - began < 15:
            status, _ = target.ask("GET", LOGIN, address=next(addresses))
            outcome.check(status == 200, f"the sign-in page: {status}")
            status, _ = target.ask("GET", "/api/v1/key", target.keys["global key"], address=next(addresses))
            outcome.check(status == 200, f"the management API: {status}")
            time.sleep(0.5)
    return outcome


def half_heads(target: Target) -> Outcome:
    """Open 3,000 connections from six addresses, and send half a head on each."""
    outcome = Outcome()
    with closing_all() as keep:
        held = []
        for _ in range(6):
            address = next(addresses)
            for _ in range(500):
                with suppress(OSError):
                    connection = keep(target.connect(address))
                    connection.sendall(b"GET / HTTP/1.1\r\nHost: ")
                    held.append(connection)
        time.sleep(13)
        still_open = 0
        for connection in held:
            connection.setblocking(False)
            try:
                # The answer 408, and then the end.
                while connection.recv(4096):
                    pass
            except BlockingIOError:
                still_open += 1
            except OSError:
                pass
        outcome.tried += len(held)
        outcome.check(still_open == 0, f"{still_open} of {len(held)} were open after 13 s")
    return outcome


def more_connections_than_allowed(target: Target) -> Outcome:
    """Open 1,500 connections from one address."""
    outcome = Outcome()
    address = next(addresses)
    with closing_all() as keep:
        for _ in range(1_500):
            with suppress(OSError):
                keep(target.connect(address))
                outcome.tried += 1
        found = talk(target, head("GET", "/healthz"), address=address)
        outcome.check(found == [503], f"one more: {found}")
    return outcome


def bodies_of_nobody(target: Target) -> Outcome:
    """Send 500 bodies of 2 MiB, without a key and without their last byte."""
    outcome = Outcome()
    with closing_all() as keep:
        for path in (LIST, CHAT, "/api/v1/nowhere", LOGIN, "/admin/apikeys/apikey/"):
            address = next(addresses)
            for _ in range(100):
                connection = keep(target.connect(address))
                connection.settimeout(0.05)
                with suppress(OSError):
                    connection.sendall(head("POST", path, "Content-Length: 2097152") + b"x" * (2 * MEBIBYTE - 1))
                outcome.tried += 1
        time.sleep(2)
    return outcome


def odd_requests(target: Target) -> Outcome:
    """Send requests that two servers in a row might read differently. No second one may come out of any."""
    inner = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    auth = f"Authorization: Bearer {target.keys['global key']}"
    size = f"Content-Length: {len(inner)}"
    chunked = "Transfer-Encoding: chunked"
    odd: dict[str, bytes] = {
        "a length and chunks": head("POST", LIST, auth, "Content-Length: 4", chunked) + b"0\r\n\r\n" + inner,
        "chunks and a length": head("POST", LIST, auth, chunked, size) + b"0\r\n\r\n" + inner,
        "two lengths": head("POST", LIST, auth, "Content-Length: 0", size) + inner,
        "a list of lengths": head("POST", LIST, auth, f"Content-Length: 0, {len(inner)}") + inner,
        "a signed length": head("POST", LIST, auth, f"Content-Length: +{len(inner)}") + inner,
        "a length in hex": head("POST", LIST, auth, "Content-Length: 0x2a") + inner,
        "identity": head("POST", LIST, auth, "Transfer-Encoding: identity", size) + inner,
        "two encodings": head("POST", LIST, auth, "Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n" + inner,
        "chunks twice": head("POST", LIST, auth, chunked, chunked) + b"0\r\n\r\n" + inner,
        "a blank before the colon": head("POST", LIST, auth, "Transfer-Encoding : chunked", "Content-Length: 0")
        + inner,
        "a tab before the value": head("POST", LIST, auth, "Transfer-Encoding:\tx chunked") + b"0\r\n\r\n" + inner,
        "a vertical tab": head("POST", LIST, auth, "Transfer-Encoding: \x0bchunked") + b"0\r\n\r\n" + inner,
        "a folded line": head("POST", LIST, auth, "X: y\r\n Transfer-Encoding: chunked") + b"0\r\n\r\n" + inner,
        "a bare line feed": head("POST", LIST, auth, "X: y\nTransfer-Encoding: chunked") + b"0\r\n\r\n" + inner,
        "a bare carriage return": head("POST", LIST, auth, "X: y\rTransfer-Encoding: chunked") + b"0\r\n\r\n" + inner,
        "a NUL in a value": head("POST", LIST, auth, "X: y\0") + inner,
        "two hosts": head("GET", "/healthz", "Host: other") + inner,
        "a huge chunk": head("POST", LIST, auth, chunked) + b"ffffffffffffffff0\r\n" + inner,
        "a negative chunk": head("POST", LIST, auth, chunked) + b"-1\r\n" + inner,
        "a chunk without its end": head("POST", LIST, auth, chunked) + b"1\r\nab0\r\n\r\n" + inner,
        "a chunk with a bare line feed": head("POST", LIST, auth, chunked) + b"0\n\n" + inner,
        "an old version with chunks": head("POST", LIST, auth, chunked).replace(b"/1.1", b"/1.0")
        + b"0\r\n\r\n"
        + inner,
        "HTTP/0.9": b"GET /healthz\r\n\r\n" + inner,
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + inner,
        "a tunnel": b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n" + inner,
        "a line before the head": b" \r\n" + inner,
    }
    outcome = Outcome()
    for name, sent in odd.items():
        found = talk(target, sent, address=next(addresses))
        outcome.check(len(found) <= 1 and found != [200], f"{name}: {found}")
    return outcome


def policy_matrix(target: Target) -> Outcome:
    """Call every endpoint with every kind of key. Each is let in where it was declared, and nowhere else."""
    from apikeys.access.declarations import APP, GLOBAL, GLOBAL_NAMING_APP, PUBLIC
    from apikeys.access.endpoints import routes

    opens = {
        "app key": {APP},
        "busy app key": {APP},
        "foreign app key": {APP},
        "global key": {GLOBAL},
        "global key that may name an app": {GLOBAL, GLOBAL_NAMING_APP},
    }
    outcome, address = Outcome(), next(addresses)
    body = json.dumps({**QUESTION, "appId": target.app_id}).encode()
    for route in routes():
        path = "/" + re.sub(r"(/\?)?\$$", "", route.pattern.replace("^", ""))
        path += "no/such/path" if path.endswith("/") else ""
        if route.view.staff_permission is PUBLIC:
            continue
        for name in (None, *target.keys):
            for method in ("GET", "POST", "PUT", "DELETE"):
                if not hasattr(route.view, method.lower()):
                    continue
                status, _ = target.ask(method, path, target.keys[name] if name else None, body, address=address)
                may = bool(opens.get(name or "", set()) & route.view.api_key_access)
                if name == "foreign app key" and route.view.endpoint.startswith("chat."):
                    # The body names the app of another team.
                    may = False
                is_right = status not in (401, 403) and status < 500 if may else status in (401, 403)
                outcome.check(is_right, f"{method} {path} with {name or 'no key'}: {status}")
    return outcome


def foreign_ids(target: Target) -> Outcome:
    """Name what belongs to another team in every field of every endpoint that a global key opens."""
    from apikeys.access.declarations import GLOBAL
    from apikeys.access.endpoints import routes

    outcome, address = Outcome(), next(addresses)
    names = list(target.foreign.values())
    for route in routes():
        if GLOBAL not in route.view.api_key_access:
            continue
        path = "/" + re.sub(r"(/\?)?\$$", "", route.pattern.replace("^", ""))
        for key in ("id", "datasetId", "collectionId", "appId", "parentId", "dataId"):
            for value in names:
                query = f"?{key}={value}"
                body = json.dumps({key: value, "text": "x", "name": "x", "q": "x", "data": [{"q": "x"}]}).encode()
                for method in ("GET", "POST", "PUT", "DELETE"):
                    if not hasattr(route.view, method.lower()):
                        continue
                    status, answered = target.ask(
                        method, path + query, target.keys["global key"], body, address=address
                    )
                    leaks = any(each.encode() in answered for each in names if each != value)
                    outcome.check(status < 500 and not leaks, f"{method} {path}{query}: {status}")
    return outcome


def fuzz(target: Target) -> Outcome:
    """Send 3,000 bodies of chance to what a key opens. None may be answered with 500, or not at all."""
    chance = random.Random(12)  # noqa: S311 - the same bodies each time
    paths = [CHAT, LIST, "/api/core/dataset/create", "/api/core/dataset/searchTest", "/api/v1/embeddings"]
    outcome, address = Outcome(), next(addresses)
    for _ in range(3_000):
        body = chance.choice(list(_bodies(chance)))
        path = chance.choice(paths)
        key = target.keys["app key" if path == CHAT else "global key"]
        status, _ = target.ask("POST", path, key, body, address=address)
        outcome.check(status < 500 or status == 503, f"{path}: {status} for {body[:200]!r}")
    return outcome


def _bodies(chance: random.Random) -> Iterator[bytes]:
    values: list[Any] = [None, True, -1, 2**70, 1e308, "", "x" * 5000, "\0", "\ud83d\ude00", [], {}, [[[]]], {"a": [1]}]
    fields = [
        "messages",
        "chatId",
        "stream",
        "detail",
        "variables",
        "model",
        "max_tokens",
        "name",
        "text",
        "input",
        "id",
    ]
    body: dict[str, Any] = {**QUESTION, **{chance.choice(fields): chance.choice(values) for _ in range(4)}}
    whole = json.dumps(body).encode()
    yield whole
    yield whole[: chance.randrange(len(whole))]
    yield bytes(chance.randrange(256) if chance.random() < 0.02 else byte for byte in whole)
    yield b"[" * chance.randrange(20_000)
    yield b'{"messages": [{"role": "user", "content": "hi"}], "x": ["\\u0000"' + b",[]" * 100_000 + b"]}"


def unknown_keys(target: Target) -> Outcome:
    """Guess 3,000 keys, with a right checksum and without."""
    outcome, address = Outcome(), next(addresses)
    guesses = target.gateway.unknown_keys(1_500)
    for guess in [*guesses, *(guess[:-1] + "!" for guess in guesses)]:
        status, _ = target.ask("GET", "/api/v1/key", guess, address=address)
        outcome.check(status == 401, f"a guess: {status}")
    return outcome


def open_streams_of_one_key(target: Target) -> Outcome:
    """Open 900 streams that do not end with one key of the bystander's own app."""
    outcome = Outcome()
    body = json.dumps({"messages": [{"role": "user", "content": "chunks=5 hold"}], "stream": True}).encode()
    sent = (
        head("POST", CHAT, f"Authorization: Bearer {target.keys['busy app key']}", f"Content-Length: {len(body)}")
        + body
    )
    with closing_all() as keep:
        for _ in range(3):
            address = next(addresses)
            for _ in range(300):
                with suppress(OSError):
                    keep(target.connect(address)).sendall(sent)
                    outcome.tried += 1
        time.sleep(5)
    return outcome


ATTACKS: dict[str, Callable[[Target], Outcome]] = {
    "trailers as headers": trailers_as_headers,
    "trailers without end": trailers_without_end,
    "requests sent ahead": requests_sent_ahead,
    "slow readers": slow_readers,
    "half heads": half_heads,
    "more connections than allowed": more_connections_than_allowed,
    "bodies of nobody": bodies_of_nobody,
    "odd requests": odd_requests,
    "policy matrix": policy_matrix,
    "foreign ids": foreign_ids,
    "fuzz": fuzz,
    "unknown keys": unknown_keys,
    "open streams of one key": open_streams_of_one_key,
}
# What the proxy answers itself, or takes on itself.
NOT_BEHIND_A_PROXY = {
    "trailers without end",
    "requests sent ahead",
    "half heads",
    "more connections than allowed",
    "odd requests",
}
