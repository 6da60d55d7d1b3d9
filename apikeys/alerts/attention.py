"""Querysets of keys and limits that need attention, for the dashboard and for filters of their lists."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import DateTimeField, F, Func, Q, QuerySet
from django.db.models.functions import Now

from apikeys.accounting.periods import Period
from apikeys.keys.models import ApiKeyQuerySet

SOON = timedelta(days=30)
LONG_AGO = timedelta(days=90)


def expiring_soon(keys: ApiKeyQuerySet) -> QuerySet[Any]:
    """Keys that work and expire within 30 days, the nearest end first."""
    # The lower bound says no more than `usable()`, but without an OR, so that the index can start there.
    return keys.usable().filter(expires_at__gt=Now(), expires_at__lte=Now() + SOON).order_by("expires_at")


def unused_keys(keys: ApiKeyQuerySet) -> QuerySet[Any]:
    """Keys that work, are older than 90 days, and were not used for as long."""
    long_ago = Now() - LONG_AGO
    return (
        keys.usable().filter(created_at__lt=long_ago).filter(Q(activity=None) | Q(activity__last_used_at__lt=long_ago))
    )


def nearly_used_up(limits: QuerySet[Any]) -> QuerySet[Any]:
    """Return budgets whose present period is used to 80 % or more; a counter may still stand in an older period."""
    begun = Func("period", "time_zone", Now(), function="apikeys_period_start", output_field=DateTimeField())
    return limits.exclude(period__in=[Period.NOW, Period.MINUTE]).filter(
        amount__gt=0, counter__used__gte=F("amount") - F("amount") / 5, counter__period_start__gte=begun
    )
