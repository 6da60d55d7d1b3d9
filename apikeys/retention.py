"""Retention: usage records that are too old become daily rows, which keep every total."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from django.db import connection
from django.db.models import QuerySet

from apikeys.accounting.ledger import Refusal
from apikeys.accounting.rollup import RECORDS_PER_BATCH, _roll_forward, _roll_up, first_day_kept, start_of
from apikeys.alerts.models import Alert

# A month of 31 days that began before the first day kept, in whatever time zone, would be counted from detail that is
# gone. With one day more, no period can reach back so far.
MINIMUM_DAYS = 32
MAXIMUM_DAYS = 36_500
# Refusals explain but count for nothing, and anybody can cause them: they are pruned whatever else is kept.
REFUSAL_DAYS = 90
# This reads the whole ledger once.
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
    """The result of a prune, or of its preview: records before a UTC day, and the daily rows that they add.

    `counters` were in a period before that day, and are moved to the present one.
    """

    before: date
    records: int
    daily_rows: int
    counters: int
    # Refusals and delivered alerts that are deleted.
    refusals: int
    alerts: int


def validate_days(days: int) -> None:
    if not MINIMUM_DAYS <= days <= MAXIMUM_DAYS:
        raise ValueError(
            f"Detail is kept for {MINIMUM_DAYS} to {MAXIMUM_DAYS} days, not {days}: every period of a limit, "
            "whatever its time zone, must lie wholly in the detail"
        )


def prune(days: int) -> Pruned:
    """Roll up records that are older than `days` UTC days, in many short transactions.

    It may be stopped at any moment, or run twice at once: finished batches stay, and the next run does the rest.
    """
    validate_days(days)
    before = first_day_kept(days)
    # Counters come first: none may count from detail that is about to be deleted.
    counters = _roll_forward(before)
    records, daily_rows = _roll_up(before)
    refusals = prune_refusals(min(days, REFUSAL_DAYS))
    alerts = _delete(Alert.objects.filter(**delivered_before(before)))
    return Pruned(before, records, daily_rows, counters, refusals, alerts)


def preview(days: int) -> Pruned:
    """Return what `prune` would do now, and change nothing."""
    validate_days(days)
    before = first_day_kept(days)
    with connection.cursor() as cursor:
        cursor.execute(PREVIEW, {"before": start_of(before)})
        records, daily_rows, counters = cursor.fetchone()
    refusals = refusals_before(first_day_kept(min(days, REFUSAL_DAYS))).count()
    alerts = Alert.objects.filter(**delivered_before(before)).count()
    return Pruned(before, records, daily_rows, counters, refusals, alerts)


def prune_refusals(days: int = REFUSAL_DAYS) -> int:
    return _delete(refusals_before(first_day_kept(days)))


def refusals_before(day: date) -> QuerySet[Refusal]:
    # Ids begin with their time, so the primary key's index has them in order.
    return Refusal.objects.filter(pk__lt=f"{int(start_of(day).timestamp()):08x}")


def delivered_before(day: date) -> dict[str, datetime]:
    return {"delivered_at__lt": start_of(day)}


def _delete(rows: QuerySet[Any]) -> int:
    # Batches keep transactions short. Dependent rows are deleted as well.
    total = 0
    while pks := list(rows.order_by("pk").values_list("pk", flat=True)[:RECORDS_PER_BATCH]):
        rows.model._base_manager.filter(pk__in=pks).delete()
        total += len(pks)
    return total
