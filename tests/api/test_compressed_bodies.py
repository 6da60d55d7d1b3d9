"""Bodies with a Content-Encoding: decoded as they come, within the bounds of other bodies."""

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from datasets.models import Collection
from tests.conftest import Server
from tests.support import factories
from tests.support.conversations import content_of, make_app_key
from tests.support.fake_provider import FakeProvider
from tests.support.refusals import check_refusal
from tests.support.sources import ROOT, made_by, read, texts_of

PATH = "/api/v1/chat/completions"
QUESTION = json.dumps({"messages": [{"role": "user", "content": "hi"}]}).encode()
# Its time is fixed: the bytes stand in the names of tests, which every process has to find the same.
GZIPPED = gzip.compress(QUESTION, mtime=0)
MIB = 1024 * 1024


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


@pytest.fixture(scope="module")
def key(provider: FakeProvider, database: None) -> str:
    return make_app_key(provider)


def send(server: Server, key: str, body: Any, coding: str, path: str = PATH) -> httpx2.Response:
    return server.post(path, key, content=body, headers={"Content-Encoding": coding})


def pieces_of(body: bytes, size: int) -> Iterator[bytes]:
    return (body[start : start + size] for start in range(0, len(body), size))


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", GZIPPED),
        ("GZIP", GZIPPED),
        ("x-gzip", GZIPPED),
        # RFC 1952 lets several follow one another.
        ("gzip", gzip.compress(QUESTION[:9], mtime=0) + gzip.compress(QUESTION[9:], mtime=0)),
        ("deflate", zlib.compress(QUESTION)),
        # Many leave out what RFC 9110 wants around it.
        ("deflate", raw_deflate(QUESTION)),
        ("identity", QUESTION),
        ("", QUESTION),
    ],
)
def test_it_works(server: Server, key: str, coding: str, body: bytes) -> None:
    assert content_of(send(server, key, body, coding)) == "1 messages, the last: hi"
    assert content_of(send(server, key, pieces_of(body, 7), coding)) == "1 messages, the last: hi"


def test_an_image(server: Server, provider: FakeProvider) -> None:
    key, text = make_app_key(provider, "cut_short"), factories.unique("image")
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 15 * MIB}}
    content = [{"type": "text", "text": text}, part]
    body = json.dumps({"messages": [{"role": "user", "content": content}]}).encode()
    assert send(server, key, gzip.compress(body), "gzip").status_code == 200
    assert provider.calls_about(text)[0]["messages"][0]["content"] == content


@pytest.mark.parametrize("size", [1, 30, 2_000])
def test_a_bomb(server: Server, key: str, size: int) -> None:
    """It is refused long before its end: what it decodes to is never held."""
    compressor = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    million = bytes(MIB)
    body = b"".join([compressor.compress(million) for _ in range(size)] + [compressor.flush()])
    code = "invalid_parameter" if size == 1 else "body_too_large"
    check_refusal(send(server, key, body, "gzip"), code)
    check_refusal(send(server, key, pieces_of(body, 50_000), "gzip"), code)


def test_one_that_decodes_to_nothing(server: Server, key: str) -> None:
    check_refusal(send(server, key, gzip.compress(b"") * 1_200_000, "gzip"), "body_too_large")
    check_refusal(send(server, key, gzip.compress(b""), "gzip"), "invalid_parameter")


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", QUESTION),
        ("gzip", GZIPPED[:-1]),
        ("gzip", GZIPPED[:20]),
        ("gzip", GZIPPED + b"x"),
        ("gzip", GZIPPED[:-8] + b"\0" * 8),
        ("gzip", zlib.compress(QUESTION)),
        ("deflate", QUESTION),
        ("deflate", zlib.compress(QUESTION)[:-1]),
        ("deflate", zlib.compress(QUESTION) + b"x"),
    ],
)
def test_what_is_not_what_it_says(server: Server, key: str, coding: str, body: bytes) -> None:
    assert "Content-Encoding" in check_refusal(send(server, key, body, coding), "invalid_parameter")
    assert server.post(PATH, key, content=QUESTION).status_code == 200


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "identity, gzip", "x", "\u00e9", "gzip;q=1"])
def test_unknown_coding(server: Server, key: str, coding: str) -> None:
    response = server.post(PATH, key, content=QUESTION, headers=[(b"Content-Encoding", coding.encode("latin1"))])
    check_refusal(response, "unsupported_content_encoding")
    assert response.headers["accept-encoding"] == "gzip, deflate"


def test_two_headers_are_a_list(server: Server, key: str) -> None:
    headers = [("Authorization", f"Bearer {key}"), ("Content-Encoding", "gzip"), ("Content-Encoding", "gzip")]
    check_refusal(server.client.post(PATH, content=QUESTION, headers=headers), "unsupported_content_encoding")


def test_nobody_learns_what_is_supported(server: Server) -> None:
    check_refusal(server.post(PATH, content=QUESTION, headers={"Content-Encoding": "br"}), "missing_api_key")


# --- endpoints that Django serves


def test_a_synchronous_endpoint(server: Server) -> None:
    team = factories.make_team()
    _, key = factories.make_key(team)
    path, body = "/api/core/dataset/create", json.dumps({"name": "compressed", "intro": "x" * 400}).encode()
    response = send(server, key, gzip.compress(body), "gzip", path)
    assert response.json()["code"] == 200, response.text
    check_refusal(send(server, key, body, "gzip", path), "invalid_parameter")
    check_refusal(send(server, key, body, "br", path), "unsupported_content_encoding")
    check_refusal(send(server, key, gzip.compress(bytes(3 * MIB)), "gzip", path), "body_too_large")


def test_no_body_has_no_coding(server: Server, key: str) -> None:
    assert server.get("/api/v1/key", key, headers={"Content-Encoding": "gzip"}).status_code == 200


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_file(server: Server, is_chunked: bool) -> None:
    dataset = factories.make_dataset()
    _, key = factories.make_key(dataset.team)
    form = httpx2.Request(
        "POST",
        "http://x",
        data={"data": json.dumps({"datasetId": dataset.pk})},
        files={"file": ("a.txt", b"Who directed it?")},
    )
    body = gzip.compress(form.read())
    headers = {"Content-Type": form.headers["content-type"], "Content-Encoding": "gzip"}
    content = pieces_of(body, 100) if is_chunked else body
    collection = made_by(server.post(f"{ROOT}/localFile", key, content=content, headers=headers))
    read(collection)
    assert texts_of(collection) == [("Who directed it?", "")]
    bomb = gzip.compress(bytes(110 * MIB))
    check_refusal(server.post(f"{ROOT}/localFile", key, content=bomb, headers=headers), "body_too_large")
    assert Collection.objects.filter(dataset=dataset).count() == 1


def test_what_nobody_signed_in_sends(server: Server) -> None:
    """It is bounded by what it becomes, like any other body of somebody who is not known."""
    form = gzip.compress(b"username=" + b"x" * MIB, mtime=0)
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Content-Encoding": "gzip"}
    assert server.post("/admin/login/", content=form, headers=headers).status_code == 413
