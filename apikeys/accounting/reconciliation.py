"""Proof that counters and ledger agree: what was used is the sum of usage records and daily rows, what is reserved is
the reservations'."""

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db import connection, models, transaction
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _
from psycopg.rows import dict_row

from apikeys.accounting.limits import Limit

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Balance:
    """One limit: its counter, and what the counter should be."""

    limit: Limit
    used: int
    used_in_records: int
    used_in_days: int
    reserved: int
    reserved_by_requests: int

    @property
    def used_in_ledger(self) -> int:
        return self.used_in_records + self.used_in_days

    @property
    def has_drifted(self) -> bool:
        return (self.used, self.reserved) != (self.used_in_ledger, self.reserved_by_requests)


class Reconciliation(models.Model):
    """One nightly proof, and what it found."""

    at = models.DateTimeField(_("at"), db_default=Now())
    limits = models.PositiveIntegerField(_("limits"), help_text=_("How many counters were compared."))
    drifted = models.PositiveIntegerField(
        _("drifted"), help_text=_("How many of them were wrong. They were not corrected.")
    )
    seconds = models.FloatField(_("seconds"), help_text=_("How long it took."))

    class Meta:
        verbose_name = _("reconciliation")
        verbose_name_plural = _("reconciliations")
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"{self.drifted} of {self.limits} drifted"


KEPT = 100
LOCK_SECONDS = 5

# One statement sees one moment: whatever changes one side of the comparison changes the other in its transaction.
SQL = """
WITH held AS MATERIALIZED (
    SELECT part.limit_id, part.period_start, sum(part.amount)::bigint AS amount
    FROM apikeys_reservation AS reservation,
        LATERAL unnest(reservation.limit_ids, reservation.amounts, reservation.period_starts)
            AS part(limit_id, amount, period_start)
    GROUP BY part.limit_id, part.period_start
),
compared AS (
    SELECT counter.limit_id, counter.used,
        apikeys_used_in_records(counter.limit_id, counter.period_start) AS used_in_records,
        apikeys_used_in_days(counter.limit_id, counter.period_start) AS used_in_days, counter.reserved,
        coalesce(held.amount, 0) AS reserved_by_requests
    FROM apikeys_counter AS counter
    LEFT JOIN held ON held.limit_id = counter.limit_id AND held.period_start = counter.period_start
)
SELECT * FROM compared
"""
REPAIR = f"""
UPDATE apikeys_counter AS counter
SET used = right_now.used_in_records + right_now.used_in_days, reserved = right_now.reserved_by_requests
FROM ({SQL} WHERE limit_id = ANY (%s)) AS right_now WHERE counter.limit_id = right_now.limit_id
"""  # noqa: S608 - of constants
DRIFTED = SQL + "WHERE (used, reserved) <> (used_in_records + used_in_days, reserved_by_requests) ORDER BY limit_id"


def reconcile() -> tuple[int, list[Balance]]:
    """Return how many limits were compared, and those that drifted. Nobody waits for it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM apikeys_counter")
        (limits,) = cursor.fetchone()
        cursor.execute(DRIFTED)
        return limits, _balances(cursor)


def compare() -> list[Balance]:
    with connection.cursor() as cursor:
        cursor.execute(SQL + "ORDER BY limit_id")
        return _balances(cursor)


@transaction.atomic
def fix(drifts: Iterable[Balance]) -> None:
    """Set right what still drifts. Requests under these limits wait meanwhile; all others do not.

    Raise django.db.OperationalError when somebody else holds the counters for five seconds.
    """
    ids = [balance.limit.pk for balance in drifts]
    with connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
        # All others lock them in this order.
        cursor.execute("SELECT 1 FROM apikeys_counter WHERE limit_id = ANY (%s) ORDER BY limit_id FOR UPDATE", [ids])
        cursor.execute(REPAIR, [ids])


def _balances(cursor: Any) -> list[Balance]:
    cursor.cursor.row_factory = dict_row
    rows: list[dict[str, int]] = cursor.fetchall()
    limits = Limit.objects.select_related("team", "key").in_bulk([row["limit_id"] for row in rows])
    # A limit may have been removed since.
    return [Balance(limits[limit_id], **row) for row in rows if (limit_id := row.pop("limit_id")) in limits]


def reconcile_and_remember() -> Reconciliation:
    began = time.monotonic()
    limits, drifts = reconcile()
    made = Reconciliation.objects.create(limits=limits, drifted=len(drifts), seconds=time.monotonic() - began)
    Reconciliation.objects.filter(pk__lte=made.pk - KEPT).delete()
    if drifts:
        logger.error("%d of %d counters have drifted; see `manage.py reconcile`", len(drifts), limits)
    return made
