"""Comparison of counters with the ledger, for the limits of a test.

Other tests write to the ledger directly, past the counters of theirs.
"""

from apikeys.accounting.limits import Limit
from apikeys.accounting.reconciliation import Balance, reconcile


def newest_limit() -> int:
    """Return its id, or 0 when there is none."""
    return Limit.objects.order_by("-pk").values_list("pk", flat=True).first() or 0


def drifted_since(limit_id: int) -> list[Balance]:
    """Return the limits made after this one whose counters are not what they should be."""
    return [balance for balance in reconcile()[1] if balance.limit.pk > limit_id]
