"""The HTTP client for calls to sites that others chose: links into datasets, and webhooks.

It follows no redirects, uses no proxies from the environment, and calls no address that apikeys.outbound.addresses
refuses. It takes an eighth of a second to load, which most processes never need.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from apikeys.outbound.addresses import DNS_SECONDS, LINKS, OUTBOUND, AddressRefused, check_address
from apikeys.outbound.client import KEEPALIVE_SECONDS
from apikeys.outbound.connections import READ_BUFFER_BYTES
from apikeys.outbound.failures import SiteFailed
from apikeys.outbound.targets import USER_AGENT

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

_sessions: dict[tuple[asyncio.AbstractEventLoop, str], ClientSession] = {}


async def post(url: str, *, body: bytes, headers: dict[str, str], connect_seconds: float) -> ClientResponse:
    """POST without following redirects. Only a connection that could not be made is retried, once.

    Raise AddressRefused, SiteFailed, or TimeoutError when connecting takes too long. The caller limits the time of the
    response.
    """
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_seconds)
    session = _session(OUTBOUND)

    async def attempt() -> ClientResponse:
        return await session.post(url, data=body, headers=headers, timeout=timeout, allow_redirects=False)

    with _translate_failures():
        try:
            return await attempt()
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, AddressRefused):
                raise
        return await attempt()


async def get(url: str, *, connect_seconds: float) -> ClientResponse:
    """GET a link without following redirects, which are the caller's to judge, like time limits.

    Raise AddressRefused, SiteFailed, also for a text that is no URL, or TimeoutError when connecting takes too long.
    """
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_seconds)
    with _translate_failures():
        return await _session(LINKS).get(url, timeout=timeout, allow_redirects=False)


async def read(response: ClientResponse, max_bytes: int) -> bytes:
    """Return the body of the response. Raise SiteFailed, or ValueError if it is longer than `max_bytes`."""
    body = await read_beginning(response, max_bytes + 1)
    if len(body) > max_bytes:
        raise ValueError("the answer is too long")
    return body


async def read_beginning(response: ClientResponse, max_bytes: int) -> bytes:
    """Return so much of the body of the response, or all of it if it is shorter. Raise SiteFailed."""
    pieces, size = [], 0
    with _translate_failures():
        while size < max_bytes and (piece := await response.content.readany()):
            pieces.append(piece)
            size += len(piece)
    return b"".join(pieces)[:max_bytes]


async def close() -> None:
    """Close the running loop's sessions."""
    for setting in (OUTBOUND, LINKS):
        found = _sessions.pop((asyncio.get_running_loop(), setting), None)
        if found is not None:
            await found.close()


def _session(setting: str) -> ClientSession:
    import aiohttp

    # Each loop and setting has a session of its own, so that the settings share no open connection.
    key = asyncio.get_running_loop(), setting
    found = _sessions.get(key)
    if found is None or found.closed:
        connector = aiohttp.TCPConnector(
            limit=0,
            keepalive_timeout=KEEPALIVE_SECONDS,
            socket_factory=partial(_open_socket, setting),
            ttl_dns_cache=DNS_SECONDS,
        )
        found = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=True,
            read_bufsize=READ_BUFFER_BYTES,
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
        )
        _sessions[key] = found
    return found


def _open_socket(setting: str, address_info: Any) -> socket.socket:
    family, kind, protocol, _, destination = address_info
    check_address(destination[0], setting)
    return socket.socket(family, kind, protocol)


@contextmanager
def _translate_failures() -> Iterator[None]:
    import aiohttp

    try:
        yield
    except TimeoutError:
        raise TimeoutError from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        # The class only: the text of these errors names the address.
        if isinstance(getattr(error, "os_error", None), AddressRefused):
            raise AddressRefused from None
        raise SiteFailed(type(error).__name__) from None
