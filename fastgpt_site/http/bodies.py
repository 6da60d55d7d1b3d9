"""Where the body of a request ends, and what of the bytes that came belongs to it."""

from __future__ import annotations

import re

from apikeys.errors import MalformedRequest
from fastgpt_site.http.heads import MAX_HEAD_BYTES

SIZE = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;[^\r\n\0]*)?")
TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\r\n\0]*")


class SizedBody:
    """A body whose length the head told."""

    __slots__ = ("left",)

    def __init__(self, length: int) -> None:
        self.left = length

    @property
    def is_complete(self) -> bool:
        return self.left == 0

    def take(self, buffer: bytearray) -> bytes:
        """Return what has come of the body, and remove it from the buffer."""
        if len(buffer) <= self.left:
            piece = bytes(buffer)
            buffer.clear()
        else:
            piece = bytes(buffer[: self.left])
            del buffer[: self.left]
        self.left -= len(piece)
        return piece


class ChunkedBody:
    """A body in chunks (RFC 9112 7.1). What is said beside it, in extensions and trailers, is dropped.

    No more of that than of a head is taken between two pieces of the body: somebody who sends without end is refused.
    """

    __slots__ = ("beside", "is_complete", "is_in_trailers", "left", "searched")

    def __init__(self) -> None:
        self.is_complete = False
        self.is_in_trailers = False
        # Bytes of the chunk at hand; 0 when only its end of line is to come; None where a line is next.
        self.left: int | None = None
        self.beside = 0
        self.searched = 0

    def take(self, buffer: bytearray) -> bytes:
        """Return what has come of the body, and remove it from the buffer. Raise MalformedRequest."""
        pieces = []
        position = 0
        while not self.is_complete:
            if self.left is None:
                line = self._line(buffer, position)
                if line is None:
                    break
                position += len(line) + 2
                self._read_line(line)
            elif self.left > 0:
                piece = bytes(buffer[position : position + self.left])
                if not piece:
                    break
                pieces.append(piece)
                position += len(piece)
                self.left -= len(piece)
                self.beside = 0
            else:
                end = buffer[position : position + 2]
                if not b"\r\n".startswith(end):
                    raise MalformedRequest("A chunk of the body is longer than it says.")
                if len(end) < 2:
                    break
                position += 2
                self.left = None
        del buffer[:position]
        self.searched = max(self.searched - position, 0)
        return b"".join(pieces)

    def _line(self, buffer: bytearray, position: int) -> bytes | None:
        """Return the next line without its end, or None until all of it has come."""
        end = buffer.find(b"\r\n", max(position, self.searched))
        length = (len(buffer) if end < 0 else end) - position
        if self.beside + length > MAX_HEAD_BYTES:
            raise MalformedRequest("The body's chunk extensions or trailer fields are too long.")
        if end < 0:
            # The last byte may be half of an end.
            self.searched = max(len(buffer) - 1, 0)
            return None
        self.beside += length + 2
        self.searched = 0
        return bytes(buffer[position:end])

    def _read_line(self, line: bytes) -> None:
        if self.is_in_trailers:
            if not line:
                self.is_complete = True
            elif not TRAILER.fullmatch(line):
                raise MalformedRequest("A trailer field of the body is malformed.")
            return
        size = SIZE.fullmatch(line)
        if size is None:
            raise MalformedRequest("The size of a chunk of the body is malformed.")
        length = int(size[1], 16)
        if length:
            self.left = length
        else:
            self.is_in_trailers = True
