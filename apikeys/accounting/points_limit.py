"""The one limit of a key that FastGPT knows besides its end: points in all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from apikeys.accounting.limits import Counter, Limit
from apikeys.accounting.periods import Measure, Period
from apikeys.keys.models import ApiKey


@dataclass(frozen=True, slots=True)
class PointsLimitChange:
    """A change that is planned: what whoever asks for it must have, and how it is done.

    The rights are those of the admin's pages.
    """

    api_key: ApiKey
    # In millionths of a point; None takes the limit away.
    amount: int | None
    # The lowest first, which is the one that counts.
    held: list[Limit]

    @property
    def changes_anything(self) -> bool:
        return self.amount != (self.held[0].amount if self.held else None)

    @property
    def permissions(self) -> list[str]:
        """All that are needed; none for what changes nothing."""
        if not self.changes_anything:
            return []
        if self.amount is None:
            return ["apikeys.delete_limit"]
        if not self.held:
            return ["apikeys.add_limit"]
        return ["apikeys.change_limit", *(["apikeys.delete_limit"] if len(self.held) > 1 else [])]

    @property
    def needs_password(self) -> bool:
        """Whether the key could use more after it, so that the password must have been entered lately."""
        return self.changes_anything and bool(self.held) and (self.amount is None or self.amount > self.held[0].amount)

    def apply(self) -> None:
        """Leave one limit of this amount, or none. Within the transaction that planned it."""
        if not self.changes_anything:
            return
        if self.amount is None:
            for limit in self.held:
                limit.delete()
            return
        if not self.held:
            add_points_limit(self.api_key, self.amount)
            return
        first, *others = self.held
        for other in others:
            other.delete()
        first.amount = self.amount
        if first.soft_amount is not None and first.soft_amount > self.amount:
            # It would never be reached.
            first.soft_amount = None
        first.save(update_fields=["amount", "soft_amount"])


def plan_change(api_key: ApiKey, amount: int | None) -> PointsLimitChange:
    """Plan that the key may use this amount in all. Within a transaction that holds the key's row."""
    held = list(points_limits([api_key.pk]).order_by("amount", "pk"))
    if len(held) > 1:
        # In the order in which requests lock them.
        list(Counter.objects.select_for_update().filter(limit__in=held).order_by("pk"))
    return PointsLimitChange(api_key, amount, held)


def points_limits(key_ids: Iterable[str]) -> Any:
    return Limit.objects.filter(key__in=key_ids, measure=Measure.MICROPOINTS, period=Period.TOTAL)


def add_points_limit(api_key: ApiKey, amount: int) -> None:
    limit = Limit(team_id=api_key.team_id, key=api_key, measure=Measure.MICROPOINTS, period=Period.TOTAL, amount=amount)
    limit.save(force_insert=True)


def points_allowed(key_ids: list[str]) -> dict[str, int]:
    """What each key that has a limit may use, in millionths. Where it has several, the lowest counts."""
    allowed: dict[str, int] = {}
    for limit in points_limits(key_ids).order_by("-amount"):
        allowed[limit.key_id] = limit.amount
    return allowed
