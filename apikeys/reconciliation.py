"""Proof that counters and ledger agree: what was used is the ledger's sum, what is reserved is the reservations'."""

from dataclasses import dataclass

import psycopg
from django.db import OperationalError, connection, transaction

from apikeys.limits import Limit


@dataclass(frozen=True, slots=True)
class Drift:
    """One limit whose counter is not what it should be."""

    limit: Limit
    used: int
    used_in_ledger: int
    reserved: int
    reserved_by_requests: int


ATTEMPTS = 5

SQL = """
SELECT counter.limit_id, counter.used, used_in_ledger(counter.limit_id, counter.period_start), counter.reserved,
    coalesce(held.amount, 0)
FROM apikeys_counter AS counter
LEFT JOIN LATERAL (
    SELECT sum(part.amount)::bigint AS amount FROM apikeys_reservation AS reservation,
        LATERAL unnest(reservation.limit_ids, reservation.amounts, reservation.period_starts)
            AS part(limit_id, amount, period_start)
    WHERE part.limit_id = counter.limit_id AND part.period_start = counter.period_start
) AS held ON true
ORDER BY counter.limit_id
"""


def reconcile(*, fix: bool = False) -> tuple[int, list[Drift]]:
    """(limits compared, those that drifted). With `fix` their counters are set right.

    Admission and recording wait meanwhile: only while nothing is written can the two sides be compared exactly.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return _reconcile(fix)
        except OperationalError as error:
            # Admission takes these tables in another order than recording, so no order here suits both.
            if not isinstance(error.__cause__, psycopg.errors.DeadlockDetected):
                raise
    return _reconcile(fix)


@transaction.atomic
def _reconcile(fix: bool) -> tuple[int, list[Drift]]:
    with connection.cursor() as cursor:
        cursor.execute(
            "LOCK TABLE apikeys_reservation, apikeys_usagerecord, apikeys_counter IN SHARE ROW EXCLUSIVE MODE"
        )
        cursor.execute(SQL)
        rows = cursor.fetchall()
        wrong = {row[0]: row[1:] for row in rows if (row[1], row[3]) != (row[2], row[4])}
        limits = Limit.objects.select_related("team", "key").in_bulk(list(wrong))
        if fix:
            cursor.executemany(
                "UPDATE apikeys_counter SET used = %s, reserved = %s WHERE limit_id = %s",
                [(used, held, limit_id) for limit_id, (_, used, _, held) in wrong.items()],
            )
    return len(rows), [Drift(limits[limit_id], *values) for limit_id, values in wrong.items()]
