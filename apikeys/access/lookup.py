"""The hot path's frozen snapshot of a key's policy, found by the digest of the plaintext."""

import ipaddress
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from django.conf import settings

from apikeys.access.policy import KeyPolicy, SiteRules
from apikeys.errors import InvalidKey
from apikeys.hot_path.group_commit import Batcher
from apikeys.hot_path.listener import listener
from apikeys.hot_path.snapshots import Snapshots
from apikeys.hot_path.statements import StatementConnection, format_array, format_bytes
from apikeys.keys import crypto

LOOKUP_CAPACITY = 5_000
# One row for each digest that exists. A secret that an older pepper signed is found by that pepper's digest
# and moved to the first one; the digest is compared again, since another process may have moved it meanwhile.
LOOKUP_SQL = """
WITH requested AS (
    SELECT * FROM unnest($1::int[], $2::bytea[], $3::bytea[])
        AS requested(ordinal, digest, first_digest)
), moved AS (
    UPDATE apikeys_keysecret AS secret SET digest = requested.first_digest, pepper_id = $4
    FROM requested
    WHERE secret.digest = ANY ($2::bytea[])
        AND secret.digest = requested.digest AND requested.digest <> requested.first_digest
    RETURNING secret.id
)
SELECT ordinal, row_to_json(policy) FROM (
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
    JOIN apikeys_keysecret AS secret ON secret.digest = ANY ($2::bytea[]) AND secret.digest = requested.digest
    JOIN apikeys_apikey AS key ON key.id = secret.key_id
    JOIN apikeys_team AS team ON team.id = key.team_id
    JOIN auth_user AS owner ON owner.id = key.owner_id
    LEFT JOIN apikeys_membership AS membership ON membership.team_id = key.team_id AND membership.user_id = key.owner_id
    ORDER BY requested.ordinal
) AS policy
"""


SITE_RULES_SQL = """
SELECT json_build_object(
    'denied_kinds', coalesce((SELECT json_object_agg(endpoint, denied_kinds) FROM apikeys_endpointrule), '{}'),
    'has_imported', EXISTS (SELECT 1 FROM apikeys_keysecret WHERE is_imported))
"""
_site_rules_decoder = msgspec.json.Decoder(SiteRules)


async def _load_policies(connection: StatementConnection, batch: Sequence[dict[str, bytes]]) -> list[KeyPolicy | None]:
    # Each item is {pepper id: digest}, the first pepper's first.
    ordinals, digests, first_digests = [], [], []
    for ordinal, by_pepper in enumerate(batch):
        first = next(iter(by_pepper.values()))
        for digest in by_pepper.values():
            ordinals.append(ordinal)
            digests.append(format_bytes(digest))
            first_digests.append(format_bytes(first))
    columns = [format_array(ordinals), format_array(digests), format_array(first_digests)]
    rows = await connection.execute(LOOKUP_SQL, [*columns, next(iter(settings.API_KEY_PEPPERS))])
    found: list[KeyPolicy | None] = [None] * len(batch)
    for ordinal, policy in rows:
        found[int(ordinal)] = _policy(**msgspec.json.decode(policy))
    return found


def _policy(
    *,
    ordinal: int,
    expires_at: str | None,
    secret_expires_at: str | None,
    allowed_networks: Sequence[str],
    allowed_endpoints: Sequence[str],
    allowed_models: Sequence[str],
    **columns: Any,
) -> KeyPolicy:
    return KeyPolicy(
        **columns,
        expires_at=_moment(expires_at),
        secret_expires_at=_moment(secret_expires_at),
        allowed_networks=tuple(map(ipaddress.ip_network, allowed_networks)),
        allowed_endpoints=frozenset(allowed_endpoints),
        allowed_models=frozenset(allowed_models),
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


async def _load_site_rules(connection: StatementConnection, batch: Sequence[None]) -> list[SiteRules | None]:
    [[rules]] = await connection.execute(SITE_RULES_SQL)
    return [_site_rules_decoder.decode(rules)] * len(batch)


policy_batcher: Batcher[dict[str, bytes], KeyPolicy | None] = Batcher(
    "key-lookup", _load_policies, capacity=LOOKUP_CAPACITY
)
site_rules_batcher: Batcher[None, SiteRules | None] = Batcher("site-rules", _load_site_rules, capacity=LOOKUP_CAPACITY)
_policies: Snapshots[bytes, KeyPolicy] = Snapshots(policy_batcher, listener)
_site_rules: Snapshots[str, SiteRules] = Snapshots(site_rules_batcher, listener)


def _must_exist(rules: SiteRules | None) -> SiteRules:
    assert rules is not None  # noqa: S101 - the loader always returns one
    return rules


async def site_rules() -> SiteRules:
    return _must_exist(await _site_rules.get("", None))


def cached_site_rules() -> SiteRules | None:
    return _site_rules.get_cached("")[1]


def site_rules_from_thread() -> SiteRules:
    return _must_exist(_site_rules.get_from_thread("", None))


def _check_form(key: str, rules: SiteRules) -> None:
    """Raise InvalidKey for what can be no key here: it is not worth a look-up."""
    if not (rules.has_imported or crypto.is_ours(key)):
        raise InvalidKey


def find_cached_policy(key: str, rules: SiteRules) -> KeyPolicy | None:
    """Return the policy of a key, or None where the database has to be asked. Raise InvalidKey if there is none."""
    _check_form(key, rules)
    first_pepper = next(iter(settings.API_KEY_PEPPERS.values()))
    is_cached, policy = _policies.get_cached(crypto.digest(key, first_pepper))
    if is_cached and policy is None:
        raise InvalidKey
    return policy


async def find_policy(key: str, rules: SiteRules) -> KeyPolicy:
    """Return the policy of the key with this plaintext. Raise InvalidKey, or ServiceUnavailable."""
    _check_form(key, rules)
    digests = crypto.digests(key, settings.API_KEY_PEPPERS)
    policy = await _policies.get(next(iter(digests.values())), digests)
    if policy is None:
        raise InvalidKey
    return policy


def find_policy_from_thread(key: str, rules: SiteRules) -> KeyPolicy:
    _check_form(key, rules)
    digests = crypto.digests(key, settings.API_KEY_PEPPERS)
    policy = _policies.get_from_thread(next(iter(digests.values())), digests)
    if policy is None:
        raise InvalidKey
    return policy
