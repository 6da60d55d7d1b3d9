"""Alerts about keys that expire soon."""

from typing import Any

from django.db import connection

from apikeys.alerts.attention import SOON, expiring_soon
from apikeys.keys.models import ApiKey

# In days. A key raises the nearest of them that it is within, and each at most once for one end.
THRESHOLDS = [1, 7, SOON.days]

# The clock is that of `usable()`: the statement's, not the transaction's.
SQL = """
INSERT INTO apikeys_alert (team_id, key_id, kind, dedup_key, details)
SELECT key.team_id, key.id, 'expiry',
    concat_ws(':', 'expiry', key.id, extract(epoch FROM key.expires_at)::bigint, nearest.days),
    jsonb_build_object('expires_at', key.expires_at, 'days', nearest.days)
FROM ({keys}) AS key
CROSS JOIN LATERAL (
    SELECT min(days) AS days FROM unnest(%s::int[]) AS threshold(days)
    WHERE key.expires_at <= statement_timestamp() + make_interval(days => days)
) AS nearest
ON CONFLICT (dedup_key) DO NOTHING
"""


def statement() -> tuple[str, list[Any]]:
    """SQL that raises the alerts which are due, and its parameters."""
    rows = expiring_soon(ApiKey.objects.all()).order_by().values("id", "team_id", "expires_at")
    keys, parameters = rows.query.sql_with_params()
    return SQL.format(keys=keys), [*parameters, THRESHOLDS]


def raise_alerts() -> int:
    """Return how many alerts are new."""
    with connection.cursor() as cursor:
        cursor.execute(*statement())
        return int(cursor.rowcount)
