"""Codings of content: of answers, for which none is asked, but some servers compress all the same; and of requests."""

from __future__ import annotations

import zlib

from apikeys.outbound.failures import MalformedAnswer

GZIP = 16 + zlib.MAX_WBITS


def make_inflater(coding: bytes) -> Inflater | None:
    """Return what decodes this Content-Encoding, or None where there is nothing to decode. Raise MalformedAnswer."""
    match coding.strip().lower():
        case b"" | b"identity":
            return None
        case b"gzip" | b"x-gzip" | b"deflate" as known:
            return Inflater(is_gzip=known != b"deflate")
    raise MalformedAnswer


class Inflater:
    """Decodes gzip or deflate, so much at a time as is asked for: what a kilobyte inflates to has no bound."""

    __slots__ = ("_inflate", "_is_full", "_is_gzip", "_rest")

    def __init__(self, *, is_gzip: bool) -> None:
        self._is_gzip = is_gzip
        self._inflate = zlib.decompressobj(GZIP) if is_gzip else None
        self._rest = b""
        # The last call returned all that was asked for, so there may be more of what had been taken in.
        self._is_full = False

    @property
    def has_more(self) -> bool:
        """Whether `decode` may return something although nothing new has come."""
        return self._is_full or bool(self._rest)

    @property
    def is_complete(self) -> bool:
        """Whether the content may end here."""
        return self._inflate is None or self._inflate.eof

    def decode(self, data: bytes, maximum: int) -> bytes:
        """Return the next bytes of the content, at most so many; none if more has to come. Raise MalformedAnswer."""
        data = self._rest + data
        if not data and not self._is_full:
            return b""
        if self._inflate is None:
            # Some servers send deflate without the header of zlib.
            self._inflate = zlib.decompressobj(zlib.MAX_WBITS if data[0] & 0x0F == 8 else -zlib.MAX_WBITS)
        elif self._inflate.eof:
            if not self._is_gzip:
                raise MalformedAnswer
            # Several may follow one another (RFC 1952 2.2).
            self._inflate = zlib.decompressobj(GZIP)
        try:
            decoded = self._inflate.decompress(data, maximum)
        except zlib.error:
            raise MalformedAnswer from None
        self._rest = self._inflate.unconsumed_tail or self._inflate.unused_data
        self._is_full = len(decoded) == maximum and not self._inflate.eof
        return decoded
