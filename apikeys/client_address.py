"""The client address of a request, by one rule for access, logs and audit."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from django.conf import settings
from django.http import HttpRequest

if TYPE_CHECKING:
    from apikeys.hot_path.request import AsyncRequest

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


# An IPv6 address in brackets with a zone and a port is no longer than this. Longer text is not parsed, nor cached.
LONGEST = 80


def client_address(remote: str | None, forwarded_for: str) -> Address | None:
    """Return the rightmost address that is not one of TRUSTED_PROXIES, or None if it cannot be determined.

    Only a trusted proxy is believed about what stands left of it in X-Forwarded-For.
    """
    address = _parse(remote or "")
    hops = [hop for hop in forwarded_for.split(",") if hop.strip()]
    while address is not None and hops and is_in(address, trusted_proxies()):
        address = _parse(hops.pop())
    return address


def address_of(request: HttpRequest | AsyncRequest) -> Address | None:
    return client_address(request.META.get("REMOTE_ADDR"), request.META.get("HTTP_X_FORWARDED_FOR", ""))


def network_of(address: Address) -> str:
    """Return what an address is counted as: whoever has one address of IPv6 has a whole /64 of them."""
    return str(address if address.version == 4 else ipaddress.ip_network((address, 64), strict=False))


def is_in(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks if network.version == address.version)


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


@cache
def trusted_proxies() -> tuple[Network, ...]:
    return parse_networks(settings.TRUSTED_PROXIES)


def _parse(text: str) -> Address | None:
    """Return an address without its port or zone, and IPv4 if it is mapped into IPv6."""
    text = text.strip()
    return _parse_short(text) if len(text) <= LONGEST else None


@lru_cache(maxsize=4096)
def _parse_short(text: str) -> Address | None:
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
