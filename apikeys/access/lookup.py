"""The hot path's frozen snapshot of a key's policy, found by the digest of the plaintext."""

import ipaddress
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from psycopg.rows import kwargs_row

from apikeys.access.policy import KeyPolicy, SiteRules
from apikeys.errors import InvalidKey
from apikeys.hot_path.connections import Connection
from apikeys.hot_path.group_commit import Batcher
from apikeys.hot_path.listener import listener
from apikeys.hot_path.snapshots import Snapshots
from apikeys.keys import crypto

LOOKUP_CAPACITY = 5_000
# One row for each digest that exists. A secret that an older pepper signed is found by that pepper's digest
# and moved to the first one; the digest is compared again, since another process may have moved it meanwhile.
LOOKUP_SQL = """
WITH requested AS (
    SELECT * FROM unnest(%(ordinals)s::int[], %(digests)s::bytea[], %(first_digests)s::bytea[])
        AS requested(ordinal, digest, first_digest)
), moved AS (
    UPDATE apikeys_keysecret AS secret SET digest = requested.first_digest, pepper_id = %(pepper_id)s
    FROM requested
    WHERE secret.digest = ANY (%(digests)s::bytea[])
        AND secret.digest = requested.digest AND requested.digest <> requested.first_digest
    RETURNING secret.id
)
SELECT DISTINCT ON (requested.ordinal)
    requested.ordinal, key.id AS key_id, secret.id AS secret_id, key.team_id, key.owner_id,
    owner.username AS owner_name, key.name, secret.last_four, key.app_id, key.can_name_app,
    key.revoked_at IS NOT NULL AS is_revoked,
    (key.disabled_at IS NOT NULL OR team.disabled_at IS NOT NULL OR NOT owner.is_active OR membership.id IS NULL)
        AS is_disabled,
    key.expires_at, secret.expires_at AS secret_expires_at, key.allowed_networks, key.allowed_endpoints,
    key.allowed_models,
    EXISTS (SELECT 1 FROM apikeys_limit AS a_limit
        WHERE a_limit.key_id = key.id OR (a_limit.key_id IS NULL AND a_limit.team_id = key.team_id)) AS has_limits
FROM requested
JOIN apikeys_keysecret AS secret ON secret.digest = ANY (%(digests)s::bytea[]) AND secret.digest = requested.digest
JOIN apikeys_apikey AS key ON key.id = secret.key_id
JOIN apikeys_team AS team ON team.id = key.team_id
JOIN auth_user AS owner ON owner.id = key.owner_id
LEFT JOIN apikeys_membership AS membership ON membership.team_id = key.team_id AND membership.user_id = key.owner_id
ORDER BY requested.ordinal
"""


def _load_policies(connection: Connection, batch: Sequence[dict[str, bytes]]) -> list[KeyPolicy | None]:
    # Each item is {pepper id: digest}, the first pepper's first.
    ordinals, digests, first_digests = [], [], []
    for ordinal, by_pepper in enumerate(batch):
        first = next(iter(by_pepper.values()))
        for digest in by_pepper.values():
            ordinals.append(ordinal)
            digests.append(digest)
            first_digests.append(first)
    cursor = connection.cursor(row_factory=kwargs_row(_numbered_policy))
    rows = cursor.execute(
        LOOKUP_SQL,
        {
            "ordinals": ordinals,
            "digests": digests,
            "first_digests": first_digests,
            "pepper_id": next(iter(settings.API_KEY_PEPPERS)),
        },
    ).fetchall()
    found: list[KeyPolicy | None] = [None] * len(batch)
    for ordinal, policy in rows:
        found[ordinal] = policy
    return found


def _numbered_policy(
    *,
    ordinal: int,
    allowed_networks: Sequence[str],
    allowed_endpoints: Sequence[str],
    allowed_models: Sequence[str],
    **columns: Any,
) -> tuple[int, KeyPolicy]:
    policy = KeyPolicy(
        **columns,
        allowed_networks=tuple(map(ipaddress.ip_network, allowed_networks)),
        allowed_endpoints=frozenset(allowed_endpoints),
        allowed_models=frozenset(allowed_models),
    )
    return ordinal, policy


def _load_site_rules(connection: Connection, batch: Sequence[None]) -> list[SiteRules | None]:
    rows = connection.execute(
        "SELECT endpoint, denied_kinds FROM apikeys_endpointrule "
        "UNION ALL SELECT NULL, NULL WHERE EXISTS (SELECT 1 FROM apikeys_keysecret WHERE is_imported)"
    ).fetchall()
    rules = SiteRules(
        denied_kinds={endpoint: frozenset(kinds) for endpoint, kinds in rows if endpoint is not None},
        has_imported=any(endpoint is None for endpoint, _ in rows),
    )
    return [rules for _ in batch]


policy_batcher: Batcher[dict[str, bytes], KeyPolicy | None] = Batcher(
    "key-lookup", _load_policies, capacity=LOOKUP_CAPACITY
)
site_rules_batcher: Batcher[None, SiteRules | None] = Batcher("site-rules", _load_site_rules, capacity=LOOKUP_CAPACITY)
_policies: Snapshots[bytes, KeyPolicy] = Snapshots(policy_batcher, listener)
_site_rules: Snapshots[str, SiteRules] = Snapshots(site_rules_batcher, listener)


def _first_digest(key: str) -> bytes:
    return crypto.digest(key, next(iter(settings.API_KEY_PEPPERS.values())))


def _must_exist(rules: SiteRules | None) -> SiteRules:
    assert rules is not None  # noqa: S101 - the loader always returns one
    return rules


async def site_rules() -> SiteRules:
    return _must_exist(await _site_rules.get("", None))


def site_rules_from_thread() -> SiteRules:
    return _must_exist(_site_rules.get_from_thread("", None))


async def find_policy(key: str, rules: SiteRules) -> KeyPolicy:
    """Return the policy of the key with this plaintext. Raise InvalidKey, or ServiceUnavailable."""
    if not (rules.has_imported or crypto.is_ours(key)):
        raise InvalidKey
    policy = await _policies.get(_first_digest(key), crypto.digests(key, settings.API_KEY_PEPPERS))
    if policy is None:
        raise InvalidKey
    return policy


def find_policy_from_thread(key: str, rules: SiteRules) -> KeyPolicy:
    if not (rules.has_imported or crypto.is_ours(key)):
        raise InvalidKey
    policy = _policies.get_from_thread(_first_digest(key), crypto.digests(key, settings.API_KEY_PEPPERS))
    if policy is None:
        raise InvalidKey
    return policy
