"""The policy of a key, frozen as it was read, and the site's rules."""

import ipaddress
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from apikeys.errors import DisabledKey, ExpiredKey, RevokedKey, RotatedKey
from apikeys.keys.kinds import AccessKind

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class KeyPolicy:
    """One key as it was when it was read. Times are compared at each use, not when it was read."""

    key_id: str
    secret_id: int
    team_id: str
    owner_id: int
    owner_name: str
    name: str
    last_four: str
    app_id: str | None
    can_name_app: bool
    is_revoked: bool
    is_disabled: bool
    expires_at: datetime | None
    secret_expires_at: datetime | None
    allowed_networks: tuple[Network, ...]
    allowed_endpoints: frozenset[str]
    allowed_models: frozenset[str]
    # Its own or its team's. Without any, admission costs no round trip.
    has_limits: bool

    @property
    def kind(self) -> AccessKind:
        if self.app_id:
            return AccessKind.APP
        return AccessKind.GLOBAL_NAMING_APP if self.can_name_app else AccessKind.GLOBAL

    @property
    def kinds(self) -> frozenset[AccessKind]:
        """Every kind that this key counts as: one that may name an app is a global key all the same."""
        return KINDS[self.kind]

    def check_usable(self) -> None:
        """Raise the AuthenticationError that says why the key is refused whoever calls, if it is."""
        if self.is_revoked:
            raise RevokedKey
        now = time.time()
        if self.secret_expires_at is not None and self.secret_expires_at.timestamp() <= now:
            raise RotatedKey
        if self.expires_at is not None and self.expires_at.timestamp() <= now:
            raise ExpiredKey(self.last_four)
        if self.is_disabled:
            raise DisabledKey


KINDS = {
    AccessKind.APP: frozenset({AccessKind.APP}),
    AccessKind.GLOBAL: frozenset({AccessKind.GLOBAL}),
    AccessKind.GLOBAL_NAMING_APP: frozenset({AccessKind.GLOBAL, AccessKind.GLOBAL_NAMING_APP}),
}


@dataclass(frozen=True, slots=True)
class SiteRules:
    """What administrators lowered at run time, and whether keys of other systems are about."""

    # By endpoint, where any are denied.
    denied_kinds: dict[str, frozenset[str]]
    has_imported: bool


class Caller(Protocol):
    """A key as endpoints see it: its policy, or the row itself."""

    @property
    def kind(self) -> AccessKind: ...
    @property
    def allowed_endpoints(self) -> Collection[str]: ...


def may_call(caller: Caller, view: Any, denied_kinds: Mapping[str, Collection[str]]) -> bool:
    """Whether a key may call an endpoint: all of its kind may, and its own list does not leave it out."""
    return kind_may_call(caller.kind, view, denied_kinds) and (
        not caller.allowed_endpoints or view.endpoint in caller.allowed_endpoints
    )


def kind_may_call(kind: AccessKind, view: Any, denied_kinds: Mapping[str, Collection[str]]) -> bool:
    """Whether an endpoint's declaration takes this kind of key, and no rule has lowered that."""
    denied = frozenset(denied_kinds.get(view.endpoint, ()))
    return kind not in denied and bool(KINDS[kind] & (view.api_key_access - denied))
