"""The Content-Encoding of a body, which is taken off as it comes."""

from collections.abc import Iterator

from apikeys.errors import MalformedRequest, UnsupportedCoding
from apikeys.outbound.codings import make_inflater
from apikeys.outbound.failures import MalformedAnswer


class Coding:
    """Takes the Content-Encoding off a body, piece by piece."""

    # A piece decodes to a thousand times as much at worst, so it does not do so at once.
    PIECE_BYTES = 64 * 1024

    def __init__(self, name: bytes) -> None:
        """Raise UnsupportedCoding."""
        self.is_begun = False
        try:
            self.inflater = make_inflater(name)
        except MalformedAnswer:
            raise UnsupportedCoding from None

    def decode(self, piece: bytes, *, is_last: bool) -> Iterator[bytes]:
        """Yield what a piece decodes to, if it is nothing as an empty piece. Raise MalformedRequest."""
        if self.inflater is None:
            yield piece
            return
        self.is_begun = self.is_begun or bool(piece)
        try:
            yield self.inflater.decode(piece, self.PIECE_BYTES)
            while self.inflater.has_more:
                yield self.inflater.decode(b"", self.PIECE_BYTES)
        except MalformedAnswer:
            raise MalformedRequest("The body is not what its Content-Encoding says.") from None
        if is_last and self.is_begun and not self.inflater.is_complete:
            raise MalformedRequest("The body ends before what its Content-Encoding says.")
