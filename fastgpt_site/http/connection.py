"""One client's connection: requests one after another, each handed to the application.

The server's own part of what a client may cost: heads, trailers and what is sent ahead are bounded in bytes, silence
and slow readers in time, and connections in number. What is refused here has the contract's shape.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import TYPE_CHECKING, Any

from django.conf import settings

from apikeys.client_address import client_address
from apikeys.errors import ApiError, HeadTooLarge, HeadTooSlow, TooManyConnections
from apikeys.hot_path.trace import Trace
from apikeys.outbound.outbox import Outbox
from fastgpt_site.http import access_log, heads
from fastgpt_site.http.bodies import ChunkedBody, SizedBody
from fastgpt_site.http.exchange import STATUS_LINES, Exchange
from fastgpt_site.http.heads import MAX_HEAD_BYTES, Head
from fastgpt_site.http.open_connections import Room, open_connections
from fastgpt_site.observability import metrics

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

# Django looks a setting up each time, and every request needs these several times.
HEAD_SECONDS: int = settings.HEAD_SECONDS
KEEP_ALIVE_SECONDS: int = settings.KEEP_ALIVE_SECONDS
STREAM_STALL_SECONDS: int = settings.STREAM_STALL_SECONDS
# So much of a body is kept for a view that has not asked for it yet, and of the next request while one is answered.
READ_AHEAD_BYTES = 64 * 1024
# A client that was refused while it was still sending gets so long to read why, and may send so much meanwhile.
LINGER_SECONDS = 5.0
LINGER_BYTES = 32 * 1024 * 1024
# Where connections are many, so long.
SHORT_LINGER_SECONDS = 1.0
RESET = struct.pack("ii", 1, 0)
NEVER = float("inf")
# A server process has one event loop.
_outbox = Outbox()
# What the server's list of default headers was last, and its lines.
_default_headers: tuple[list[tuple[bytes, bytes]], bytes] = ([], b"")


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
        # Reads the body that is still arriving; None when all of it is here.
        self.body: SizedBody | ChunkedBody | None = None
        self.exchange: Exchange | None = None
        # The client has taken what was written before, as far as this process can tell.
        self.is_writable = True
        self._writer: asyncio.Future[None] | None = None
        # Nothing that comes is read any more.
        self.is_ending = False
        # More has come than may wait here, so nothing is read, and the end of the connection is not noticed either.
        self.is_held_back = False
        self.lingering_bytes = 0
        self.read_deadline = NEVER
        self.write_deadline = NEVER
        self.is_of_proxy = True
        # Its peer's address; None where it has none.
        self.peer: str | None = None
        # The address that it is counted by. Connections of a proxy are not counted: their requests are.
        self.holder: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        # A connection over a unix socket has no peer.
        peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        self.client = (str(peer[0]), int(peer[1])) if isinstance(peer, tuple | list) else None
        self.server = (str(own[0]), int(own[1])) if isinstance(own, tuple | list) else None
        self.server_state.connections.add(self)  # type: ignore[arg-type]
        self.read_deadline = self.loop.time() + HEAD_SECONDS
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
        self._let_write()
        if self.exchange is not None:
            self.exchange.disconnect()

    def pause_writing(self) -> None:
        self.is_writable = False
        self.write_deadline = self.loop.time() + STREAM_STALL_SECONDS

    def resume_writing(self) -> None:
        self._let_write()
        self.write_deadline = NEVER

    def write(self, data: bytes) -> None:
        _outbox.write(self.transport, data)

    async def wait_until_writable(self) -> None:
        while not self.is_writable:
            self._writer = self.loop.create_future()
            await self._writer

    def _let_write(self) -> None:
        self.is_writable = True
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    def shutdown(self) -> None:
        """End it, or let it end with the answer that is under way: the server stops."""
        if self.exchange is None:
            self.close()
        else:
            self.exchange.keeps_alive = False

    def abort(self) -> None:
        """End it now. The system forgets what the client has not taken, where it would hold it for minutes."""
        own_socket = self.transport.get_extra_info("socket")
        # A connection that has ended has none.
        if own_socket is not None:
            with contextlib.suppress(OSError):
                own_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        _outbox.drop(self.transport)
        self.transport.abort()

    def close(self) -> None:
        """End it when everything that was written has been taken; a reader that takes nothing is not waited for."""
        self.is_ending = True
        self.read_deadline = NEVER
        self.write_deadline = self.loop.time() + STREAM_STALL_SECONDS
        _outbox.send(self.transport)
        self.transport.close()

    def client_address_of(self, head: Head) -> str | None:
        if not (self.is_of_proxy and head.forwarded_for):
            return self.peer
        address = client_address(self.peer, head.forwarded_for)
        return None if address is None else str(address)

    def default_headers(self) -> bytes:
        """Return the lines that every response has, which the server makes anew each second."""
        global _default_headers
        current, lines = _default_headers
        if current is not self.server_state.default_headers:
            current = self.server_state.default_headers
            lines = b"".join(b"%b: %b\r\n" % header for header in current)
            _default_headers = current, lines
        return lines

    def check_deadlines(self, now: float) -> None:
        if self.exchange is not None and self.exchange.on_second is not None:
            self.exchange.on_second(now)
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
            self.read_deadline = min(self.read_deadline, self.loop.time() + HEAD_SECONDS)
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
        if self.exchange is not None and not self.exchange.is_started:
            self.exchange.start(self.app)
        was_held_back = self.is_held_back
        self.is_held_back = self.exchange is not None and (
            len(self.buffer) > READ_AHEAD_BYTES or self.exchange.unread_bytes > READ_AHEAD_BYTES
        )
        if self.is_held_back:
            self.transport.pause_reading()
        elif was_held_back and not self.transport.is_closing():
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
        if head.forwarded_for and not self.is_of_proxy:
            open_connections.warn_of_unknown_proxy(self)
        self.exchange = Exchange(self, head)
        if head.body_length is None:
            self.body = ChunkedBody()
        elif head.body_length:
            self.body = SizedBody(head.body_length)

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
            seconds = HEAD_SECONDS if self.buffer else KEEP_ALIVE_SECONDS
            self.read_deadline = self.loop.time() + seconds
            if self.buffer or self.is_held_back:
                self.read_on()

    def refuse(self, error: ApiError, trace: Trace | None = None) -> None:
        """Answer a request that could not be read, or in the place of the application, and end the connection."""
        trace = trace or Trace()
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
            self.write(STATUS_LINES[error.status] + lines.encode("latin1") + b"\r\n" + content)
            trace.error_code = error.error_code
            access_log.write_refused_connection(trace, error.status, self.client)
            metrics.count_refusal(error.error_code)
        self.close_politely()

    def close_politely(self) -> None:
        """End our side, and read on for a moment: whoever still sends would lose the answer with the connection."""
        self.is_ending = True
        self.body = None
        self.buffer.clear()
        _outbox.send(self.transport)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.transport.resume_reading()
        self.read_deadline = self.loop.time() + LINGER_SECONDS
