"""Pages by their URL: what is fetched, how far redirects are followed, and what is refused without a call."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web

from apikeys.outbound import sites
from apikeys.outbound.addresses import allowed_networks
from datasets.conversion.formats import Format, Unreadable
from datasets.imports import links
from datasets.imports.links import Page
from tests.support.fake_site import FakeSite
from tests.support.loopback import loopback_allowed


@pytest.fixture(autouse=True)
def loopback() -> Iterator[None]:
    with loopback_allowed("LINK_ALLOWED_NETWORKS"):
        yield


@pytest.fixture
def site() -> Iterator[FakeSite]:
    with FakeSite() as site:
        yield site


def fetch(url: str) -> Page:
    async def fetched() -> Page:
        try:
            return await links.fetch(url)
        finally:
            await sites.close()

    return asyncio.run(fetched())


def refusal(url: str) -> str:
    with pytest.raises(Unreadable) as caught:
        fetch(url)
    return str(caught.value)


def test_it_works(site: FakeSite) -> None:
    site.shows("/film", "<h1>导演</h1>")
    assert fetch(f"{site.url}/film") == Page("<h1>导演</h1>".encode(), Format.HTML)
    assert site.asked == [("/robots.txt", "fastgpt-site"), ("/film", "fastgpt-site")]


@pytest.mark.parametrize(
    ("content_type", "format"),
    [
        ("text/plain", Format.TEXT),
        ("text/markdown; charset=utf-8", Format.MARKDOWN),
        ("application/xhtml+xml", Format.HTML),
        ("application/pdf", Format.PDF),
    ],
)
def test_content_types(site: FakeSite, content_type: str, format: Format) -> None:
    site.shows("/", "x", content_type)
    assert fetch(f"{site.url}/") == Page(b"x", format)


@pytest.mark.parametrize("content_type", ["image/png", "application/zip", "application/json", "text/javascript", ""])
def test_other_content_types(site: FakeSite, content_type: str) -> None:
    site.shows("/", "x", content_type)
    assert "neither HTML" in refusal(f"{site.url}/")


@pytest.mark.parametrize("charset", ["gb18030", "shift_jis", "utf-16"])
def test_charsets(site: FakeSite, charset: str) -> None:
    site.shows("/", "監督".encode(charset), f"text/plain; charset={charset}")
    assert fetch(f"{site.url}/").content == "監督".encode()


@pytest.mark.parametrize("charset", ["no-such", "ascii", "hex"])
def test_charsets_that_are_wrong(site: FakeSite, charset: str) -> None:
    site.shows("/", "監督".encode(), f"text/plain; charset={charset}")
    assert fetch(f"{site.url}/").content == "監督".encode()


@pytest.mark.parametrize("charset", ["punycode", "utf-7", "unicode_escape", "raw-unicode-escape", "idna", "x" * 4000])
def test_charsets_that_no_page_is_in(site: FakeSite, charset: str) -> None:
    """Python would decode such a charset, some in hours."""
    site.shows("/", r"\u0041-xn--a-+AGE-", f"text/plain; charset={charset}")
    assert fetch(f"{site.url}/").content == rb"\u0041-xn--a-+AGE-"


def test_redirects(site: FakeSite) -> None:
    for number, status in enumerate((301, 302, 303, 307, 308)):
        site.redirects(f"/{number}", f"/{number + 1}", status)
    site.shows("/5", "x", "text/plain")
    assert fetch(f"{site.url}/0").content == b"x"


def test_too_many_redirects(site: FakeSite) -> None:
    site.redirects("/", "/")
    assert refusal(f"{site.url}/") == "The page redirects more than 5 times."
    assert [path for path, _ in site.asked].count("/") == 6


PRIVATE = ["http://10.0.0.1/", "http://169.254.169.254/latest", "http://[::1]/", "http://192.168.0.1:8080/"]


@pytest.mark.parametrize("url", PRIVATE)
def test_private_addresses(site: FakeSite, url: str) -> None:
    wanted = "The page is in a private network, from which nothing is fetched."
    assert refusal(url) == wanted
    site.redirects("/", url)
    assert refusal(f"{site.url}/") == wanted


def test_loopback_that_is_not_allowed(site: FakeSite, settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_NETWORKS, settings.LINK_ALLOWED_NETWORKS = ["127.0.0.0/8"], []
    allowed_networks.cache_clear()
    site.shows("/", "x")
    for host in ("127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]"):  # noqa: S104
        assert "private network" in refusal(f"http://{host}:{site.port}/")
    # This is the loopback address as one number.
    assert refusal(f"http://2130706433:{site.port}/")
    assert site.asked == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "ftp://example.org/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "http://",
        "http:///x",
        "//example.org",
        "http://user:secret@example.org/",
        "http://user@example.org/",
        "http://example.org/a b",
        "http://example.org/\0",
        "http://example.org/\r\nX: y",
        "http://example.org/\u202e",
        "http://example.org:0/",
        "http://example.org:99999/",
        "http://[::1/",
        "http://example.org/" + "x" * 2000,
    ],
)
def test_urls_that_are_refused(site: FakeSite, url: str) -> None:
    assert refusal(url)
    if "\r" not in url and "\0" not in url and url.isascii() and ":" in url:
        site.redirects("/", url)
        assert refusal(f"{site.url}/")


def test_robots(site: FakeSite) -> None:
    site.shows("/robots.txt", "User-agent: *\nDisallow: /private\n\nUser-agent: other\nDisallow: /", "text/plain")
    site.shows("/public", "x")
    site.shows("/private", "x")
    assert fetch(f"{site.url}/public").content == b"x"
    assert refusal(f"{site.url}/private") == "The site's robots.txt asks not to fetch this page."
    site.redirects("/way", "/private")
    assert "robots.txt" in refusal(f"{site.url}/way")
    assert [path for path, _ in site.asked].count("/private") == 0


def test_robots_that_name_us(site: FakeSite) -> None:
    site.shows("/robots.txt", "User-agent: fastgpt-site\nDisallow: /", "text/plain")
    assert "robots.txt" in refusal(f"{site.url}/")


@pytest.mark.parametrize(("status", "may"), [(404, True), (403, True), (500, False), (503, False)])
def test_robots_that_cannot_be_had(site: FakeSite, status: int, may: bool) -> None:
    site.shows("/robots.txt", "", "text/plain", status)
    site.shows("/", "x")
    if may:
        assert fetch(f"{site.url}/").content == b"x"
    else:
        assert "robots.txt" in refusal(f"{site.url}/")


def test_robots_elsewhere(site: FakeSite) -> None:
    site.redirects("/robots.txt", "/elsewhere")
    site.shows("/elsewhere", "User-agent: *\nDisallow: /", "text/plain")
    assert "robots.txt" in refusal(f"{site.url}/")
    site.redirects("/robots.txt", "http://10.0.0.1/robots.txt")
    assert "private network" in refusal(f"{site.url}/")


@pytest.mark.parametrize("body", [b"\xff\xfe\0", b"Disallow" * 200_000, b"User-agent: *\nDisallow: /%zz%"])
def test_robots_that_are_strange(site: FakeSite, body: bytes) -> None:
    site.shows("/robots.txt", body, "text/plain")
    site.shows("/", "x")
    assert fetch(f"{site.url}/").content == b"x"


@pytest.mark.parametrize("status", [204, 304, 401, 404, 500])
def test_other_answers(site: FakeSite, status: int) -> None:
    site.shows("/", "", status=status)
    assert refusal(f"{site.url}/") == f"The page's server answered with HTTP {status}."


def test_too_large(site: FakeSite) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)

    site.pages["/"] = endless
    assert refusal(f"{site.url}/") == "The page is larger than 10 MiB."


def test_too_slow(site: FakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        await asyncio.sleep(60)
        return response

    site.pages["/"] = slow
    monkeypatch.setattr(links, "TOTAL_SECONDS", 1.0)
    assert refusal(f"{site.url}/") == "The page did not arrive within 1 seconds."


def test_empty(site: FakeSite) -> None:
    site.shows("/", "")
    assert refusal(f"{site.url}/") == "The page is empty."


def test_broken_off(site: FakeSite) -> None:
    async def rude(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain", "Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"x")
        assert request.transport is not None
        request.transport.abort()
        return response

    site.pages["/"] = rude
    assert refusal(f"{site.url}/") == "The page's server closed the connection early."


def test_nobody_there() -> None:
    assert refusal("http://127.0.0.1:9/") == "The page's server cannot be reached."
    assert refusal("http://no-such-host.invalid/") == "The page's server cannot be reached."
