"""The HTTP client for every call that leaves this server.

It follows no redirects, uses no proxies from the environment, and calls no private address that is not in
OUTBOUND_ALLOWED_NETWORKS, or for links in LINK_ALLOWED_NETWORKS: whoever may fill a dataset chooses their hosts. The
address is checked where the socket is made, so a name that resolves differently the second time gains nothing.
"""

import asyncio
import ipaddress
import socket
from functools import cache, partial
from typing import Any

import aiohttp
from django.conf import settings

from apikeys.client_address import Address, Network, is_in, parse_networks

USER_AGENT = "fastgpt-site"
# Servers commonly allow more (uvicorn 5 s), so a reused connection is rarely one that was just closed.
KEEPALIVE_SECONDS = 4.0
# About twice as much of a response is buffered while nobody reads it.
READ_BUFFER_BYTES = 16 * 1024
# These settings name the private networks that may be called: for providers and webhooks, and for links.
OUTBOUND, LINKS = "OUTBOUND_ALLOWED_NETWORKS", "LINK_ALLOWED_NETWORKS"
# RFC 6052 and RFC 8215: IPv6 addresses behind which a gateway may have IPv4 ones, private ones too.
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# These networks are registered as special (IANA's registries of IPv4 and IPv6 special-purpose addresses), but not yet
# in every Python, or lead inside without being registered: clouds' metadata services, and old ways of writing IPv4 in
# IPv6.
REFUSED = parse_networks(
    [
        *("192.0.0.0/24", "168.63.129.16/32", "192.88.99.0/24"),
        *("::/96", "::ffff:0:0:0/96", "64:ff9b:1::/48", "fec0::/10", "5f00::/16", "3fff::/20", "100:0:0:1::/64"),
    ]
)
_sessions: dict[tuple[asyncio.AbstractEventLoop, str], aiohttp.ClientSession] = {}


class AddressRefused(OSError):
    """The host's address is private and in no allowed network."""


@cache
def allowed_networks(setting: str) -> tuple[Network, ...]:
    return parse_networks(getattr(settings, setting))


def is_allowed(address: Address, setting: str = OUTBOUND) -> bool:
    address = _unwrap(address)
    if is_in(address, allowed_networks(setting)):
        return True
    return address.is_global and not address.is_multicast and not is_in(address, REFUSED)


def _unwrap(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one leads to by mapping, 6to4 or NAT64; otherwise the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _open_socket(setting: str, address_info: Any) -> socket.socket:
    family, kind, protocol, _, destination = address_info
    if not is_allowed(ipaddress.ip_address(destination[0].partition("%")[0]), setting):
        raise AddressRefused(f"This address may not be called. See {setting}.")
    return socket.socket(family, kind, protocol)


def session(setting: str = OUTBOUND) -> aiohttp.ClientSession:
    # Each loop and setting has a session of its own, so that the settings share no open connection.
    key = asyncio.get_running_loop(), setting
    found = _sessions.get(key)
    if found is None or found.closed:
        connector = aiohttp.TCPConnector(
            limit=0,
            keepalive_timeout=KEEPALIVE_SECONDS,
            socket_factory=partial(_open_socket, setting),
            ttl_dns_cache=30,
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


async def post(url: str, *, body: bytes, headers: dict[str, str], connect_seconds: float) -> aiohttp.ClientResponse:
    """POST without following redirects. Only a connection that could not be made is retried, once.

    Raise aiohttp.ClientError, or TimeoutError when connecting takes too long. The caller limits the time of the
    response.
    """
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_seconds)
    client = session()

    async def attempt() -> aiohttp.ClientResponse:
        return await client.post(url, data=body, headers=headers, timeout=timeout, allow_redirects=False)

    try:
        return await attempt()
    except aiohttp.ClientConnectorError as error:
        if isinstance(error.os_error, AddressRefused):
            raise
    return await attempt()


async def get(url: str, *, connect_seconds: float) -> aiohttp.ClientResponse:
    """GET a link without following redirects, which are the caller's to judge, like time limits.

    Raise aiohttp.ClientError, also for a text that is no URL, or TimeoutError when connecting takes too long.
    """
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_seconds)
    return await session(LINKS).get(url, timeout=timeout, allow_redirects=False)


async def read(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """Return the body of the response. Raise ValueError if it is longer than `max_bytes`."""
    pieces, size = [], 0
    while piece := await response.content.readany():
        size += len(piece)
        if size > max_bytes:
            raise ValueError("the answer is too long")
        pieces.append(piece)
    return b"".join(pieces)


async def close() -> None:
    """Close the running loop's sessions."""
    for setting in (OUTBOUND, LINKS):
        found = _sessions.pop((asyncio.get_running_loop(), setting), None)
        if found is not None:
            await found.close()
