"""The head of an HTTP/1.1 request, read by llhttp. Trailer fields never get here: they come after a head (RFC 9110)."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import unquote

import httptools

from apikeys.errors import MalformedRequest

# A request's head, and everything that is neither body nor known to belong to one: chunk extensions and trailers.
MAX_HEAD_BYTES = 64 * 1024
END = b"\r\n\r\n"
# Anything longer cannot be stored as the size of a file.
LONGEST_LENGTH = 18
KNOWN = {
    *(b"host", b"content-length", b"content-encoding", b"authorization", b"transfer-encoding"),
    *(b"expect", b"x-forwarded-for"),
}


@dataclass(slots=True)
class Head:
    """One request's head. Header names are in lower case; `path` is decoded, `raw_path` as it was sent.

    What may hold a key is left out of its text.
    """

    method: str
    path: str = field(repr=False)
    raw_path: bytes = field(repr=False)
    query: bytes = field(repr=False)
    version: str
    headers: list[tuple[bytes, bytes]] = field(repr=False)
    # The client keeps the connection open for another request.
    keeps_alive: bool
    # It is None for a body in chunks.
    body_length: int | None
    expects_continue: bool
    # Of these, several headers are joined by a comma. This one says how the body is compressed.
    coding: bytes
    authorization: str | None = field(repr=False)
    # A proxy says whom it forwards for, or somebody who wants to be taken for one.
    forwarded_for: str


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
    known = _Known(version)
    for name, value in collector.headers:
        if name in KNOWN:
            known.take(name, value)
    path = raw_path.decode("ascii")
    return Head(
        method=method,
        path=unquote(path) if "%" in path else path,
        raw_path=raw_path,
        query=query,
        version=version,
        headers=collector.headers,
        keeps_alive=version == "1.1" and collector.keeps_alive,
        body_length=known.body_length(),
        expects_continue=known.expects_continue,
        coding=known.coding,
        authorization=known.authorization,
        forwarded_for=known.forwarded_for,
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


class _Known:
    """The headers that say how a request is framed, who calls, and whom it was forwarded for."""

    __slots__ = (
        "authorization",
        "coding",
        "expects_continue",
        "forwarded_for",
        "has_host",
        "is_chunked",
        "length",
        "version",
    )

    def __init__(self, version: str) -> None:
        self.version = version
        self.length = 0
        self.has_host = self.is_chunked = self.expects_continue = False
        self.authorization: str | None = None
        self.forwarded_for = ""
        self.coding = b""

    def take(self, name: bytes, value: bytes) -> None:
        """Read one header. Raise MalformedRequest where a request could be read in two ways."""
        match name:
            case b"host":
                if self.has_host:
                    raise MalformedRequest("The request has more than one Host header.")
                self.has_host = True
            case b"content-length":
                # llhttp has refused one that is no number, and a second one.
                if len(value) > LONGEST_LENGTH:
                    raise MalformedRequest("The Content-Length is too large.")
                self.length = int(value)
            case b"authorization":
                text = value.decode("latin1")
                self.authorization = text if self.authorization is None else f"{self.authorization},{text}"
            case b"transfer-encoding":
                if self.is_chunked or value.lower() != b"chunked" or self.version == "1.0":
                    raise MalformedRequest("The only Transfer-Encoding that is understood is: chunked.")
                self.is_chunked = True
            case b"expect":
                self.expects_continue = value.lower() == b"100-continue"
            case b"content-encoding":
                self.coding = b"%b,%b" % (self.coding, value) if self.coding else value
            case b"x-forwarded-for":
                text = value.decode("latin1")
                self.forwarded_for = f"{self.forwarded_for},{text}" if self.forwarded_for else text

    def body_length(self) -> int | None:
        return None if self.is_chunked else self.length
