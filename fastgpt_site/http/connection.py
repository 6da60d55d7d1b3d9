"""One client's connection: requests one after another, each handed to the application as ASGI has it.

The server's own part of what a client may cost: heads, trailers and what is sent ahead are bounded in bytes, silence
and slow readers in time, and connections in number. What is refused here has the contract's shape.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from django.conf import settings

from apikeys.errors import (
    ApiError,
    HeadTooLarge,
    HeadTooSlow,
    InternalError,
    TooManyConnections,
)
from apikeys.hot_path.trace import Trace
from fastgpt_site.http import access_log, heads
from fastgpt_site.http.asgi_types import Message, Scope
from fastgpt_site.http.bodies import ChunkedBody, SizedBody
from fastgpt_site.http.heads import MAX_HEAD_BYTES, Head
from fastgpt_site.http.open_connections import Room, open_connections
from fastgpt_site.observability import metrics

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

logger = logging.getLogger(__name__)

# So much of a body is kept for a view that has not asked for it yet, and of the next request while one is answered.
READ_AHEAD_BYTES = 64 * 1024
# A client that was refused while it was still sending gets so long to read why, and may send so much meanwhile.
LINGER_SECONDS = 5.0
LINGER_BYTES = 16 * 1024 * 1024
# Where connections are many, so long.
SHORT_LINGER_SECONDS = 1.0
RESET = struct.pack("ii", 1, 0)
NEVER = float("inf")
STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus if status >= 200
}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
WITHOUT_BODY = (204, 304)


class Connection(asyncio.Protocol):
    """The protocol that uvicorn makes for each connection. Times are those of the event loop."""

    transport: asyncio.Transport

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any = None) -> None:
        self.loop: asyncio.AbstractEventLoop = _loop or asyncio.get_running_loop()
        self.app: Any = config.loaded_app
        self.server_state = server_state
        self.client: tuple[str, int] | None = None
        self.server: tuple[str, int] | None = None
        self.buffer = bytearray()
        # The end of a head was searched for up to here.
        self.searched = 0
        # What is still to come of the body.
        self.body: SizedBody | ChunkedBody | None = None
        self.exchange: Exchange | None = None
        self.is_writable = asyncio.Event()
        self.is_writable.set()
        # Nothing that comes is read any more.
        self.is_ending = False
        self.lingering_bytes = 0
        self.read_deadline = NEVER
        self.write_deadline = NEVER
        self.is_of_proxy = True
        # What it is counted by among the open connections. Those of a proxy are not: their requests are.
        self.holder: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        # A connection over a unix socket has no peer.
        peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        self.client = (str(peer[0]), int(peer[1])) if isinstance(peer, tuple | list) else None
        self.server = (str(own[0]), int(own[1])) if isinstance(own, tuple | list) else None
        self.server_state.connections.add(self)  # type: ignore[arg-type]
        self.read_deadline = self.loop.time() + settings.HEAD_SECONDS
        match open_connections.enter(self):
            case Room.NONE:
                self.refuse(TooManyConnections())
                self.read_deadline = self.loop.time() + SHORT_LINGER_SECONDS
            case Room.NOT_EVEN_FOR_AN_ANSWER:
                self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self.server_state.connections.discard(self)
        open_connections.leave(self)
        self.buffer.clear()
        self.is_writable.set()
        if self.exchange is not None:
            self.exchange.disconnect()

    def pause_writing(self) -> None:
        self.is_writable.clear()
        self.write_deadline = self.loop.time() + settings.STREAM_STALL_SECONDS

    def resume_writing(self) -> None:
        self.is_writable.set()
        self.write_deadline = NEVER

    def shutdown(self) -> None:
        """End it, or let it end with the answer that is under way: the server stops."""
        if self.exchange is None:
            self.close()
        else:
            self.exchange.keeps_alive = False

    def abort(self) -> None:
        """End it now. The system forgets what the client has not taken, where it would hold it for minutes."""
        with contextlib.suppress(OSError):
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.transport.abort()

    def close(self) -> None:
        """End it when everything that was written has been taken; a reader that takes nothing is not waited for."""
        self.is_ending = True
        self.read_deadline = NEVER
        self.write_deadline = self.loop.time() + settings.STREAM_STALL_SECONDS
        self.transport.close()

    def check_deadlines(self, now: float) -> None:
        if now >= self.write_deadline:
            self.abort()
        elif now >= self.read_deadline:
            self.read_deadline = NEVER
            if self.is_ending:
                self.close()
            elif self.buffer:
                self.refuse(HeadTooSlow())
            else:
                self.close()

    def data_received(self, data: bytes) -> None:
        if self.is_ending:
            self.lingering_bytes += len(data)
            if self.lingering_bytes > LINGER_BYTES:
                self.abort()
            return
        if not self.buffer and self.exchange is None:
            self.read_deadline = min(self.read_deadline, self.loop.time() + settings.HEAD_SECONDS)
        self.buffer += data
        self.read_on()

    def read_on(self) -> None:
        """Read what may be read of what has come: a body, and the next head only when the last answer was sent."""
        try:
            while self.buffer and not self.is_ending:
                if self.body is not None:
                    if not self._read_body(self.body):
                        break
                elif self.exchange is not None or not self._read_head():
                    break
        except ApiError as error:
            self.refuse(error)
        is_too_far = self.exchange is not None and (
            len(self.buffer) > READ_AHEAD_BYTES or self.exchange.unread_bytes > READ_AHEAD_BYTES
        )
        if is_too_far:
            self.transport.pause_reading()
        elif not self.transport.is_closing():
            self.transport.resume_reading()

    def _read_head(self) -> bool:
        """Begin a request if its whole head has come. Raise MalformedRequest or HeadTooLarge."""
        buffer = self.buffer
        while buffer.startswith(b"\r\n"):
            # Some clients send an empty line behind a body (RFC 9112 2.2).
            del buffer[:2]
            self.searched = 0
        end = buffer.find(heads.END, self.searched)
        length = len(buffer) if end < 0 else end + len(heads.END)
        if length > MAX_HEAD_BYTES:
            raise HeadTooLarge
        if end < 0:
            self.searched = max(length - len(heads.END) + 1, 0)
            return False
        data = bytes(buffer[:length])
        del buffer[:length]
        self.searched = 0
        self._begin(heads.parse(data))
        return True

    def _begin(self, head: Head) -> None:
        self.read_deadline = NEVER
        if head.is_forwarded and not self.is_of_proxy:
            open_connections.warn_of_unknown_proxy(self)
        self.exchange = exchange = Exchange(self, head)
        if head.body_length is None:
            self.body = ChunkedBody()
        elif head.body_length:
            self.body = SizedBody(head.body_length)
        else:
            exchange.has_whole_body = True
        task = self.loop.create_task(exchange.run(self.app))
        self.server_state.tasks.add(task)
        task.add_done_callback(self.server_state.tasks.discard)

    def _read_body(self, body: SizedBody | ChunkedBody) -> bool:
        piece = body.take(self.buffer)
        if body.is_complete:
            self.body = None
        if self.exchange is not None:
            self.exchange.receive_body(piece, is_complete=body.is_complete)
        return body.is_complete

    def end_exchange(self, exchange: Exchange) -> None:
        """Go on with the next request: the answer to this one was written, or will never be."""
        if self.exchange is not exchange:
            return
        self.exchange = None
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if not exchange.is_answered:
            self.abort()
        elif self.body is not None:
            self.close_politely()
        elif not exchange.keeps_alive:
            self.close()
        else:
            seconds = settings.HEAD_SECONDS if self.buffer else settings.KEEP_ALIVE_SECONDS
            self.read_deadline = self.loop.time() + seconds
            self.read_on()

    def refuse(self, error: ApiError) -> None:
        """Answer a request that could not be read, and end the connection."""
        trace = Trace()
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.disconnect()
        if self.transport.is_closing():
            return
        if exchange is None or not exchange.is_begun:
            content = error.json()
            headers = {
                **error.headers(),
                "Content-Type": "application/json",
                "Content-Length": str(len(content)),
                "X-Request-Id": trace.request_id,
                "Connection": "close",
            }
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            self.transport.write(STATUS_LINES[error.status] + lines.encode("latin1") + b"\r\n" + content)
            trace.error_code = error.error_code
            access_log.write_refused_connection(trace, error.status, self.client)
            metrics.REFUSALS.labels(error.error_code).inc()
        self.close_politely()

    def close_politely(self) -> None:
        """End our side, and read on for a moment: whoever still sends would lose the answer with the connection."""
        self.is_ending = True
        self.body = None
        self.buffer.clear()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.transport.resume_reading()
        self.read_deadline = self.loop.time() + LINGER_SECONDS


class Exchange:
    """One request and its response, as ASGI has them."""

    def __init__(self, connection: Connection, head: Head) -> None:
        self.connection = connection
        self.keeps_alive = head.keeps_alive
        self.has_no_body = head.method == "HEAD"
        self.expects_continue = head.expects_continue
        self.pieces: list[bytes] = []
        self.unread_bytes = 0
        self.has_whole_body = False
        self.is_body_told = False
        self.is_gone = False
        self.news = asyncio.Event()
        # Of the response: its head was given, and all of it was written.
        self.is_begun = False
        self.is_answered = False
        self.is_chunked = False
        self.held_head = b""
        self.missing_bytes: float = 0
        self.scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": head.version,
            "method": head.method,
            "scheme": "http",
            "path": head.path,
            "raw_path": head.raw_path,
            "query_string": head.query,
            "root_path": "",
            "headers": head.headers,
            "client": connection.client,
            "server": connection.server,
            # ASGI has no message for it.
            "abort": connection.abort,
        }

    async def run(self, app: Any) -> None:
        try:
            with open_connections.request_of(self.connection, self.scope):
                await app(self.scope, self.receive, self.send)
        except ApiError as error:
            self.connection.refuse(error)
        except asyncio.CancelledError:
            # The server stops, or the client went.
            self.connection.abort()
            raise
        except Exception:
            logger.exception("a request failed outside of every view")
            trace = self.scope.get("trace") or Trace()
            self.connection.refuse(InternalError(trace.request_id))
        finally:
            self.connection.end_exchange(self)

    def receive_body(self, piece: bytes, *, is_complete: bool) -> None:
        if piece:
            self.pieces.append(piece)
            self.unread_bytes += len(piece)
        self.has_whole_body = is_complete
        self.news.set()

    def disconnect(self) -> None:
        self.is_gone = True
        self.pieces.clear()
        self.news.set()

    async def receive(self) -> Message:
        if self.expects_continue and not self.is_begun and not self.pieces:
            self.expects_continue = False
            self.connection.transport.write(CONTINUE)
        while not (self.is_gone or self.is_answered):
            if self.pieces or (self.has_whole_body and not self.is_body_told):
                body = b"".join(self.pieces)
                self.pieces.clear()
                self.unread_bytes = 0
                self.is_body_told = self.has_whole_body
                if not self.has_whole_body:
                    self.connection.read_on()
                return {"type": "http.request", "body": body, "more_body": not self.has_whole_body}
            self.news.clear()
            await self.news.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Write a part of the response. Wait first while the client has not taken what was written before."""
        connection = self.connection
        if not connection.is_writable.is_set():
            await connection.is_writable.wait()
        if self.is_gone:
            return
        if message["type"] == "http.response.start":
            self._begin(message["status"], message["headers"])
        elif not self.is_answered:
            self._write_body(message.get("body", b""), is_last=not message.get("more_body", False))

    def _begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.is_begun = True
        parts = [STATUS_LINES[status]]
        has_length = False
        for name, value in self.connection.server_state.default_headers:
            parts += (name, b": ", value, b"\r\n")
        for name, value in headers:
            if b"\r" in value or b"\n" in value or b"\0" in value:
                raise ValueError(f"the value of the header {name!r} has a line break")
            if name.lower() == b"content-length":
                has_length = True
                self.missing_bytes = int(value)
            parts += (name, b": ", value, b"\r\n")
        self.has_no_body = self.has_no_body or status in WITHOUT_BODY
        if self.has_no_body:
            self.missing_bytes = 0
        elif not has_length and self.scope["http_version"] == "1.1":
            self.is_chunked = True
            parts.append(b"transfer-encoding: chunked\r\n")
        elif not has_length:
            # The end of the connection is the end of the body.
            self.keeps_alive, self.missing_bytes = False, NEVER
        if self.connection.body is not None:
            # What is still to come of the request is not waited for.
            self.keeps_alive = False
        if not self.keeps_alive:
            parts.append(b"connection: close\r\n")
        parts.append(b"\r\n")
        head = b"".join(parts)
        if has_length or self.has_no_body:
            # The body follows at once: both are one write.
            self.held_head = head
        else:
            self.connection.transport.write(head)

    def _write_body(self, piece: bytes, *, is_last: bool) -> None:
        if self.has_no_body:
            piece = b""
        if self.is_chunked:
            framed = b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""
            if is_last:
                framed += b"0\r\n\r\n"
        else:
            self.missing_bytes -= len(piece)
            if self.missing_bytes < 0 or (is_last and 0 < self.missing_bytes < NEVER):
                raise ValueError("the body is not as long as its Content-Length says")
            framed = self.held_head + piece
            self.held_head = b""
        if framed:
            self.connection.transport.write(framed)
        self.is_answered = is_last
