"""Alerts about keys that expire soon."""

from django.db import connection

# Thresholds are in days. A key raises the nearest of them that it is within, and each at most once for one end.
THRESHOLDS = [1, 7, 30]

# A key is usable here as it is to authentication.
SQL = """
INSERT INTO apikeys_alert (team_id, key_id, kind, dedup_key, details)
SELECT key.team_id, key.id, 'expiry',
    concat_ws(':', 'expiry', key.id, extract(epoch FROM key.expires_at)::bigint, nearest.days),
    jsonb_build_object('expires_at', key.expires_at, 'days', nearest.days)
FROM apikeys_apikey AS key
JOIN apikeys_team AS team ON team.id = key.team_id AND team.disabled_at IS NULL
JOIN auth_user AS owner ON owner.id = key.owner_id AND owner.is_active
JOIN apikeys_membership AS membership ON membership.team_id = key.team_id AND membership.user_id = key.owner_id
CROSS JOIN LATERAL (
    SELECT min(days) AS days FROM unnest(%(thresholds)s::int[]) AS threshold(days)
    WHERE key.expires_at <= now() + make_interval(days => days)
) AS nearest
WHERE key.expires_at > now() AND key.expires_at <= now() + make_interval(days => %(longest)s)
    AND key.revoked_at IS NULL AND key.disabled_at IS NULL
    AND EXISTS (
        SELECT FROM apikeys_keysecret AS secret
        WHERE secret.key_id = key.id AND (secret.expires_at IS NULL OR secret.expires_at > now())
    )
ON CONFLICT (dedup_key) DO NOTHING
"""


def raise_alerts() -> int:
    """Return how many alerts are new."""
    with connection.cursor() as cursor:
        cursor.execute(SQL, {"thresholds": THRESHOLDS, "longest": max(THRESHOLDS)})
        return int(cursor.rowcount)
