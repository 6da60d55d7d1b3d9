"""Heads as llhttp reads them, and what is refused of them although it would."""

import pytest

from apikeys.errors import MalformedRequest
from fastgpt_site.http.heads import parse


def test_it_works():
    head = parse(b"POST /a%20b?c=%20 HTTP/1.1\r\nHost: h\r\nX-Y:  z \r\nContent-Length: 3\r\n\r\n")
    assert (head.method, head.path, head.raw_path, head.query) == ("POST", "/a b", b"/a%20b", b"c=%20")
    assert head.headers == [(b"host", b"h"), (b"x-y", b"z"), (b"content-length", b"3")]
    assert (head.version, head.keeps_alive, head.body_length, head.expects_continue) == ("1.1", True, 3, False)


@pytest.mark.parametrize(
    ("lines", "version", "expected"),
    [
        ("", "1.1", True),
        ("Connection: close\r\n", "1.1", False),
        ("", "1.0", False),
        ("Connection: keep-alive\r\n", "1.0", False),
    ],
)
def test_keeping_the_connection(lines: str, version: str, expected: bool):
    assert parse(f"GET / HTTP/{version}\r\n{lines}\r\n".encode()).keeps_alive is expected


def test_chunks_and_a_client_that_waits_to_be_asked():
    head = parse(b"PUT / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\nExpect: 100-Continue\r\n\r\n")
    assert head.body_length is None
    assert head.expects_continue


def test_somebody_who_forwards():
    assert parse(b"GET / HTTP/1.1\r\n\r\n").forwarded_for == ""
    lines = b"X-forwarded-FOR: 203.0.113.1\r\nX-Forwarded-For: 203.0.113.2\r\n"
    assert parse(b"GET / HTTP/1.1\r\n" + lines + b"\r\n").forwarded_for == "203.0.113.1,203.0.113.2"


def test_two_credentials_are_none():
    assert parse(b"GET / HTTP/1.1\r\n\r\n").authorization is None
    lines = b"Authorization: Bearer a\r\nauthorization: Bearer b\r\n"
    assert parse(b"GET / HTTP/1.1\r\n" + lines + b"\r\n").authorization == "Bearer a,Bearer b"


def test_its_text_shows_no_key():
    head = parse(b"GET /v1/fastgpt-path?key=fastgpt-query HTTP/1.1\r\nAuthorization: Bearer fastgpt-header\r\n\r\n")
    assert head.authorization == "Bearer fastgpt-header"
    assert "fastgpt-" not in repr(head)


def test_an_upgrade_is_not_made():
    head = parse(b"GET /x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert (head.path, head.body_length) == ("/x", 0)


def test_an_absolute_target():
    assert parse(b"GET http://h/x?y HTTP/1.1\r\nHost: h\r\n\r\n").path == "/x"
    assert parse(b"GET http://h HTTP/1.1\r\nHost: h\r\n\r\n").path == "/"


@pytest.mark.parametrize(
    "head",
    {
        "not HTTP": b"hello\r\n\r\n",
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        "HTTP/0.9": b"GET /\r\n\r\n",
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\n",
        "another version": b"GET / HTTP/2.0\r\nHost: h\r\n\r\n",
        "bare LF": b"GET / HTTP/1.1\nHost: h\n\r\n\r\n",
        "bare CR": b"GET / HTTP/1.1\r\nHost: h\rX: y\r\n\r\n",
        "NUL": b"GET / HTTP/1.1\r\nHost: h\0\r\n\r\n",
        "a name with a blank": b"GET / HTTP/1.1\r\nHost : h\r\n\r\n",
        "a folded line": b"GET / HTTP/1.1\r\nX: y\r\n z\r\n\r\n",
        "a server as target": b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
        "a tunnel": b"CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n",
        "a target that is not ASCII": "GET /ä HTTP/1.1\r\nHost: h\r\n\r\n".encode(),
        "two hosts": b"GET / HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n",
        "two lengths": b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        "a list of lengths": b"POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n",
        "a negative length": b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "a signed length": b"POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
        "a huge length": b"POST / HTTP/1.1\r\nContent-Length: 9999999999999999999\r\n\r\n",
        "length and chunks": b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "chunks and length": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
        "another encoding": b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        "two encodings": b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "chunks twice": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "an encoding that looks like chunks": b"POST / HTTP/1.1\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
        "chunks in HTTP/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "a second request": b"GET / HTTP/1.1\r\n\r\nGET /admin HTTP/1.1\r\n\r\n",
    }.values(),
)
def test_refused(head: bytes):
    with pytest.raises(MalformedRequest):
        parse(head)
