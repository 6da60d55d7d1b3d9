"""The head of an HTTP/1.1 request, read by llhttp. Trailer fields never get here: they come after a head (RFC 9110)."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

import httptools

from apikeys.errors import MalformedRequest

# A request's head, and everything that is neither body nor known to belong to one: chunk extensions and trailers.
MAX_HEAD_BYTES = 64 * 1024
END = b"\r\n\r\n"
# Anything longer cannot be stored as the size of a file.
LONGEST_LENGTH = 18


@dataclass(slots=True)
class Head:
    """One request's head. Header names are in lower case; `path` is decoded, `raw_path` as it was sent."""

    method: str
    path: str
    raw_path: bytes
    query: bytes
    version: str
    headers: list[tuple[bytes, bytes]]
    # The client keeps the connection open for another request.
    keeps_alive: bool
    # It is None for a body in chunks.
    body_length: int | None
    expects_continue: bool
    # A proxy says whom it forwards for, or somebody who wants to be taken for one.
    is_forwarded: bool


class _Collector:
    """The parser's callbacks."""

    __slots__ = ("headers", "heads", "keeps_alive", "parser", "url")

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.heads = 0
        self.keeps_alive = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self.heads += 1
        # Asked any later, the parser has forgotten it.
        self.keeps_alive = self.parser.should_keep_alive()


def parse(data: bytes) -> Head:
    """Read one head, up to and with the empty line that ends it. Raise MalformedRequest."""
    collector = _Collector()
    parser = collector.parser
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        # Nothing is upgraded here: the request is answered as if it had not asked.
        pass
    except httptools.HttpParserError as error:
        raise MalformedRequest(f"The request is not valid HTTP: {error}.") from None
    method, version = parser.get_method().decode("ascii"), parser.get_http_version()
    # They refer to each other.
    del collector.parser
    if collector.heads != 1 or version not in ("1.1", "1.0"):
        raise MalformedRequest("The request is not one of HTTP/1.1.")
    raw_path, query = _split(collector.url)
    body_length, expects_continue, is_forwarded = _framing(collector.headers, version)
    path = raw_path.decode("ascii")
    return Head(
        method=method,
        path=unquote(path) if "%" in path else path,
        raw_path=raw_path,
        query=query,
        version=version,
        headers=collector.headers,
        keeps_alive=version == "1.1" and collector.keeps_alive,
        body_length=body_length,
        expects_continue=expects_continue,
        is_forwarded=is_forwarded,
    )


def _split(url: bytes) -> tuple[bytes, bytes]:
    try:
        parsed = httptools.parse_url(url)
    except httptools.HttpParserInvalidURLError:
        raise MalformedRequest("The request's target is not a valid URL.") from None
    path = parsed.path or b"/"
    if not path.startswith(b"/"):
        # OPTIONS * and CONNECT name no resource.
        raise MalformedRequest("The request's target is not a path.")
    return path, parsed.query or b""


def _framing(headers: list[tuple[bytes, bytes]], version: str) -> tuple[int | None, bool, bool]:
    """Return the last three fields of a head. Raise MalformedRequest where it could be read in two ways."""
    hosts, length = 0, 0
    is_chunked = expects_continue = is_forwarded = False
    for name, value in headers:
        match name:
            case b"host":
                hosts += 1
            case b"content-length":
                # llhttp has refused one that is no number, and a second one.
                if len(value) > LONGEST_LENGTH:
                    raise MalformedRequest("The Content-Length is too large.")
                length = int(value)
            case b"transfer-encoding":
                if is_chunked or value.lower() != b"chunked" or version == "1.0":
                    raise MalformedRequest("The only Transfer-Encoding that is understood is: chunked.")
                is_chunked = True
            case b"expect":
                expects_continue = value.lower() == b"100-continue"
            case b"x-forwarded-for":
                is_forwarded = True
    if hosts > 1:
        raise MalformedRequest("The request has more than one Host header.")
    return (None if is_chunked else length), expects_continue, is_forwarded
