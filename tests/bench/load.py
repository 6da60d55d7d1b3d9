"""A load generator that costs little: ready-made request bytes, persistent connections, just enough parsing."""

import asyncio
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, cast

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
# How long requests in flight may take to end after a round has.
GRACE_SECONDS = 30


class BenchError(Exception):
    """The run proves nothing: an answer, a count or a process is not what it must be."""


@dataclass(slots=True)
class Answer:
    """One response. `frames` counts its HTTP chunks: what the server sent on its own."""

    status: int
    head: bytes
    body: bytes
    frames: int


@dataclass(frozen=True)
class Traffic:
    """The requests to send, where, and their responses: `check` raises BenchError or returns the events it counted.

    Each request leaves `messages` messages in a conversation. `on_frame` sees each HTTP chunk as it comes.
    """

    port: int
    requests: Iterator[bytes]
    check: Callable[[Answer], int]
    messages: int = 0
    on_frame: Callable[[bytes], Any] | None = None


@dataclass
class Round:
    """The result of one round of load. Latencies are in seconds."""

    completed: int = 0
    events: int = 0
    frames: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return self.completed / self.seconds

    @property
    def event_rate(self) -> float:
        return self.events / self.seconds


class Connection(asyncio.Protocol):
    """One persistent connection with at most one request in flight."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.body = bytearray()
        self.head = b""
        self.status = 0
        self.length: int | None = None
        self.frames = 0
        self.on_answer: Callable[[Answer | BenchError], Any] | None = None
        self.on_frame: Callable[[bytes], Any] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not an isinstance: uvloop's transports inherit from nothing.
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(BenchError(f"the connection ended during a request: {exc!r}"))

    def send(self, request: bytes, on_answer: Callable[[Answer | BenchError], Any]) -> None:
        self.on_answer = on_answer
        if self.transport.is_closing():
            self._end(BenchError("the server closed a connection that was to be kept"))
            return
        self.transport.write(request)

    async def fetch(self, request: bytes) -> Answer:
        answered: asyncio.Future[Answer | BenchError] = asyncio.get_running_loop().create_future()
        self.send(request, answered.set_result)
        answer = await answered
        if isinstance(answer, BenchError):
            raise answer
        return answer

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.head and not self._read_head():
            return
        if self.length is None:
            self._read_chunks()
        elif len(self.buffer) >= self.length:
            body = bytes(self.buffer[: self.length])
            del self.buffer[: self.length]
            self._end(Answer(self.status, self.head, body, 1))

    def _read_head(self) -> bool:
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        self.head = bytes(self.buffer[: end + 4])
        del self.buffer[: end + 4]
        self.status = int(self.head[9:12])
        length = _LENGTH.search(self.head)
        self.length = int(length[1]) if length else None
        if length is None and not _CHUNKED.search(self.head):
            self._end(BenchError(f"neither a length nor chunks: {self.head!r}"))
            return False
        return True

    def _read_chunks(self) -> None:
        position = 0
        while (line := self.buffer.find(b"\r\n", position)) >= 0:
            size = int(self.buffer[position:line], 16)
            end = line + 2 + size
            if len(self.buffer) < end + 2:
                break
            position = end + 2
            if size == 0:
                del self.buffer[:position]
                self._end(Answer(self.status, self.head, bytes(self.body), self.frames))
                return
            frame = bytes(self.buffer[line + 2 : end])
            self.body += frame
            self.frames += 1
            if self.on_frame:
                self.on_frame(frame)
        del self.buffer[:position]

    def _end(self, answer: Answer | BenchError) -> None:
        on_answer, self.on_answer = self.on_answer, None
        if on_answer is None:
            return
        if self.buffer and isinstance(answer, Answer):
            answer = BenchError(f"bytes after the answer: {bytes(self.buffer[:200])!r}")
        self.head, self.length, self.frames = b"", None, 0
        self.body.clear()
        on_answer(answer)


async def connect(port: int) -> Connection:
    _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    return connection


async def run_round(traffic: Traffic, connections: int, seconds: float, most: int = 1_000_000) -> Round:
    """Keep every connection busy for `seconds` or `most` requests, then let what is in flight end.

    Raises BenchError at the first answer that is not what it should be.
    """
    opened = [await connect(traffic.port) for _ in range(connections)]
    for connection in opened:
        connection.on_frame = traffic.on_frame
    driver = _Driver(traffic, connections, seconds, most)
    try:
        return await asyncio.wait_for(driver.run(opened), seconds + GRACE_SECONDS)
    except TimeoutError:
        raise BenchError(f"requests were not answered within {GRACE_SECONDS} s: {driver.in_flight}") from None
    finally:
        for connection in opened:
            connection.transport.abort()


class _Driver:
    """Runs one round by callbacks: a task for each request would cost more than the request."""

    def __init__(self, traffic: Traffic, connections: int, seconds: float, most: int) -> None:
        self.traffic = traffic
        self.seconds = seconds
        self.left = most
        self.in_flight = connections
        self.round = Round()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, opened: list[Connection]) -> Round:
        started = perf_counter()
        self.deadline = started + self.seconds
        for connection in opened:
            self._next(connection)
        await self.ended
        self.round.seconds = perf_counter() - started
        return self.round

    def _next(self, connection: Connection) -> None:
        now = perf_counter()
        if now >= self.deadline or self.left <= 0:
            self.in_flight -= 1
            if self.in_flight == 0 and not self.ended.done():
                self.ended.set_result(None)
            return
        self.left -= 1
        connection.send(next(self.traffic.requests), lambda answer: self._answered(connection, now, answer))

    def _answered(self, connection: Connection, sent: float, answer: Answer | BenchError) -> None:
        if self.ended.done():
            return
        self.round.latencies.append(perf_counter() - sent)
        try:
            if isinstance(answer, BenchError):
                raise answer
            self.round.events += self.traffic.check(answer)
        except BenchError as error:
            self.ended.set_exception(error)
            return
        self.round.frames += answer.frames
        self.round.completed += 1
        self._next(connection)
