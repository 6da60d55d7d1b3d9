"""One request of a connection and the response to it, as ASGI has them: how both are framed in HTTP/1.1."""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from apikeys.errors import ApiError, InternalError
from apikeys.hot_path.trace import Trace
from fastgpt_site.http.asgi_types import Message, Scope
from fastgpt_site.http.heads import Head
from fastgpt_site.http.open_connections import open_connections

if TYPE_CHECKING:
    from fastgpt_site.http.connection import Connection

logger = logging.getLogger(__name__)

STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus if status >= 200
}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
WITHOUT_BODY = (204, 304)
# The length of a body that ends with its connection.
UNKNOWN = float("inf")


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
        # The response: `is_begun` when its head was given, `is_answered` when all of it was written.
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
            self.connection.refuse(InternalError(trace.request_id), trace)
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
        if self.expects_continue and not (self.is_begun or self.is_gone or self.pieces):
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
            self.keeps_alive, self.missing_bytes = False, UNKNOWN
        if self.connection.body is not None:
            # The rest of the request is not waited for.
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
            if self.missing_bytes < 0 or (is_last and 0 < self.missing_bytes < UNKNOWN):
                raise ValueError("the body is not as long as its Content-Length says")
            framed = self.held_head + piece
            self.held_head = b""
        if framed:
            self.connection.transport.write(framed)
        self.is_answered = is_last
