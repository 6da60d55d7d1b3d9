"""The one client for every call that leaves this server.

No redirects, no proxies from the environment, and no private address that OUTBOUND_ALLOWED_NETWORKS does not
name. The address is checked where the socket is made, so a name that answers differently the second time it
is asked gains nothing.
"""

import asyncio
import ipaddress
import socket
from functools import cache
from typing import Any

import aiohttp
from django.conf import settings

from apikeys.client_address import Address, Network, is_in, parse_networks

USER_AGENT = "fastgpt-site"
# Shorter than what servers commonly allow (uvicorn 5 s), so that a kept connection is rarely one that just closed.
KEEPALIVE_SECONDS = 4.0
# RFC 6052 and RFC 8215: IPv6 addresses behind which a gateway may have IPv4 ones, private ones too.
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Networks that are not private by their registration, or not yet in every Python, and lead inside all the same:
# clouds' metadata services, and old ways of writing IPv4 in IPv6.
REFUSED = parse_networks(
    [
        *("192.0.0.0/24", "168.63.129.16/32", "192.88.99.0/24"),
        *("::/96", "::ffff:0:0:0/96", "64:ff9b:1::/48", "fec0::/10", "5f00::/16"),
    ]
)
_sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}


class AddressRefused(OSError):
    """The host's address is private and not in OUTBOUND_ALLOWED_NETWORKS."""


@cache
def allowed_networks() -> tuple[Network, ...]:
    return parse_networks(settings.OUTBOUND_ALLOWED_NETWORKS)


def is_allowed(address: Address) -> bool:
    """Whether a call may go to this address: a public one, or one in an allowed network."""
    address = _unwrapped(address)
    if is_in(address, allowed_networks()):
        return True
    return address.is_global and not address.is_multicast and not is_in(address, REFUSED)


def _unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 one leads to by mapping, 6to4 or NAT64; otherwise the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _checked_socket(address_info: Any) -> socket.socket:
    family, kind, protocol, _, destination = address_info
    if not is_allowed(ipaddress.ip_address(destination[0].partition("%")[0])):
        raise AddressRefused("This address may not be called. See OUTBOUND_ALLOWED_NETWORKS.")
    return socket.socket(family, kind, protocol)


def session() -> aiohttp.ClientSession:
    """The running loop's session, made on first use."""
    loop = asyncio.get_running_loop()
    found = _sessions.get(loop)
    if found is None or found.closed:
        connector = aiohttp.TCPConnector(
            limit=0, keepalive_timeout=KEEPALIVE_SECONDS, socket_factory=_checked_socket, ttl_dns_cache=30
        )
        found = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=True,
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
        )
        _sessions[loop] = found
    return found


async def post(url: str, *, body: bytes, headers: dict[str, str], connect_seconds: float) -> aiohttp.ClientResponse:
    """POST, following nothing. A connection that could not be made is tried once more; nothing else is.

    Raises aiohttp.ClientError, or TimeoutError when connecting takes too long. Time limits on the answer are
    the caller's.
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
    """GET, following nothing: where a redirect leads is for the caller to look at. Time limits are the caller's too.

    Raises aiohttp.ClientError, also for what is no URL, or TimeoutError when connecting takes too long.
    """
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_seconds)
    return await session().get(url, timeout=timeout, allow_redirects=False)


async def read(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """The answer's body. Raises ValueError when it is longer."""
    pieces, size = [], 0
    while piece := await response.content.readany():
        size += len(piece)
        if size > max_bytes:
            raise ValueError("the answer is too long")
        pieces.append(piece)
    return b"".join(pieces)


async def close() -> None:
    """Close the running loop's session."""
    found = _sessions.pop(asyncio.get_running_loop(), None)
    if found is not None:
        await found.close()
