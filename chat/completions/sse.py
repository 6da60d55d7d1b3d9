"""Server-sent events as bytes, both ways. The meaning of events is none of its business.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# More than any provider's chunk; what is longer is not an event but a fault.
MAX_EVENT_BYTES = 4 * 1024 * 1024


class EventTooLong(ValueError):
    """An event did not end within MAX_EVENT_BYTES."""


def encode(data: bytes, event: str | None = None) -> bytes:
    # `data` holds no line break (JSON escapes them).
    if event is None:
        return b"data: " + data + b"\n\n"
    return b"event: " + event.encode() + b"\ndata: " + data + b"\n\n"


class Decoder:
    """Cuts a byte stream, in whatever pieces it comes, into the data of its events."""

    def __init__(self) -> None:
        self._rest = b""
        # A byte order mark may still come.
        self._is_at_start = True
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the data of each event that `piece` completes; events without any are left out. Raise EventTooLong."""
        if self._is_at_start:
            piece = self._rest + piece
            if len(piece) < len(BYTE_ORDER_MARK) and BYTE_ORDER_MARK.startswith(piece):
                self._rest = piece
                return []
            self._rest, self._is_at_start = b"", False
            piece = piece.removeprefix(BYTE_ORDER_MARK)
        if not self._rest and not self._data and _is_one_event(piece):
            return [piece[6:-2]]
        lines = (self._rest + piece).splitlines(keepends=True) if b"\r" in piece or b"\r" in self._rest else None
        if lines is None:
            *whole, self._rest = (self._rest + piece).split(b"\n")
        else:
            whole, self._rest = _whole_lines(lines)
        events: list[bytes] = []
        for line in whole:
            if not line:
                data = b"\n".join(self._data)
                # Some send an empty one as a heartbeat.
                if data and not data.isspace():
                    events.append(data)
                self._data, self._size = [], 0
            elif line.startswith(b"data:"):
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
                self._size += len(line)
        if self._size + len(self._rest) > MAX_EVENT_BYTES:
            raise EventTooLong
        return events


def _is_one_event(piece: bytes) -> bool:
    """Return whether a piece is one event of one line, as most are."""
    has_one_line = piece.startswith(b"data: ") and piece.find(b"\n") == len(piece) - 2 and piece.endswith(b"\n\n")
    return has_one_line and b"\r" not in piece and len(piece) <= MAX_EVENT_BYTES and not piece[6:].isspace()


def _whole_lines(lines: list[bytes]) -> tuple[list[bytes], bytes]:
    """Return lines without their ends, and the last one as it is when it may go on (a final CR may be half a CRLF)."""
    rest = b""
    if lines and not lines[-1].endswith(b"\n"):
        rest = lines.pop()
    return [line.rstrip(b"\r\n") for line in lines], rest
