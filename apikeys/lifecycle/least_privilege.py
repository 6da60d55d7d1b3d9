"""Proposes to narrow a key to what it really uses, and tells when a change would widen it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.utils import timezone

from apikeys.access.endpoints import unrecorded_endpoints
from apikeys.accounting.ledger import DailyUsage, UsageRecord
from apikeys.keys.models import ApiKey

DAYS = 90
# A person could not check a longer list.
MAXIMUM_NETWORKS = 16
# Single addresses are proposed first; if there are too many, the networks that providers usually assign.
PREFIXES = ((32, 128), (24, 64))

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Proposal:
    endpoints: list[str]
    # Empty if the key was used from too many places.
    networks: list[str]


def propose(api_key: ApiKey) -> Proposal:
    # A rare request counts like a frequent one.
    since = timezone.now() - timedelta(days=DAYS)
    records = UsageRecord.objects.filter(key=api_key, created_at__gte=since).order_by()
    daily = DailyUsage.objects.filter(key=api_key, day__gte=since.date()).order_by()
    used = set(records.values_list("endpoint", flat=True).distinct())
    used |= set(daily.values_list("endpoint", flat=True).distinct())
    addresses = records.exclude(client_address=None).values_list("client_address", flat=True).distinct()
    # Whether the key uses these is not known.
    used |= unrecorded_endpoints()
    own = set(api_key.allowed_endpoints)
    networks = networks_of(address for address in addresses if address)
    if api_key.allowed_networks and not all(lies_in(network, api_key.allowed_networks) for network in networks):
        networks = []
    return Proposal(sorted(used & own if own else used), networks)


def networks_of(addresses: Iterable[str]) -> list[str]:
    parsed = [ipaddress.ip_address(address) for address in addresses]
    for short, long in PREFIXES:
        nets = {ipaddress.ip_network((address, short if address.version == 4 else long), False) for address in parsed}
        merged: list[Network] = [
            *ipaddress.collapse_addresses(net for net in nets if isinstance(net, ipaddress.IPv4Network)),
            *ipaddress.collapse_addresses(net for net in nets if isinstance(net, ipaddress.IPv6Network)),
        ]
        if len(merged) <= MAXIMUM_NETWORKS:
            return [str(net) for net in merged]
    return []


def lies_in(network: str, allowed: Iterable[str]) -> bool:
    inner = ipaddress.ip_network(network)
    return any(
        outer.version == inner.version and inner.subnet_of(outer)  # type: ignore[arg-type]
        for outer in map(ipaddress.ip_network, allowed)
    )


def widens(before: ApiKey, changes: Mapping[str, Any]) -> bool:
    """Return whether these columns would let the key do more, longer or from more places than now."""
    after = {name: changes.get(name, getattr(before, name)) for name in ("can_name_app", "expires_at")}
    if after["can_name_app"] and not before.can_name_app:
        return True
    if before.expires_at is not None and (after["expires_at"] is None or after["expires_at"] > before.expires_at):
        return True
    networks, allowed = changes.get("allowed_networks", before.allowed_networks), before.allowed_networks
    if allowed and not (networks and all(lies_in(network, allowed) for network in networks)):
        return True
    for name in ("allowed_endpoints", "allowed_models"):
        own: list[str] = getattr(before, name)
        names = changes.get(name, own)
        if own and not (names and set(names) <= set(own)):
            return True
    return False
