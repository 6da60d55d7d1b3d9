"""Refusals: kept so that they can be explained, sampled so that an attack cannot fill the disk.

A secret that is presented after its end by rotation is counted every time, and raises an alert once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from apikeys.errors import RotatedKey, ServiceUnavailable
from apikeys.hot_path.group_commit import Batcher
from apikeys.hot_path.statements import StatementConnection
from apikeys.hot_path.trace import Trace
from apikeys.keys.crypto import PATTERN
from apikeys.storable_text import storable

# So many refusals of one key, or of all callers without one, are kept in one minute and process.
KEPT_WHOLE = 30
MAX_CALLERS = 1_000
# No key is concerned when the API's root or a path that leads nowhere refuses.
NO_ENDPOINTS = {None, "base_url", "unknown_path"}


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A refusal to be. Field names are the table's columns; `reused_secret_id` is none."""

    id: str
    team_id: str | None
    key_id: str | None
    endpoint: str
    status: int
    code: str
    message: str
    requested: dict[str, Any] | None
    limits: list[Any] | None
    refused_by: int | None
    sample_weight: int
    client_address: str | None
    reused_secret_id: int | None


class Sampler:
    """Keeps the first refusals of a minute whole, then one of ten, one of a hundred and so on, for each caller."""

    def __init__(self) -> None:
        self.minute = 0
        self.seen: dict[str | None, int] = {}

    def weigh(self, caller: str | None) -> int:
        minute = int(time.monotonic() // 60)
        if minute != self.minute:
            self.minute, self.seen = minute, {}
        if caller not in self.seen and len(self.seen) >= MAX_CALLERS:
            caller = None
        count = self.seen[caller] = self.seen.get(caller, 0) + 1
        step = 1
        while count > KEPT_WHOLE * step:
            step *= 10
        return step if count % step == 0 else 0


SQL = """
WITH item AS (
    SELECT * FROM jsonb_to_recordset($1::jsonb) AS refused(id text, team_id text, key_id text, endpoint text,
        status smallint, code text, message text, requested jsonb, limits jsonb, refused_by bigint, sample_weight int,
        client_address inet, reused_secret_id bigint)
),
reused AS (
    INSERT INTO apikeys_secretreuse (secret_id, count, last_from)
    SELECT reused_secret_id, count(*), (array_agg(client_address))[1] FROM item
    WHERE reused_secret_id IS NOT NULL GROUP BY reused_secret_id ORDER BY reused_secret_id
    ON CONFLICT (secret_id) DO UPDATE SET count = apikeys_secretreuse.count + excluded.count,
        last_at = statement_timestamp(), last_from = excluded.last_from
    RETURNING secret_id, last_from
),
alerted AS (
    INSERT INTO apikeys_alert (team_id, key_id, kind, dedup_key, details)
    SELECT key.team_id, key.id, 'reuse', 'reuse:' || secret.id, jsonb_build_object(
        'last_four', secret.last_four, 'ended_at', secret.expires_at, 'client_address', host(reused.last_from))
    FROM reused JOIN apikeys_keysecret AS secret ON secret.id = reused.secret_id
    JOIN apikeys_apikey AS key ON key.id = secret.key_id
    WHERE NOT EXISTS (SELECT 1 FROM apikeys_alert AS known WHERE known.dedup_key = 'reuse:' || secret.id)
    ON CONFLICT (dedup_key) DO NOTHING
)
INSERT INTO apikeys_refusal (id, team_id, key_id, endpoint, status, code, message, requested, limits, refused_by,
    sample_weight, client_address)
SELECT id, team_id, key_id, endpoint, status, code, message, requested, limits, refused_by,
    sample_weight, client_address
FROM item WHERE sample_weight > 0
ON CONFLICT (id) DO NOTHING
"""


async def _write(connection: StatementConnection, batch: Sequence[Refused]) -> list[None]:
    await connection.execute(SQL, [msgspec.json.encode(batch)])
    return [None] * len(batch)


batcher: Batcher[Refused, None] = Batcher("refusals", _write, capacity=1_000)
sampler = Sampler()


def keep(trace: Trace) -> None:
    """Keep what this request's answer refused, or let it be counted by one that is kept. Nobody waits for it."""
    refusal, policy, decision = trace.refusal, trace.policy, trace.decision
    if refusal is None or refusal.status >= 500 or (policy is None and trace.endpoint in NO_ENDPOINTS):
        return
    if trace.usage is not None:
        # The request was taken on and is in the ledger, whatever its answer.
        return
    sample_weight = sampler.weigh(trace.key_id)
    is_reuse = isinstance(refusal, RotatedKey) and policy is not None
    if not sample_weight and not is_reuse:
        return
    refused = Refused(
        id=trace.request_id,
        team_id=policy.team_id if policy else None,
        key_id=policy.key_id if policy else None,
        endpoint=trace.endpoint or "",
        status=refusal.status,
        code=refusal.error_code,
        # A caller may have written a key where none belongs.
        message=PATTERN.sub("fastgpt-******", storable(refusal.message))[:1000],
        requested=msgspec.structs.asdict(trace.request) if trace.request else None,
        limits=[msgspec.structs.asdict(limit) for limit in decision.limits] if decision else None,
        refused_by=decision.refused_by if decision else None,
        sample_weight=sample_weight,
        client_address=trace.client_address,
        reused_secret_id=policy.secret_id if policy and is_reuse else None,
    )
    try:
        batcher.enqueue(refused)
    except ServiceUnavailable:
        # The database is behind or gone. Refusals must not pile up in memory; the log line has this one.
        return
