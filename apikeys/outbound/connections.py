"""One connection to a provider, and the answer that is arriving on it. llhttp reads HTTP; nothing here has a timer.

An answer is awaited in a future, whose time is the connection's `deadline`: the client looks at those of all its
connections a few times a second. So a read costs neither a task nor a timer.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httptools

from apikeys.outbound.codings import Inflater, make_inflater
from apikeys.outbound.failures import AnswerTooLong, BrokenOff, MalformedAnswer
from apikeys.outbound.targets import Origin

if TYPE_CHECKING:
    from apikeys.outbound.client import Client

# So much of an answer, and what one read of the socket brings, is held while nobody reads it.
READ_BUFFER_BYTES = 16 * 1024
# More bytes in a row that are no body have no good reason: heads, trailers, extensions of chunks.
MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 256
KEPT = frozenset((b"content-type", b"content-length", b"content-encoding", b"transfer-encoding", b"retry-after"))
# A longer body is not copied to be written together with its head.
MAX_JOINED_BYTES = 64 * 1024
BODILESS = (204, 304)
NEVER = float("inf")


class Connection(asyncio.BufferedProtocol):
    """A connection; it belongs to one response at a time, or waits for the next in the client's pool."""

    __slots__ = ("_client", "deadline", "origin", "response", "transport")

    transport: asyncio.Transport

    def __init__(self, client: Client, origin: Origin) -> None:
        self._client = client
        self.origin = origin
        self.response: Response | None = None
        # At this time of the loop the connection is given up, and whoever waits for it gets a TimeoutError.
        self.deadline = NEVER

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def get_buffer(self, sizehint: int) -> memoryview:
        # Between this and the next callback nothing else is read, so that all connections of a loop can share it.
        return self._client.buffer

    def buffer_updated(self, count: int) -> None:
        if self.response is None:
            # A server that speaks without having been asked says good-bye, or is out of step.
            self.abort()
        else:
            self.response.feed(self._client.buffer[:count])

    def eof_received(self) -> None:
        if self.response is not None:
            self.response.end_input()
        self._client.forget(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._client.remove(self)
        if self.response is not None:
            self.response.fail(BrokenOff)

    def send(self, head: bytes, body: bytes, max_bytes: int | None) -> Response:
        self.response = response = Response(self, max_bytes)
        outbox = self._client.outbox
        if len(body) > MAX_JOINED_BYTES:
            outbox.write(self.transport, head)
            outbox.send(self.transport)
            outbox.write(self.transport, body)
        else:
            outbox.write(self.transport, head + body)
        return response

    def detach(self, *, is_reusable: bool) -> None:
        """Take it from its response: for the next one, or to its end."""
        self.response = None
        # A server may have answered without having read all that was sent.
        is_sent = not (self.transport.get_write_buffer_size() or self._client.outbox.has(self.transport))
        if is_reusable and is_sent:
            self._client.put(self)
        else:
            self.abort()

    def abort(self) -> None:
        self.deadline = NEVER
        self._client.forget(self)
        self._client.outbox.drop(self.transport)
        self.transport.abort()

    def expire(self) -> None:
        if self.response is not None:
            self.response.fail(TimeoutError)
        else:
            self.close()

    def close(self) -> None:
        """End it as the other side expects, which for TLS is a message."""
        self.deadline = NEVER
        self._client.forget(self)
        self.transport.close()


class Response:
    """The answer to one request. `status` is 0 until its head is here.

    Its connection is free for others as soon as the whole answer has come; until then `release` ends it.
    """

    __slots__ = (
        *(
            "_connection",
            "_failure",
            "_fields",
            "_header_count",
            "_idle_bytes",
            "_inflater",
            "_is_begun",
            "_is_dropped",
        ),
        *("_is_keeping", "_is_paused", "_is_surplus", "_is_until_close", "_max_bytes", "_parser", "_pieces", "_size"),
        *("_waiter", "is_complete", "status"),
    )

    def __init__(self, connection: Connection, max_bytes: int | None) -> None:
        self.status = 0
        self.is_complete = False
        self._connection: Connection | None = connection
        # The whole body is waited for, and may be so long; otherwise it is read as it comes.
        self._max_bytes = max_bytes
        self._waiter: asyncio.Future[None] | None = None
        self._failure: type[Exception] | None = None
        self._fields: dict[bytes, bytes] = {}
        self._header_count = 0
        # Bytes since the last of the body.
        self._idle_bytes = 0
        self._pieces: list[bytes] = []
        self._size = 0
        self._inflater: Inflater | None = None
        # Whoever waited for the head has been told.
        self._is_begun = False
        self._is_keeping = False
        self._is_until_close = False
        self._is_surplus = False
        self._is_paused = False
        self._is_dropped = False
        # It refers to this response. `_detach` parts them.
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        # Servers with such slips are in use, and nothing can be smuggled in an answer.
        self._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True)

    @property
    def content_type(self) -> str:
        """The media type, without parameters and in lower case."""
        return self._fields.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def retry_after(self) -> str:
        return self._fields.get(b"retry-after", b"").decode("latin-1")

    async def wait_for_head(self, deadline: float) -> None:
        """Wait until the head has come, or if `max_bytes` was given and the status is 2xx, the whole answer.

        Raise CallFailed or TimeoutError, and end the connection, as all that wait do.
        """
        if not self._is_ready():
            await self._wait(deadline)
        self._is_begun = True
        if self._failure is not None and not (self.status and self._is_bounded()):
            raise self._failure

    async def read(self, maximum: int, deadline: float) -> bytes:
        """Return at most so many bytes of what has come of the body; none at its end. Raise CallFailed or TimeoutError.

        It waits until the deadline only where nothing has come.
        """
        while True:
            if self._pieces or (self._inflater is not None and self._inflater.has_more):
                data = self._take(maximum)
                if data:
                    return data
            elif self._failure is not None:
                raise self._failure
            elif self.is_complete:
                self._check_coding_complete()
                return b""
            else:
                await self._wait(deadline)

    def body(self) -> bytes:
        """Return the whole body, once it has been waited for. Raise CallFailed."""
        if not self.is_complete:
            raise self._failure or BrokenOff
        if self._inflater is None:
            return b"".join(self._pieces)
        decoded, room = [], self._max_bytes or 0
        while self._pieces or self._inflater.has_more:
            decoded.append(self._take(room + 1))
            room -= len(decoded[-1])
            if room < 0:
                raise AnswerTooLong
        self._check_coding_complete()
        return b"".join(decoded)

    def release(self) -> None:
        """Give up what has not come yet, and with it the connection."""
        if not self._is_dropped:
            self._detach(is_reusable=False)

    def drop_rest(self, deadline: float) -> None:
        """Let the connection read the rest of the answer, which nobody wants, until then, to be used again."""
        if self._connection is not None:
            self._is_dropped = True
            self._pieces.clear()
            self._size = 0
            self._connection.deadline = deadline
            self._resume()

    def fail(self, failure: type[Exception]) -> None:
        """End the connection. Whoever waits for the answer gets this exception."""
        self._failure = self._failure or failure
        self._detach(is_reusable=False)
        self._wake()

    def feed(self, data: memoryview) -> None:
        parser, connection = self._parser, self._connection
        if parser is None or connection is None:
            return
        self._idle_bytes += len(data)
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            # What follows a complete answer takes nothing from it.
            self._is_surplus = True
            if not self.is_complete:
                self._failure = self._failure or MalformedAnswer
        if self.is_complete:
            self._detach(is_reusable=self._is_keeping and not self._is_surplus)
            self._wake()
        elif self._failure is not None:
            self.fail(self._failure)
        elif self._idle_bytes > MAX_HEAD_BYTES:
            self.fail(AnswerTooLong)
        elif self._size > READ_BUFFER_BYTES and self._is_bounded():
            self._is_paused = True
            connection.transport.pause_reading()
            self._wake()
        elif self._waiter is not None and self._is_ready():
            self._wake()

    def end_input(self) -> None:
        """The server has sent all that it will."""
        if self._is_until_close and not self.is_complete:
            self.is_complete = True
            self._detach(is_reusable=False)
            self._wake()
        else:
            self.fail(BrokenOff)

    # These are llhttp's callbacks.

    def on_message_begin(self) -> None:
        self._is_surplus = self.is_complete

    def on_header(self, name: bytes, value: bytes) -> None:
        # Fields of a trailer, and of what follows the answer, come when the status is known.
        if self.status:
            return
        self._header_count += 1
        if self._header_count > MAX_HEADERS:
            self._failure = AnswerTooLong
        name = name.lower()
        if name in KEPT:
            value = value.strip()
            found = self._fields.get(name)
            self._fields[name] = value if found is None else b"%s, %s" % (found, value)

    def on_headers_complete(self) -> None:
        parser = self._parser
        if self.status or parser is None:
            return
        status = parser.get_status_code()
        if status < 200:
            # An interim answer; nobody asked to switch protocols.
            self._fields.clear()
            if status == 101:
                self._failure = MalformedAnswer
            return
        fields = self._fields
        self.status = status
        self._is_keeping = parser.should_keep_alive()
        transfer_coding = fields.get(b"transfer-encoding")
        if transfer_coding is None:
            self._is_until_close = b"content-length" not in fields and status not in BODILESS
        elif transfer_coding.lower() != b"chunked":
            self._failure = MalformedAnswer
        if b"content-encoding" in fields:
            try:
                self._inflater = make_inflater(fields[b"content-encoding"])
            except MalformedAnswer:
                # What an error says more than its status is not worth failing for.
                if self.is_success:
                    self._failure = MalformedAnswer

    def on_body(self, data: bytes) -> None:
        if self.is_complete:
            return
        self._idle_bytes = 0
        self._size += len(data)
        if not self._is_dropped:
            self._pieces.append(data)
            if self._max_bytes is not None and self._size > self._max_bytes:
                self._failure = AnswerTooLong
        elif self._size > READ_BUFFER_BYTES:
            self._failure = AnswerTooLong

    def on_message_complete(self) -> None:
        # An interim answer has no status here.
        if self.status and self._failure is None:
            self.is_complete = True

    def _is_bounded(self) -> bool:
        """Whether the body is read as it comes, and not waited for as a whole."""
        return self._max_bytes is None or not self.is_success

    def _is_ready(self) -> bool:
        """Whether whoever waits has what it waits for."""
        if self.is_complete or self._failure is not None:
            return True
        return bool(self.status) and self._is_bounded() and (bool(self._pieces) or not self._is_begun)

    async def _wait(self, deadline: float) -> None:
        connection = self._connection
        if connection is None:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        connection.deadline = deadline
        try:
            await self._waiter
        except BaseException:
            self.release()
            raise
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._connection is not None:
            self._connection.deadline = NEVER
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _take(self, maximum: int) -> bytes:
        pieces = self._pieces
        if self._inflater is not None:
            if self._inflater.has_more:
                return self._inflater.decode(b"", maximum)
            data = self._inflater.decode(b"".join(pieces), maximum)
            pieces.clear()
            self._size = 0
        else:
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if len(data) <= maximum:
                pieces.clear()
                self._size = 0
            else:
                pieces[:] = [data[maximum:]]
                data = data[:maximum]
                self._size = len(pieces[0])
        if self._is_paused and self._size <= READ_BUFFER_BYTES:
            self._resume()
        return data

    def _check_coding_complete(self) -> None:
        if self._inflater is not None and not self._inflater.is_complete:
            raise BrokenOff

    def _resume(self) -> None:
        if self._is_paused and self._connection is not None:
            self._is_paused = False
            self._connection.transport.resume_reading()

    def _detach(self, *, is_reusable: bool) -> None:
        connection, self._connection = self._connection, None
        self._parser = None
        if not self.is_complete and self._failure is None:
            self._failure = BrokenOff
        if connection is not None:
            connection.detach(is_reusable=is_reusable)
