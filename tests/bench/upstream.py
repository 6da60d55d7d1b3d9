"""A loopback provider: the least that an OpenAI-compatible server can do, so that it is never what is measured.

The last user message may steer a stream. `chunks=200` sends 200 text chunks, each in a turn of the event loop
and so in a write of its own. With `hold` it stops after the first one until `POST /release`. With `step` it
sends each of the others when the reader has had the one before: chunks then carry the number of their stream,
and the reader sends it back on a connection that began with `POST /steps`. So no two events can travel together.
Run as a module it prints its port and ends with its standard input.
"""

import asyncio
import json
import re
import sys
from typing import Final, cast

import uvloop

ANSWER: Final = "Forty-two, measured on a loopback interface, is the answer."
WORD: Final = "loopback "
# The digits of a stream's number.
NUMBER_LENGTH: Final = 5
MODEL: Final = "bench-model"

_STEERING = re.compile(rb"chunks=(\d+)(?: (hold|step))?")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STREAM = re.compile(rb'"stream": ?true')
_USAGE_WANTED = re.compile(rb'"include_usage": ?true')
_USAGE: Final = {"prompt_tokens": 12, "completion_tokens": 14, "total_tokens": 26}


def _answer(body: bytes, status: bytes = b"200 OK") -> bytes:
    head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (status, len(body)) + body


def _frame(payload: bytes) -> bytes:
    event = b"data: " + payload + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(event), event)


def _chunk(delta: dict[str, str], finish_reason: str | None = None, **extra: object) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    head = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1700000000, "model": MODEL}
    return _frame(json.dumps(head | {"choices": [choice]} | extra).encode())


COMPLETION: Final = json.dumps(
    {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1700000000,
        "model": MODEL,
        "usage": _USAGE,
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"},
        ],
    }
)
_COMPLETION = _answer(COMPLETION.encode())
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_ROLE = _chunk({"role": "assistant", "content": ""})
_TEXT = _chunk({"content": WORD})
_STOP = _chunk({}, "stop")
_USAGE_CHUNK = _chunk({}, "stop", usage=_USAGE, choices=[])
_END = _frame(b"[DONE]") + b"0\r\n\r\n"


class Upstream:
    """The state that all connections share: the counts that the bench compares with its own, and who is held."""

    def __init__(self) -> None:
        self.completions = 0
        self.streams = 0
        self.held: set[UpstreamConnection] = set()
        self.stepping: dict[bytes, UpstreamConnection] = {}

    def stats(self) -> bytes:
        counts = {"completions": self.completions, "streams": self.streams, "held": len(self.held)}
        return _answer(json.dumps(counts).encode())

    def release(self) -> None:
        held, self.held = self.held, set()
        for connection in held:
            connection.resume()

    def step(self, numbers: bytes) -> None:
        for start in range(0, len(numbers), NUMBER_LENGTH):
            connection = self.stepping.get(numbers[start : start + NUMBER_LENGTH])
            if connection is not None:
                connection.send()


class UpstreamConnection(asyncio.Protocol):
    """One keep-alive connection of the gateway, or of the load generator that calls the upstream directly."""

    transport: asyncio.Transport

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.loop = asyncio.get_running_loop()
        self.buffer = bytearray()
        self.is_for_steps = False
        self.is_streaming = False
        self.is_paused = False
        self.left = 0
        self.mode = b""
        self.number = b""
        self.text = _TEXT
        self.usage_wanted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not an isinstance: uvloop's transports inherit from nothing.
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_streaming = False
        self.upstream.held.discard(self)
        self.upstream.stepping.pop(self.number, None)

    def pause_writing(self) -> None:
        self.is_paused = True

    def resume_writing(self) -> None:
        self.is_paused = False
        if self.is_streaming and not self.mode:
            self.resume()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if self.is_for_steps:
            whole = len(self.buffer) // NUMBER_LENGTH * NUMBER_LENGTH
            self.upstream.step(bytes(self.buffer[:whole]))
            del self.buffer[:whole]
            return
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self.buffer, 0, end)
            total = end + 4 + (int(length[1]) if length else 0)
            if len(self.buffer) < total:
                return
            request = bytes(self.buffer[:total])
            del self.buffer[:total]
            self.answer(request, request[end + 4 :])

    def answer(self, request: bytes, body: bytes) -> None:
        if request.startswith(b"GET /stats "):
            self.transport.write(self.upstream.stats())
        elif request.startswith(b"POST /release "):
            self.upstream.release()
            self.transport.write(self.upstream.stats())
        elif request.startswith(b"POST /steps "):
            self.is_for_steps = True
            self.transport.write(self.upstream.stats())
        elif not request.startswith(b"POST /v1/chat/completions "):
            self.transport.write(_answer(b'{"error": {"message": "no such path"}}', b"404 Not Found"))
        elif _STREAM.search(body):
            self.begin_stream(body)
        else:
            self.upstream.completions += 1
            self.transport.write(_COMPLETION)

    def begin_stream(self, body: bytes) -> None:
        self.upstream.streams += 1
        chunks, self.mode = (_STEERING.findall(body) or [(b"10", b"")])[-1]
        self.left = int(chunks)
        self.usage_wanted = _USAGE_WANTED.search(body) is not None
        self.is_streaming = True
        if self.mode == b"step":
            self.number = b"%0*d" % (NUMBER_LENGTH, self.upstream.streams % 10**NUMBER_LENGTH)
            self.text = _chunk({"content": WORD + self.number.decode()})
            self.upstream.stepping[self.number] = self
        else:
            self.text = _TEXT
        self.transport.write(_STREAM_HEAD + _ROLE)
        self.resume()

    def resume(self) -> None:
        """Come back in another turn of the loop, after which the transport has sent what it was given."""
        self.loop.call_soon(self.send)

    def send(self) -> None:
        """Send the next chunk, or the end, and arrange for the one after it."""
        if not self.is_streaming:
            return
        if self.left == 0:
            self.is_streaming = False
            self.upstream.stepping.pop(self.number, None)
            self.transport.write(_STOP + (_USAGE_CHUNK if self.usage_wanted else b"") + _END)
            return
        self.left -= 1
        self.transport.write(self.text)
        if self.mode == b"hold":
            self.mode = b""
            self.upstream.held.add(self)
        elif not self.mode and not self.is_paused:
            self.resume()


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    upstream = Upstream()
    server = await loop.create_server(lambda: UpstreamConnection(upstream), "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), lambda: sys.stdin.buffer.read1() or ended.set())
    await ended.wait()


if __name__ == "__main__":
    uvloop.run(_serve())
