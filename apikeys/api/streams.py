"""Streamed responses, which the ASGI entry point sends instead of Django: it adds keep-alives and ends stalled ones."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from django.http.response import HttpResponseBase


class EventStream(HttpResponseBase):
    """Server-sent events. `source` yields whole events as bytes; closing it ends whatever produces them.

    `first` was yielded by the source already: a source that was started runs its own clean-up when closed.
    """

    streaming = True
    comment = b": \n\n"
    silence_seconds = 10.0

    def __init__(self, first: bytes, source: AsyncGenerator[bytes, None]) -> None:
        super().__init__(content_type="text/event-stream;charset=utf-8")
        self["Cache-Control"] = "no-cache, no-transform"
        self["X-Accel-Buffering"] = "no"
        self._first = first
        self._source = source

    @asynccontextmanager
    async def pieces(self) -> AsyncIterator[AsyncIterator[bytes]]:
        async with aclosing(self._source):
            yield self._all()

    async def _all(self) -> AsyncIterator[bytes]:
        yield self._first
        async for piece in self._source:
            yield piece
