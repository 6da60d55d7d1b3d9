"""Pages that are imported by their URL: fetched through the outbound client, and only where robots may."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit, urlunsplit

from protego import Protego

from apikeys.outbound import sites
from apikeys.outbound.addresses import AddressRefused
from apikeys.outbound.failures import SiteFailed
from apikeys.outbound.targets import USER_AGENT
from datasets.conversion.formats import Format, Unreadable, charset_of

if TYPE_CHECKING:
    from aiohttp import ClientResponse

MAXIMUM_URL = 2000
# One import takes no longer, with its redirects and with robots.txt.
TOTAL_SECONDS = 20.0
CONNECT_SECONDS = 5.0
MAXIMUM_BYTES = 10 * 1024 * 1024
MAXIMUM_REDIRECTS = 5
# RFC 9309 asks to read so much of a robots.txt.
ROBOTS_BYTES = 500 * 1024
REDIRECTS = {301, 302, 303, 307, 308}
FORMATS = {
    "text/html": Format.HTML,
    "application/xhtml+xml": Format.HTML,
    "text/plain": Format.TEXT,
    "text/markdown": Format.MARKDOWN,
    "text/x-markdown": Format.MARKDOWN,
    "application/pdf": Format.PDF,
}


@dataclass(frozen=True, slots=True)
class Page:
    """The content that a URL led to. Text is in UTF-8."""

    content: bytes
    format: Format


class NoAnswer(Exception):
    """The server could not be reached, or sent something that is no HTTP."""


def check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_link = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise Unreadable("This is not a URL.") from None
    if not is_link or not url.isprintable() or " " in url:
        raise Unreadable("Give a URL that begins with http:// or https://.")
    if parts.username is not None or parts.password is not None:
        raise Unreadable("URLs with a username or password are not fetched.")
    if len(url) > MAXIMUM_URL:
        raise Unreadable(f"The URL is longer than {MAXIMUM_URL} characters.")


async def fetch(url: str) -> Page:
    """Raise Unreadable, whose message names no address but the caller's own."""
    try:
        async with asyncio.timeout(TOTAL_SECONDS):
            return await follow_redirects(url)
    except TimeoutError:
        raise Unreadable(f"The page did not arrive within {TOTAL_SECONDS:g} seconds.") from None
    except NoAnswer as error:
        raise Unreadable(str(error)) from None


async def follow_redirects(url: str) -> Page:
    # Each step is a call of its own: its URL, its address and its host's robots.txt are checked.
    for _ in range(MAXIMUM_REDIRECTS + 1):
        check_url(url)
        if not await robots_may(url):
            raise Unreadable("The site's robots.txt asks not to fetch this page.")
        response = await call(url)
        try:
            if response.status not in REDIRECTS:
                return await page_of(response)
            url = target_of(url, response)
        finally:
            response.release()
    raise Unreadable(f"The page redirects more than {MAXIMUM_REDIRECTS} times.")


def target_of(url: str, response: ClientResponse) -> str:
    try:
        return urljoin(url, response.headers.get("Location", ""))
    except ValueError:
        raise Unreadable("The page redirects to something that is not a URL.") from None


async def call(url: str) -> ClientResponse:
    try:
        return await sites.get(url, connect_seconds=CONNECT_SECONDS)
    except AddressRefused:
        raise Unreadable("The page is in a private network, from which nothing is fetched.") from None
    except (SiteFailed, TimeoutError):
        raise NoAnswer("The page's server cannot be reached.") from None


async def page_of(response: ClientResponse) -> Page:
    if response.status != HTTPStatus.OK:
        raise Unreadable(f"The page's server answered with HTTP {response.status}.")
    format = FORMATS.get(response.content_type)
    if format is None:
        raise Unreadable("The page is neither HTML, text, Markdown nor PDF.")
    content = await content_of(response, MAXIMUM_BYTES)
    if not content:
        raise Unreadable("The page is empty.")
    if format is not Format.PDF:
        content = await asyncio.to_thread(to_utf8, content, charset_of(response.charset or ""))
    return Page(content, format)


async def content_of(response: ClientResponse, maximum: int) -> bytes:
    try:
        return await sites.read(response, maximum)
    except ValueError:
        raise Unreadable(f"The page is larger than {maximum // 2**20} MiB.") from None
    except SiteFailed:
        raise NoAnswer("The page's server closed the connection early.") from None


def to_utf8(content: bytes, charset: str | None) -> bytes:
    try:
        return content.decode(charset or "utf-8").encode()
    except ValueError:
        # The server declares a wrong charset, an unknown one, or none: the content stays as it is.
        return content


async def robots_may(url: str) -> bool:
    """Follow RFC 9309: no robots.txt means yes, one that cannot be had for a fault of its server means no."""
    parts = urlsplit(url)
    robots_url = urlunsplit((parts.scheme, parts.netloc, "/robots.txt", "", ""))
    for _ in range(MAXIMUM_REDIRECTS + 1):
        check_url(robots_url)
        response = await call(robots_url)
        try:
            if response.status in REDIRECTS:
                robots_url = target_of(robots_url, response)
            elif response.status == HTTPStatus.OK:
                return is_allowed(await beginning_of(response), url)
            else:
                return response.status < HTTPStatus.INTERNAL_SERVER_ERROR
        finally:
            response.release()
    return True


async def beginning_of(response: ClientResponse) -> bytes:
    try:
        return await sites.read_beginning(response, ROBOTS_BYTES)
    except SiteFailed:
        raise NoAnswer("The site's robots.txt was cut short.") from None


def is_allowed(robots: bytes, url: str) -> bool:
    return bool(Protego.parse(robots.decode(errors="replace")).can_fetch(url, USER_AGENT))
