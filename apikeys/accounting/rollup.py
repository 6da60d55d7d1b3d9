"""Old usage records become daily rows, in which every total stays as it was."""

from datetime import UTC, date, datetime, time, timedelta

from django.db import connection, transaction

from apikeys.teams import Team

# A transaction takes about a tenth of a second: making a limit waits for it, and recording waits behind that.
RECORDS_PER_BATCH = 2_000
COUNTERS_PER_BATCH = 500
LOCK = "SELECT pg_advisory_xact_lock(7074001)"
# One team's oldest records are taken at a time: an index leads to them, however many there are. A row that is being
# replaced at this moment, as one written off can be, is left for the next time. The moment of the last is where the
# next batch goes on, past the index entries of what is deleted.
ROLL_UP = """
WITH gone AS (
    DELETE FROM apikeys_usagerecord WHERE id = ANY (ARRAY(
        SELECT id FROM apikeys_usagerecord
        WHERE team_id = %(team)s AND created_at >= %(since)s AND created_at < %(before)s
        ORDER BY created_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    ))
    RETURNING *
),
written AS (
    INSERT INTO apikeys_dailyusage AS daily (
        day, team_id, key_id, app_id, endpoint, model, outcome, token_source,
        requests, prompt_tokens, completion_tokens, cost_micropoints, duration_ms)
    SELECT (created_at AT TIME ZONE 'UTC')::date AS day, team_id, key_id, app_id, endpoint, model, outcome,
        token_source, count(*), sum(prompt_tokens), sum(completion_tokens), sum(cost_micropoints), sum(duration_ms)
    FROM gone
    GROUP BY day, team_id, key_id, app_id, endpoint, model, outcome, token_source
    ON CONFLICT (day, team_id, key_id, coalesce(app_id, ''), endpoint, model, outcome, token_source) DO UPDATE SET
        requests = daily.requests + excluded.requests,
        prompt_tokens = daily.prompt_tokens + excluded.prompt_tokens,
        completion_tokens = daily.completion_tokens + excluded.completion_tokens,
        cost_micropoints = daily.cost_micropoints + excluded.cost_micropoints,
        duration_ms = daily.duration_ms + excluded.duration_ms
    -- Only a row that was updated has an xmax.
    RETURNING xmax = 0 AS is_new
)
SELECT (SELECT count(*) FROM gone), (SELECT max(created_at) FROM gone),
    (SELECT count(*) FROM written WHERE is_new)
"""
# Counters are locked in the order of `reserve`, and the time is read after the lock is held.
ROLL_FORWARD = """
WITH behind AS MATERIALIZED (
    SELECT counter.limit_id, a_limit.period, a_limit.time_zone
    FROM apikeys_counter AS counter JOIN apikeys_limit AS a_limit ON a_limit.id = counter.limit_id
    WHERE counter.limit_id > %(after)s AND counter.period_start < %(before)s AND a_limit.period NOT IN ('now', 'total')
    ORDER BY counter.limit_id LIMIT %(limit)s FOR UPDATE OF counter
)
UPDATE apikeys_counter AS counter SET
    period_start = apikeys_period_start(behind.period, behind.time_zone, clock_timestamp()),
    used = 0, reserved = 0, alerted = 0
FROM behind WHERE counter.limit_id = behind.limit_id
RETURNING counter.limit_id
"""


def first_day_kept(days: int) -> date:
    """Return it by the database's clock, which dates records and periods."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date")
        today: date = cursor.fetchone()[0]
    return today - timedelta(days=days)


def start_of(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _roll_forward(before: date) -> int:
    total, after = 0, 0
    while True:
        with connection.cursor() as cursor:
            cursor.execute(ROLL_FORWARD, {"before": start_of(before), "after": after, "limit": COUNTERS_PER_BATCH})
            moved = [limit_id for (limit_id,) in cursor.fetchall()]
        total += len(moved)
        if len(moved) < COUNTERS_PER_BATCH:
            return total
        after = max(moved)


def _roll_up(before: date) -> tuple[int, int]:
    """Return how many records became daily rows, and how many of these rows are new."""
    records = daily_rows = 0
    for team_id in Team.objects.order_by("pk").values_list("pk", flat=True):
        since = datetime.min.replace(tzinfo=UTC)
        while True:
            count, last, new_rows = _roll_up_batch(team_id, since, start_of(before))
            records += count
            daily_rows += new_rows
            if count < RECORDS_PER_BATCH:
                break
            since = last
    return records, daily_rows


def _roll_up_batch(team_id: str, since: datetime, before: datetime) -> tuple[int, datetime, int]:
    """Return how many records were moved, the moment of the newest, and how many daily rows are new."""
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        # Two prunes at once take turns, or they could wait for each other's daily rows in a circle. It ends with the
        # transaction, and so works behind a pooler too.
        cursor.execute(LOCK)
        cursor.execute(ROLL_UP, {"team": team_id, "since": since, "before": before, "limit": RECORDS_PER_BATCH})
        moved: tuple[int, datetime, int] = cursor.fetchone()
    return moved
