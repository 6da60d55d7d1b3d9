"""Proof that counters and ledger agree: what was used is the sum of usage records and daily rows, what is reserved is
the reservations'."""

import logging
import time
from dataclasses import dataclass

import psycopg
from django.db import OperationalError, connection, models, transaction
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from apikeys.limits import Limit

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
        _("drifted"), help_text=_("How many of them were wrong. They were left as they are.")
    )
    seconds = models.FloatField(_("seconds"), help_text=_("How long admission and recording waited."))

    class Meta:
        verbose_name = _("reconciliation")
        verbose_name_plural = _("reconciliations")
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"{self.drifted} of {self.limits} drifted"


ATTEMPTS = 5
KEPT = 100

SQL = """
SELECT counter.limit_id, counter.used, used_in_records(counter.limit_id, counter.period_start),
    used_in_days(counter.limit_id, counter.period_start), counter.reserved, coalesce(held.amount, 0)
FROM apikeys_counter AS counter
LEFT JOIN LATERAL (
    SELECT sum(part.amount)::bigint AS amount FROM apikeys_reservation AS reservation,
        LATERAL unnest(reservation.limit_ids, reservation.amounts, reservation.period_starts)
            AS part(limit_id, amount, period_start)
    WHERE part.limit_id = counter.limit_id AND part.period_start = counter.period_start
) AS held ON true
ORDER BY counter.limit_id
"""


def reconcile(*, fix: bool = False) -> tuple[int, list[Balance]]:
    """(limits compared, those that drifted), for who needs no more than that."""
    balances = compare(fix=fix)
    return len(balances), [balance for balance in balances if balance.has_drifted]


def compare(*, fix: bool = False) -> list[Balance]:
    """Every limit's balance. With `fix`, counters that drifted are set right.

    Admission and recording wait meanwhile: only while nothing is written can the two sides be compared exactly.
    """
    for _attempt in range(ATTEMPTS - 1):
        try:
            return _compare(fix)
        except OperationalError as error:
            # Admission takes these tables in another order than recording, so no order here suits both.
            if not isinstance(error.__cause__, psycopg.errors.DeadlockDetected):
                raise
    return _compare(fix)


@transaction.atomic
def _compare(fix: bool) -> list[Balance]:
    with connection.cursor() as cursor:
        # A prune writes daily rows only together with usage records, so it waits as well.
        cursor.execute(
            "LOCK TABLE apikeys_reservation, apikeys_usagerecord, apikeys_counter IN SHARE ROW EXCLUSIVE MODE"
        )
        cursor.execute(SQL)
        rows = cursor.fetchall()
        limits = Limit.objects.select_related("team", "key").in_bulk([row[0] for row in rows])
        balances = [Balance(limits[limit_id], *values) for limit_id, *values in rows]
        if fix:
            cursor.executemany(
                "UPDATE apikeys_counter SET used = %s, reserved = %s WHERE limit_id = %s",
                [
                    (balance.used_in_ledger, balance.reserved_by_requests, balance.limit.pk)
                    for balance in balances
                    if balance.has_drifted
                ],
            )
    return balances


def reconcile_and_remember() -> Reconciliation:
    """Compare, set nothing right, and keep the result; the newest hundred stay."""
    began = time.monotonic()
    limits, drifts = reconcile()
    made = Reconciliation.objects.create(limits=limits, drifted=len(drifts), seconds=time.monotonic() - began)
    Reconciliation.objects.filter(pk__lte=made.pk - KEPT).delete()
    if drifts:
        logger.error("%d of %d counters have drifted; see `manage.py reconcile`", len(drifts), limits)
    return made
