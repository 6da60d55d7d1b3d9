"""Answers as servers frame them, whole and read as they come: what is taken, what is refused, how much is held."""

import asyncio
import gzip
import zlib

import pytest

from apikeys.outbound import client
from apikeys.outbound.connections import MAX_HEAD_BYTES, MAX_HEADERS, READ_BUFFER_BYTES, Response
from apikeys.outbound.failures import AnswerTooLong, BrokenOff, CallFailed, MalformedAnswer
from tests.support.raw_server import Peer, serving
from tests.unit.apikeys.outbound.conftest import Run
from tests.unit.apikeys.outbound.test_client import post, wait_until

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
TEXT = b"one two three"


async def read_all(response: Response, maximum: int = 5) -> bytes:
    deadline = asyncio.get_running_loop().time() + 20
    pieces = []
    while piece := await response.read(maximum, deadline):
        assert len(piece) <= maximum
        pieces.append(piece)
    return b"".join(pieces)


async def ask(answer: bytes, max_bytes: int | None, step: int = 0, maximum: int = 5) -> bytes:
    """Return the body of this answer, sent in pieces of `step` bytes, each in a turn of the loop; then it closes."""

    async def script(peer: Peer) -> None:
        await peer.read_request()
        length = step or max(len(answer), 1)
        for start in range(0, len(answer), length):
            peer.send(answer[start : start + length])
            await asyncio.sleep(0)

    async with serving(script) as server:
        response = await post(server.url, max_bytes=max_bytes)
        try:
            return await read_all(response, maximum) if max_bytes is None else response.body()
        finally:
            response.release()


def compressed(coding: str, data: bytes) -> bytes:
    match coding:
        case "gzip":
            return gzip.compress(data, mtime=0)
        case "members":
            return gzip.compress(data[:4], mtime=0) + gzip.compress(data[4:], mtime=0)
        case "deflate":
            return zlib.compress(data)
    # Without zlib's header, as some servers have it.
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def with_coding(coding: str, body: bytes) -> bytes:
    name = {"members": "gzip", "raw": "deflate"}.get(coding, coding)
    return OK + f"Content-Encoding: {name}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


GOOD = {
    "length": OK + b"Content-Length: 13\r\n\r\n" + TEXT,
    "chunks": CHUNKED + b"4\r\none \r\n9;x=y\r\ntwo three\r\n0\r\n\r\n",
    "trailer": CHUNKED + b"d\r\none two three\r\n0\r\nContent-Encoding: br\r\nX-Sum: 1\r\n\r\n",
    "until close": OK + b"\r\n" + TEXT,
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\n" + TEXT,
    "interim": b"HTTP/1.1 103 Early Hints\r\nContent-Encoding: br\r\n\r\n" + OK + b"Content-Length: 13\r\n\r\n" + TEXT,
    "continue": b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 13\r\n\r\n" + TEXT,
    "line feeds": b"HTTP/1.1 200 OK\nContent-Length: 13\n\n" + TEXT,
    "padded chunks": CHUNKED + b"d  \r\none two three\r\n0\r\n\r\n",
    "identity": OK + b"Content-Encoding: identity\r\nContent-Length: 13\r\n\r\n" + TEXT,
    **{coding: with_coding(coding, compressed(coding, TEXT)) for coding in ("gzip", "members", "deflate", "raw")},
}


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("max_bytes", [None, 1000])
@pytest.mark.parametrize("answer", GOOD.values(), ids=GOOD.keys())
def test_it_works(run: Run, answer: bytes, max_bytes: int | None, step: int) -> None:
    assert run(lambda: ask(answer, max_bytes, step)) == TEXT


@pytest.mark.parametrize("max_bytes", [None, 1000])
@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_an_answer_without_a_body(run: Run, status: bytes, max_bytes: int | None) -> None:
    async def test() -> None:
        async def script(peer: Peer) -> None:
            await peer.read_request()
            peer.send(b"HTTP/1.1 " + status + b"\r\n\r\n")
            await server.answer_all(peer)

        async with serving(script) as server:
            response = await post(server.url, max_bytes=max_bytes)
            assert response.status == int(status[:3])
            await post(server.url)
            assert len(server.peers) == 1

    run(test)


BAD = [
    (b"", BrokenOff),
    (b"HTTP/1.1 200", BrokenOff),
    (OK + b"Content-Length: 14\r\n\r\n" + TEXT, BrokenOff),
    (CHUNKED + b"d\r\none two three\r\n", BrokenOff),
    (CHUNKED + b"d\r\none two", BrokenOff),
    (b"HTTP/1.1 103 Early Hints\r\n\r\n", BrokenOff),
    (with_coding("gzip", compressed("gzip", TEXT)[:-4]), BrokenOff),
    (b"SSH-2.0-OpenSSH_9.6\r\n", MalformedAnswer),
    (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", MalformedAnswer),
    (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", MalformedAnswer),
    (OK + b"Content-Length: 13\r\nContent-Length: 14\r\n\r\n" + TEXT, MalformedAnswer),
    (OK + b"Content-Length: 13\r\nTransfer-Encoding: chunked\r\n\r\n" + TEXT, MalformedAnswer),
    (OK + b"Content-Length: -1\r\n\r\n" + TEXT, MalformedAnswer),
    (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\nd\r\none two three\r\n0\r\n\r\n", MalformedAnswer),
    (OK + b"Transfer-Encoding: gzip\r\n\r\n" + TEXT, MalformedAnswer),
    (CHUNKED + b"zz\r\n" + TEXT, MalformedAnswer),
    (with_coding("br", TEXT), MalformedAnswer),
    (with_coding("zstd", TEXT), MalformedAnswer),
    (with_coding("gzip, gzip", TEXT), MalformedAnswer),
    (with_coding("gzip", TEXT), MalformedAnswer),
    (with_coding("deflate", TEXT), MalformedAnswer),
    (with_coding("deflate", zlib.compress(TEXT) + b"more"), MalformedAnswer),
]


@pytest.mark.parametrize("max_bytes", [None, 1000])
@pytest.mark.parametrize(("answer", "failure"), BAD, ids=range(len(BAD)))
def test_what_is_no_answer(run: Run, answer: bytes, failure: type[CallFailed], max_bytes: int | None) -> None:
    with pytest.raises(failure):
        run(lambda: ask(answer, max_bytes))


ENDLESS = {
    "header": (OK + b"X-Long: ", b"x" * 1024),
    "headers": (OK, b"X-Short: x\r\n" * 20),
    "interim": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"),
    "trailer": (CHUNKED + b"2\r\nab\r\n0\r\n", b"X-Short: x\r\n" * 100),
    "extension": (CHUNKED + b"2;", b"x=y;" * 100),
}


@pytest.mark.parametrize("max_bytes", [None, 1000])
@pytest.mark.parametrize(("beginning", "rest"), ENDLESS.values(), ids=ENDLESS.keys())
def test_heads_are_bounded(run: Run, beginning: bytes, rest: bytes, max_bytes: int | None) -> None:
    async def test() -> None:
        async def script(peer: Peer) -> None:
            await peer.read_request()
            peer.send(beginning)
            while True:
                peer.send(rest)
                await peer.writer.drain()

        async with serving(script) as server:
            with pytest.raises(AnswerTooLong):
                await read_all(await post(server.url, max_bytes=max_bytes))

    run(test)


def test_long_heads_are_taken(run: Run) -> None:
    few = OK + b"X-Long: " + b"x" * (MAX_HEAD_BYTES - 200) + b"\r\nContent-Length: 13\r\n\r\n" + TEXT
    many = OK + b"X-Short: x\r\n" * (MAX_HEADERS - 1) + b"Content-Length: 13\r\n\r\n" + TEXT
    for answer in (few, many):
        assert run(lambda answer=answer: ask(answer, 1000)) == TEXT


@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_a_whole_body_is_bounded(run: Run, coding: str) -> None:
    body = b"x" * 100_000
    answer = with_coding(coding, body if coding == "identity" else gzip.compress(body, mtime=0))
    assert run(lambda: ask(answer, 100_000)) == body
    with pytest.raises(AnswerTooLong):
        run(lambda: ask(answer, 99_999))


def test_a_small_body_that_inflates_without_end(run: Run) -> None:
    """It is taken in pieces of the length that is asked for."""
    size = 32 * 2**20
    answer = with_coding("gzip", gzip.compress(bytes(size), mtime=0))
    assert run(lambda: ask(answer, None, maximum=16384)) == bytes(size)


@pytest.mark.parametrize("status", [b"400 Bad Request", b"500 Internal Server Error"])
def test_the_body_of_a_refusal_is_not_waited_for(run: Run, status: bytes) -> None:
    async def test() -> None:
        async def script(peer: Peer) -> None:
            await server.note_request(peer)
            peer.send(b"HTTP/1.1 " + status + b"\r\nContent-Encoding: br\r\nContent-Length: 100\r\n\r\n")
            await asyncio.Event().wait()

        async with serving(script) as server:
            response = await post(server.url)
            assert response.status == int(status[:3])
            response.release()
            await server.peers[0].wait_until_left()

    run(test)


def test_a_reader_that_stalls_holds_up_the_server(run: Run) -> None:
    async def test() -> None:
        size = 16 * 2**20
        sent = 0

        async def script(peer: Peer) -> None:
            nonlocal sent
            await server.note_request(peer)
            peer.send(CHUNKED)
            for _ in range(size // 65536):
                peer.send(b"10000\r\n" + bytes(65536) + b"\r\n")
                await peer.writer.drain()
                sent += 65536
            peer.send(b"0\r\n\r\n")
            await server.answer_all(peer)

        async with serving(script) as server:
            response = await post(server.url, max_bytes=None)
            await wait_until(lambda: response._is_paused)
            assert READ_BUFFER_BYTES < response._size <= READ_BUFFER_BYTES + client.READ_BYTES
            assert sent < size
            assert await read_all(response, 16384) == bytes(size)
            # It was read to its end, so its connection is free.
            await post(server.url)
            assert len(server.peers) == 1

    run(test)


def test_what_has_come_is_read_before_the_failure(run: Run) -> None:
    async def test() -> None:
        async def script(peer: Peer) -> None:
            await server.note_request(peer)
            peer.send(CHUNKED + b"d\r\none two three\r\n")

        async with serving(script) as server:
            response = await post(server.url, max_bytes=None)
            await wait_until(lambda: client.client_of_loop().open_count == 0)
            deadline = asyncio.get_running_loop().time() + 20
            assert await response.read(100, deadline) == TEXT
            with pytest.raises(BrokenOff):
                await response.read(100, deadline)

    run(test)


def test_what_was_released_is_read_no_further(run: Run) -> None:
    async def test() -> None:
        async def script(peer: Peer) -> None:
            await server.note_request(peer)
            peer.send(CHUNKED)
            await peer.wait_until_left()

        async with serving(script) as server:
            response = await post(server.url, max_bytes=None)
            response.release()
            with pytest.raises(BrokenOff):
                await response.read(100, asyncio.get_running_loop().time() + 20)

    run(test)


def test_a_stream_that_stops(run: Run) -> None:
    async def test() -> None:
        async def script(peer: Peer) -> None:
            await server.note_request(peer)
            peer.send(CHUNKED + b"2\r\nab\r\n")
            await asyncio.Event().wait()

        async with serving(script) as server:
            response = await post(server.url, max_bytes=None)
            now = asyncio.get_running_loop().time()
            # What is at hand is never late.
            assert await response.read(100, now - 1) == b"ab"
            with pytest.raises(TimeoutError):
                await response.read(100, now + 0.05)
            await server.peers[0].wait_until_left()

    run(test)


@pytest.mark.parametrize("is_ended", [True, False])
def test_a_rest_that_nobody_wants(run: Run, is_ended: bool) -> None:
    """It is read without anybody waiting, and the connection is used again if it comes to an end in time."""

    async def test() -> None:
        may_go_on = asyncio.Event()

        async def script(peer: Peer) -> None:
            await server.note_request(peer)
            peer.send(CHUNKED + b"2\r\nab\r\n")
            await may_go_on.wait()
            peer.send(b"2\r\ncd\r\n" + (b"0\r\n\r\n" if is_ended else b""))
            await server.answer_all(peer)

        async with serving(script) as server:
            response = await post(server.url, max_bytes=None)
            now = asyncio.get_running_loop().time()
            assert await response.read(100, now + 20) == b"ab"
            response.drop_rest(now + (20 if is_ended else 0.05))
            response.release()
            may_go_on.set()
            pool = client.client_of_loop()
            await wait_until(lambda: pool.idle_count == 1 if is_ended else pool.open_count == 0)

    run(test)
