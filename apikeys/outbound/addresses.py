"""Which addresses this server may call, and those that a host's name leads to.

No private address is called that is not in OUTBOUND_ALLOWED_NETWORKS, or for links in LINK_ALLOWED_NETWORKS: whoever
may fill a dataset chooses their hosts. The address is checked where the connection is made, so a name that resolves
differently the second time gains nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from functools import cache

from django.conf import settings

from apikeys.client_address import Address, Network, is_in, parse_networks

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
DNS_SECONDS = 30


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


def check_address(host: str, setting: str = OUTBOUND) -> None:
    """Raise AddressRefused unless this address, which may have an IPv6 zone, may be called."""
    if not is_allowed(ipaddress.ip_address(host.partition("%")[0]), setting):
        raise AddressRefused(f"This address may not be called. See {setting}.")


def _unwrap(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one leads to by mapping, 6to4 or NAT64; otherwise the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


class Resolver:
    """The addresses of names, each kept for DNS_SECONDS. Those who ask for one name at once wait for one answer."""

    __slots__ = ("_answers", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._answers: dict[tuple[str, int], tuple[float, asyncio.Task[list[str]]]] = {}

    async def resolve(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host, best first. Raise OSError."""
        key, now = (host, port), self._loop.time()
        found = self._answers.get(key)
        if found is None or found[0] <= now:
            self._answers = {name: answer for name, answer in self._answers.items() if answer[0] > now}
            task = self._loop.create_task(self._look_up(host, port))
            task.add_done_callback(lambda task: self._keep(key, task))
            self._answers[key] = found = (now + DNS_SECONDS, task)
        # Whoever leaves takes the answer from nobody else.
        return await asyncio.shield(found[1])

    def demote(self, host: str, port: int, address: str) -> None:
        """Try this address after the others until the name is resolved anew: it did not take a connection."""
        found = self._answers.get((host, port))
        if found is None or not found[1].done() or found[1].cancelled() or found[1].exception() is not None:
            return
        addresses = found[1].result()
        if address in addresses:
            addresses.remove(address)
            addresses.append(address)

    async def _look_up(self, host: str, port: int) -> list[str]:
        flags = socket.AI_ADDRCONFIG
        found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
        return list(dict.fromkeys(str(info[4][0]) for info in found))

    def _keep(self, key: tuple[str, int], task: asyncio.Task[list[str]]) -> None:
        # A failure is not kept. To ask for it here marks it as seen, also when nobody waits any more.
        if task.cancelled() or task.exception() is not None:
            found = self._answers.get(key)
            if found is not None and found[1] is task:
                del self._answers[key]
