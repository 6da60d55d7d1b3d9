"""One request of a connection and the response to it: how both are framed in HTTP/1.1."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

from apikeys.errors import ApiError, InternalError
from apikeys.hot_path.trace import NO_READER, Trace
from fastgpt_site.http.asgi_types import Scope
from fastgpt_site.http.heads import Head
from fastgpt_site.http.open_connections import open_connections

if TYPE_CHECKING:
    from fastgpt_site.http.application import Application, Call
    from fastgpt_site.http.connection import Connection

logger = logging.getLogger(__name__)

Headers = Sequence[tuple[bytes, bytes]]

STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus if status >= 200
}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
WITHOUT_BODY = (204, 304)
# The length of a body that ends with its connection.
UNKNOWN = float("inf")


class ClientGone(Exception):
    """The client closed the connection before its body was read."""


class Exchange:
    """One request and its response. Times are those of the event loop."""

    __slots__ = (
        "_held_head",
        "_is_chunked",
        "_missing_bytes",
        "_news",
        "_pieces",
        "connection",
        "expects_continue",
        "has_no_body",
        "has_whole_body",
        "head",
        "is_answered",
        "is_begun",
        "is_gone",
        "is_started",
        "keeps_alive",
        "on_gone",
        "on_second",
        "trace",
        "unread_bytes",
    )

    def __init__(self, connection: Connection, head: Head) -> None:
        self.connection = connection
        self.head = head
        self.is_started = False
        self.trace = Trace(connection.client_address_of(head))
        self.trace.reader = self
        self.keeps_alive = head.keeps_alive
        self.has_no_body = head.method == "HEAD"
        self.expects_continue = head.expects_continue
        self.has_whole_body = head.body_length == 0
        self.unread_bytes = 0
        self._pieces: list[bytes] = []
        self._news: asyncio.Future[None] | None = None
        self.is_gone = False
        # Called when the client goes away, and about once a second with the time while the exchange lasts.
        self.on_gone: Callable[[], object] | None = None
        self.on_second: Callable[[float], None] | None = None
        # The response: `is_begun` when its head was given, `is_answered` when all of it was written.
        self.is_begun = False
        self.is_answered = False
        self._is_chunked = False
        self._held_head = b""
        self._missing_bytes: float = 0

    def start(self, app: Application) -> None:
        """Let the application answer, in a task unless it has done so at once."""
        connection = self.connection
        self.is_started = True
        try:
            call = app.start(self)
        except Exception:
            logger.exception("a request failed outside of every view")
            self._fail()
            call = None
        if call is None:
            self._end()
        else:
            connection.server_state.tasks.add(connection.loop.create_task(self.run(app, call)))

    async def run(self, app: Application, call: Call) -> None:
        connection = self.connection
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - it runs this
        holder: str | None = None
        try:
            if connection.is_of_proxy:
                holder = open_connections.begin_request(connection, self.head.forwarded_for)
            await app.serve(call, task)
        except ApiError as error:
            connection.refuse(error)
        except asyncio.CancelledError:
            # The server stops, or the client went.
            connection.abort()
            raise
        except Exception:
            logger.exception("a request failed outside of every view")
            self._fail()
        finally:
            if holder is not None:
                open_connections.end_request(holder)
            connection.server_state.tasks.discard(task)
            self._end()

    def _fail(self) -> None:
        self.connection.refuse(InternalError(self.trace.request_id), self.trace)

    def _end(self) -> None:
        # They refer to each other.
        self.trace.reader = NO_READER
        self.connection.end_exchange(self)

    @property
    def can_be_answered_at_once(self) -> bool:
        """Return whether the client has taken what was sent before, and sent nothing behind this that waits for it."""
        return self.connection.is_writable and not self.connection.buffer

    @property
    def scope(self) -> Scope:
        """Return the request as ASGI has it, for Django's handler."""
        head, connection = self.head, self.connection
        return {
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
            "trace": self.trace,
        }

    def receive_body(self, piece: bytes, *, is_complete: bool) -> None:
        if piece:
            self._pieces.append(piece)
            self.unread_bytes += len(piece)
        self.has_whole_body = is_complete
        self._wake()

    def disconnect(self) -> None:
        self.is_gone = True
        self._pieces.clear()
        self._wake()
        if self.on_gone is not None:
            self.on_gone()

    @property
    def is_behind(self) -> bool:
        return not self.connection.is_writable

    def abort(self) -> None:
        """Drop the client, whatever it has not taken yet."""
        self.is_gone = True
        self.connection.abort()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def read_piece(self) -> tuple[bytes, bool]:
        """Return what has come of the body, and whether more is to come. Raise ClientGone."""
        if self.expects_continue and not (self.is_gone or self._pieces):
            self.expects_continue = False
            self.connection.write(CONTINUE)
        while not (self._pieces or self.has_whole_body or self.is_gone):
            self._news = self.connection.loop.create_future()
            await self._news
        if self.is_gone:
            raise ClientGone
        return self.take_body(), not self.has_whole_body

    def take_body(self) -> bytes:
        """Return what has come of the body, and let more of it come."""
        pieces = self._pieces
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.unread_bytes = 0
        if self.connection.is_held_back or not self.has_whole_body:
            self.connection.read_on()
        return piece

    def answer(self, status: int, headers: Headers, content: bytes) -> None:
        """Write a whole response. Its headers say nothing of its length."""
        self.begin(status, (*headers, (b"content-length", b"%d" % len(content))), len(content))
        self.write(content, is_last=True)

    def begin(self, status: int, headers: Headers, length: int | None = None) -> None:
        """Give the head of the response, which is written with the first piece of its body.

        `length` is what Content-Length says, if there is one.
        """
        if self.is_gone:
            return
        if self.is_begun:
            raise RuntimeError("the response has begun already")
        connection = self.connection
        lines = b"".join([b"%b: %b\r\n" % header for header in headers])
        if lines.count(b"\r") != len(headers) or lines.count(b"\n") != len(headers) or b"\0" in lines:
            raise ValueError("a header has a line break in it")
        parts = [STATUS_LINES[status], connection.default_headers(), lines]
        self.has_no_body = self.has_no_body or status in WITHOUT_BODY
        if self.has_no_body:
            self._missing_bytes = 0
        elif length is not None:
            self._missing_bytes = length
        elif self.head.version == "1.1":
            self._is_chunked = True
            parts.append(b"transfer-encoding: chunked\r\n")
        else:
            # The end of the connection is the end of the body.
            self.keeps_alive, self._missing_bytes = False, UNKNOWN
        if connection.body is not None:
            # The rest of the request is not waited for.
            self.keeps_alive = False
        if not self.keeps_alive:
            parts.append(b"connection: close\r\n")
        parts.append(b"\r\n")
        self._held_head = b"".join(parts)
        self.is_begun = True

    def write(self, piece: bytes, *, is_last: bool = False) -> None:
        """Write a piece of the body. Nothing is written once the client is gone, or the last piece was."""
        if self.is_gone or self.is_answered:
            return
        if self.has_no_body:
            piece = b""
        framed = piece
        if self._is_chunked:
            framed = b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""
            if is_last:
                framed += b"0\r\n\r\n"
        else:
            self._missing_bytes -= len(piece)
            if self._missing_bytes < 0 or (is_last and 0 < self._missing_bytes < UNKNOWN):
                raise ValueError("the body is not as long as its Content-Length says")
        if self._held_head:
            framed = self._held_head + framed
            self._held_head = b""
        if framed:
            self.connection.write(framed)
        self.is_answered = is_last
