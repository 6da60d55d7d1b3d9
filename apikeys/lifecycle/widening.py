"""Whether a change lets a key do more than it could: such a change needs a password entered lately."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apikeys.keys.models import ApiKey
from apikeys.lifecycle.least_privilege import lies_in


def widens(before: ApiKey, changes: Mapping[str, Any]) -> bool:
    """Whether the key could do more, longer or from more places with these columns than with its own."""
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
