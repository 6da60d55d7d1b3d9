"""The client of providers: which connection a call takes, what ends it, and what is never sent twice."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from apikeys.outbound import client
from apikeys.outbound.connections import Response
from apikeys.outbound.failures import BrokenOff, ConnectFailed, UnusableTarget
from apikeys.outbound.service import Credentials
from tests.support.raw_server import Peer, serving
from tests.unit.apikeys.outbound.conftest import Run

BODY = b'{"stream":false}'


async def post(
    url: str, body: bytes = BODY, seconds: float = 20, secret: str | None = "sk-1", **options: Any
) -> Response:
    options = {"connect_seconds": 5, "max_bytes": 2**20, **options, "credentials": Credentials.of(secret).head()}
    return await client.post(url, body=body, deadline=asyncio.get_running_loop().time() + seconds, **options)


async def wait_until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


def test_it_works(run: Run) -> None:
    async def test() -> None:
        async with serving() as server:
            response = await post(f"{server.url}/chat/completions")
            assert (response.status, response.content_type, response.body()) == (200, "application/json", b"{}")
            head = (
                f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUser-Agent: fastgpt-site\r\n"
                "Accept: */*\r\nAccept-Encoding: identity\r\nContent-Type: application/json\r\n"
                f"Authorization: Bearer sk-1\r\nContent-Length: {len(BODY)}\r\n\r\n"
            )
            assert server.requests == [(0, head.encode(), BODY)]

    run(test)


def test_a_connection_is_used_again(run: Run) -> None:
    async def test() -> None:
        async with serving() as server:
            for secret in ("sk-1", "sk-2", None):
                (await post(server.url, secret=secret)).body()
            assert [number for number, _, _ in server.requests] == [0, 0, 0]
            assert [b"Authorization" in head for _, head, _ in server.requests] == [True, True, False]

    run(test)


def test_the_last_connection_in_is_the_first_out(run: Run) -> None:
    async def test() -> None:
        turns = [asyncio.Event() for _ in range(3)]

        async def script(peer: Peer) -> None:
            await server.note_request(peer)
            await turns[peer.number].wait()
            peer.answer()
            await server.answer_all(peer)

        async with serving(script) as server:
            calls = [asyncio.create_task(post(server.url)) for _ in range(3)]
            await wait_until(lambda: len(server.requests) == 3)
            for number in (0, 2, 1):
                turns[number].set()
                await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
                calls = [call for call in calls if not call.done()]
            for _ in range(5):
                await post(server.url)
            assert [number for number, _, _ in server.requests[3:]] == [1] * 5

    run(test)


def test_so_many_connections_wait_and_no_more(run: Run) -> None:
    async def test() -> None:
        number = client.MAX_IDLE + 20
        has_all = asyncio.Event()

        async def script(peer: Peer) -> None:
            await server.note_request(peer)
            if len(server.requests) == number:
                has_all.set()
            await has_all.wait()
            peer.answer()
            await server.answer_all(peer)

        async with serving(script) as server:
            await asyncio.gather(*(post(server.url) for _ in range(number)))
            pool = client.client_of_loop()
            assert pool.idle_count == client.MAX_IDLE
            await wait_until(lambda: pool.open_count == client.MAX_IDLE)

    run(test)


def test_a_connection_does_not_wait_for_long(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "KEEPALIVE_SECONDS", 0)

    async def test() -> None:
        async with serving() as server:
            await post(server.url)
            # Its time is over, whether or not that was noticed.
            await post(server.url)
            assert [number for number, _, _ in server.requests] == [0, 1]
            await wait_until(lambda: client.client_of_loop().open_count == 0)

    run(test)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        # Nobody asked for the second one.
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HT",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}\0",
    ],
)
def test_a_connection_that_is_over_is_not_used_again(run: Run, answer: bytes) -> None:
    async def test() -> None:
        async def script(peer: Peer) -> None:
            await server.note_request(peer)
            peer.send(answer)
            await peer.wait_until_left()

        async with serving(script) as server:
            for _ in range(2):
                assert (await post(server.url)).body() == b"{}"
            assert [number for number, _, _ in server.requests] == [0, 1]

    run(test)


def test_http_1_0_may_keep_a_connection_too(run: Run) -> None:
    async def test() -> None:
        async def script(peer: Peer) -> None:
            while True:
                await server.note_request(peer)
                peer.send(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}")

        async with serving(script) as server:
            for _ in range(2):
                await post(server.url)
            assert [number for number, _, _ in server.requests] == [0, 0]

    run(test)


@pytest.mark.parametrize("farewell", [b"", b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"])
def test_a_connection_that_ends_while_it_waits_is_forgotten(run: Run, farewell: bytes) -> None:
    async def test() -> None:
        is_over = asyncio.Event()

        async def script(peer: Peer) -> None:
            await server.note_request(peer)
            peer.answer()
            await is_over.wait()
            peer.send(farewell)

        async with serving(script) as server:
            await post(server.url)
            pool = client.client_of_loop()
            assert pool.idle_count == 1
            is_over.set()
            await wait_until(lambda: pool.open_count == 0)
            assert pool.idle_count == 0
            await post(server.url)
            assert [number for number, _, _ in server.requests] == [0, 1]

    run(test)


def test_after_the_provider_restarts(run: Run) -> None:
    """Its old connections are gone from the pool, and calls go to the new process."""

    async def test() -> None:
        pool = client.client_of_loop()
        async with serving() as server:
            await asyncio.gather(*(post(server.url) for _ in range(20)))
            assert pool.idle_count == len(server.peers) > 1
        await wait_until(lambda: pool.open_count == 0)
        with pytest.raises(ConnectFailed):
            await post(server.url)
        async with serving(port=server.port) as restarted:
            for response in await asyncio.gather(*(post(server.url) for _ in range(20))):
                assert response.body() == b"{}"
            assert len(restarted.requests) == 20

    run(test)


def test_what_was_sent_is_not_sent_again(run: Run) -> None:
    """The server may have acted on it, even where it closed a connection that had been used before."""

    async def test() -> None:
        async def script(peer: Peer) -> None:
            await server.note_request(peer)
            peer.answer()
            await server.note_request(peer)

        async with serving(script) as server:
            await post(server.url)
            with pytest.raises(BrokenOff):
                await post(server.url)
            assert [number for number, _, _ in server.requests] == [0, 0]

    run(test)


@pytest.mark.parametrize("max_bytes", [None, 1000])
def test_whoever_leaves_ends_the_connection(run: Run, max_bytes: int | None) -> None:
    async def test() -> None:
        async with serving(answer_nothing) as server:
            call = asyncio.create_task(post(server.url, max_bytes=max_bytes))
            await wait_until(lambda: bool(server.peers))
            head, _ = await server.peers[0].read_request()
            assert head
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await server.peers[0].wait_until_left()
            await wait_until(lambda: client.client_of_loop().open_count == 0)

    run(test)


async def answer_nothing(peer: Peer) -> None:
    await asyncio.Event().wait()


def test_whoever_leaves_a_stream_ends_the_connection(run: Run) -> None:
    async def test() -> None:
        async def script(peer: Peer) -> None:
            await server.note_request(peer)
            peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
            await asyncio.Event().wait()

        async with serving(script) as server:
            response = await post(server.url, max_bytes=None)
            deadline = asyncio.get_running_loop().time() + 20
            assert await response.read(100, deadline) == b"ab"
            reading = asyncio.create_task(response.read(100, deadline))
            await asyncio.sleep(0)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            response.release()
            await server.peers[0].wait_until_left()

    run(test)


def test_an_answer_that_does_not_come_in_time(run: Run) -> None:
    async def test() -> None:
        async with serving(answer_nothing) as server:
            with pytest.raises(TimeoutError):
                await post(server.url, seconds=0.1)
            await server.peers[0].wait_until_left()

    run(test)


def test_a_call_that_begins_too_late(run: Run) -> None:
    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(TimeoutError):
            await post(f"http://127.0.0.1:{listener.getsockname()[1]}/", seconds=-1)

    run(test)


def test_a_large_body_and_a_slow_reader(run: Run) -> None:
    async def test() -> None:
        body = b"x" * 8 * 2**20
        may_read = asyncio.Event()

        async def script(peer: Peer) -> None:
            await may_read.wait()
            await server.note_request(peer)
            peer.answer()
            await server.answer_all(peer)

        async with serving(script) as server:
            call = asyncio.create_task(post(server.url, body))
            await wait_until(lambda: bool(server.peers))
            may_read.set()
            assert (await call).body() == b"{}"
            await post(server.url)
            assert [(number, len(sent)) for number, _, sent in server.requests] == [(0, len(body)), (0, len(BODY))]

    run(test)


def test_a_reader_that_takes_nothing(run: Run) -> None:
    async def test() -> None:
        async with serving(answer_nothing) as server:
            with pytest.raises(TimeoutError):
                await post(server.url, b"x" * 8 * 2**20, seconds=0.1)

    run(test)


def test_an_answer_before_the_body_was_read(run: Run) -> None:
    async def test() -> None:
        async def script(peer: Peer) -> None:
            await peer.read_head()
            peer.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\n{}")
            await asyncio.Event().wait()

        async with serving(script) as server:
            for _ in range(2):
                response = await post(server.url, b"x" * 8 * 2**20)
                assert response.status == 413
                response.release()
            # What is left of the body would be taken for the next request.
            assert len(server.peers) == 2

    run(test)


@pytest.mark.parametrize(
    ("path", "secret"),
    [("\r\nX: y", "s"), ("/a b", "s"), ("", "s\r\nX: y"), ("", "s\n"), ("", "s\0"), ("", "\ud83d")],
)
def test_nothing_gets_into_the_head(run: Run, path: str, secret: str) -> None:
    async def test() -> None:
        async with serving() as server:
            with pytest.raises((UnusableTarget, UnicodeEncodeError)):
                await post(server.url + path, secret=secret)
            assert server.peers == []

    run(test)


def test_the_end_of_the_client_ends_everything(run: Run) -> None:
    async def test() -> None:
        async def script(peer: Peer) -> None:
            await server.note_request(peer)
            if peer.number == 0:
                peer.answer()
            await asyncio.Event().wait()

        async with serving(script) as server:
            idle, waiting = asyncio.create_task(post(server.url)), None
            await idle
            waiting = [asyncio.create_task(post(server.url)) for _ in range(3)]
            await wait_until(lambda: len(server.requests) == 3)
            await client.close()
            for outcome in await asyncio.gather(*waiting, return_exceptions=True):
                assert isinstance(outcome, BrokenOff)
            for peer in server.peers:
                await peer.wait_until_left()

    run(test)


def test_a_server_that_nobody_runs(run: Run) -> None:
    async def test() -> None:
        async with serving() as server:
            pass
        with pytest.raises(ConnectFailed) as caught:
            await post(server.url)
        assert str(caught.value) == ""

    run(test)
