"""Bodies: the same content however it is cut, nothing of what is sent beside it, and no end to nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apikeys.errors import MalformedRequest
from fastgpt_site.http.bodies import ChunkedBody, SizedBody
from fastgpt_site.http.heads import MAX_HEAD_BYTES

NEXT = b"GET / HTTP/1.1\r\n\r\n"


def read(body: SizedBody | ChunkedBody, data: bytes, size: int) -> tuple[bytes, bytes]:
    """Return the content, and what lies behind it, of data that comes in pieces of this size."""
    buffer, content = bytearray(), b""
    for start in range(0, len(data), size):
        buffer += data[start : start + size]
        if not body.is_complete:
            content += body.take(buffer)
    return content, bytes(buffer)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_a_sized_body(size: int):
    body = SizedBody(11)
    assert read(body, b"hello world" + NEXT, size) == (b"hello world", NEXT)
    assert body.is_complete


@given(pieces=st.lists(st.binary(min_size=1, max_size=40)), size=st.integers(1, 50), extra=st.sampled_from([0, 1, 2]))
def test_chunks(pieces: list[bytes], size: int, extra: int):
    extension = [b"", b";a=b", b' ; name="value"'][extra]
    trailers = [b"", b"X-Y: z\r\n", b"Authorization: Bearer x\r\nB:\r\n"][extra]
    framed = b"".join(b"%X%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)
    body = ChunkedBody()
    assert read(body, framed + b"0" + extension + b"\r\n" + trailers + b"\r\n" + NEXT, size) == (b"".join(pieces), NEXT)
    assert body.is_complete


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"0x1\r\n",
        b" 1\r\n",
        b"1_0\r\n",
        b"1\n\n",
        b"ffffffffffffffff\r\n",
        b"1\r\nab\r\n",
        b"1\r\na\n",
        b"1;\0\r\na\r\n",
        b"1;a\rb\r\na\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\n folded: x\r\n\r\n",
        b"0\r\nX: a\rb\r\n\r\n",
        b"0\r\nX: a\nY: b\r\n\r\n",
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_malformed_chunks(data: bytes, size: int):
    with pytest.raises(MalformedRequest):
        read(ChunkedBody(), data + b"x" * MAX_HEAD_BYTES, size)


@pytest.mark.parametrize(
    ("start", "endless"),
    [(b"0\r\nX: ", b"x" * 1000), (b"1;x=", b"x" * 1000), (b"0\r\n", b"X: y\r\n" * 100), (b"", b"0" * 1000)],
)
def test_what_is_sent_beside_the_body_ends(start: bytes, endless: bytes):
    body = ChunkedBody()
    data = start + endless * (MAX_HEAD_BYTES // len(endless) - 1)
    content, rest = read(body, data, 100)
    assert content == b""
    assert len(rest) <= MAX_HEAD_BYTES
    with pytest.raises(MalformedRequest):
        read(body, rest + endless * 2, 100)
