"""What a view of the hot path returns: a whole answer, or a stream."""

from collections.abc import AsyncGenerator, Sequence
from typing import ClassVar, NamedTuple

JSON = ((b"content-type", b"application/json"),)


class Answer(NamedTuple):
    """A whole answer; JSON with the status 200 unless it says otherwise. Names of headers are in lower case."""

    content: bytes
    status: int = 200
    headers: Sequence[tuple[bytes, bytes]] = JSON


class EventStream:
    """Server-sent events. `source` yields whole events as bytes; closing it ends whatever produces them.

    `first` was yielded by the source already: a source that was started runs its own clean-up when closed. The HTTP
    layer adds comments where nothing comes for long, and ends readers that stall.
    """

    HEADERS: ClassVar = (
        (b"content-type", b"text/event-stream;charset=utf-8"),
        (b"cache-control", b"no-cache, no-transform"),
        (b"x-accel-buffering", b"no"),
    )

    COMMENT: ClassVar = b": \n\n"

    __slots__ = ("first", "source")

    def __init__(self, first: bytes, source: AsyncGenerator[bytes, None]) -> None:
        self.first = first
        self.source = source
