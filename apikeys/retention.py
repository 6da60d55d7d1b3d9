"""How long detail is kept: older usage records become daily rows, in which every total stays what it was."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from django.db import connection
from django.db.models import QuerySet

from apikeys.accounting.ledger import Refusal
from apikeys.accounting.rollup import RECORDS_PER_BATCH, _roll_forward, _roll_up, first_day_kept, start_of
from apikeys.alerts.models import Alert

# A month of 31 days, whatever its time zone, that began on a day before the cut would be counted from detail that is
# gone. One day more, and no period that is counted can reach back so far.
MINIMUM_DAYS = 32
MAXIMUM_DAYS = 36_500
# Refusals explain and count nothing, and anybody can cause them: they go whatever is kept else.
REFUSAL_DAYS = 90
# Reads the whole ledger once.
PREVIEW = """
WITH coming AS (
    SELECT (created_at AT TIME ZONE 'UTC')::date AS day, team_id, key_id, coalesce(app_id, '') AS app_id, endpoint,
        model, outcome, token_source, count(*) AS requests
    FROM apikeys_usagerecord WHERE created_at < %(before)s
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
)
SELECT coalesce(sum(requests), 0)::bigint, count(*) FILTER (WHERE NOT EXISTS (
        SELECT 1 FROM apikeys_dailyusage AS daily
        WHERE (daily.day, daily.team_id, daily.key_id, coalesce(daily.app_id, ''), daily.endpoint, daily.model,
            daily.outcome, daily.token_source) = (coming.day, coming.team_id, coming.key_id, coming.app_id,
            coming.endpoint, coming.model, coming.outcome, coming.token_source)
    )), (
        SELECT count(*) FROM apikeys_counter AS counter JOIN apikeys_limit AS a_limit ON a_limit.id = counter.limit_id
        WHERE counter.period_start < %(before)s AND a_limit.period NOT IN ('now', 'total')
    )
FROM coming
"""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a prune did, or would do: records before a UTC day that were rolled up, and daily rows this added.

    `counters` had stood in a period before that day, and stand in the present one now.
    """

    before: date
    records: int
    daily_rows: int
    counters: int
    # Explanations of what was refused, and alerts that were told.
    refusals: int
    alerts: int


def validate_days(days: int) -> None:
    """Raise ValueError unless detail may be kept for just so many days."""
    if not MINIMUM_DAYS <= days <= MAXIMUM_DAYS:
        raise ValueError(
            f"Detail is kept for {MINIMUM_DAYS} to {MAXIMUM_DAYS} days, not {days}: every period of a limit, "
            "whatever its time zone, must lie wholly in the detail"
        )


def prune(days: int) -> Pruned:
    """Roll up what is older than `days` UTC days, in many short transactions.

    It may be ended at any moment and run twice at once: what is done stays done, and the next run does the rest.
    """
    validate_days(days)
    before = first_day_kept(days)
    # First the counters: none may count from detail that is about to go.
    counters = _roll_forward(before)
    records, daily_rows = _roll_up(before)
    refusals = prune_refusals(min(days, REFUSAL_DAYS))
    alerts = _delete(Alert.objects.filter(**delivered_before(before)))
    return Pruned(before, records, daily_rows, counters, refusals, alerts)


def preview(days: int) -> Pruned:
    """What `prune` would do now. Nothing is changed."""
    validate_days(days)
    before = first_day_kept(days)
    with connection.cursor() as cursor:
        cursor.execute(PREVIEW, {"before": start_of(before)})
        records, daily_rows, counters = cursor.fetchone()
    refusals = refusals_before(first_day_kept(min(days, REFUSAL_DAYS))).count()
    alerts = Alert.objects.filter(**delivered_before(before)).count()
    return Pruned(before, records, daily_rows, counters, refusals, alerts)


def prune_refusals(days: int = REFUSAL_DAYS) -> int:
    """Delete those of more than so many UTC days ago."""
    return _delete(refusals_before(first_day_kept(days)))


def refusals_before(day: date) -> QuerySet[Refusal]:
    """By the time in their ids, which their primary key has in order."""
    return Refusal.objects.filter(pk__lt=f"{int(start_of(day).timestamp()):08x}")


def delivered_before(day: date) -> dict[str, datetime]:
    return {"delivered_at__lt": start_of(day)}


def _delete(rows: QuerySet[Any]) -> int:
    """With what hangs on them; in short transactions."""
    total = 0
    while pks := list(rows.order_by("pk").values_list("pk", flat=True)[:RECORDS_PER_BATCH]):
        rows.model._base_manager.filter(pk__in=pks).delete()
        total += len(pks)
    return total
