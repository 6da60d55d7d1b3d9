"""Keys and limits that somebody should look at: what the dashboard counts, and filters of their lists that show it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import DateTimeField, F, Func, Q, QuerySet
from django.db.models.functions import Now

from apikeys.accounting.periods import Period

SOON = timedelta(days=30)
LONG_AGO = timedelta(days=90)


def ending_soon(keys: QuerySet[Any]) -> QuerySet[Any]:
    """Keys that work and end within 30 days, the nearest end first."""
    return keys.filter(revoked_at=None, disabled_at=None, expires_at__gt=Now(), expires_at__lte=Now() + SOON).order_by(
        "expires_at"
    )


def unused_keys(keys: QuerySet[Any]) -> QuerySet[Any]:
    """Keys that work, are older than 90 days, and were not used for as long."""
    long_ago = Now() - LONG_AGO
    return keys.filter(revoked_at=None, disabled_at=None, created_at__lt=long_ago).filter(
        Q(activity=None) | Q(activity__last_used_at__lt=long_ago)
    )


def nearly_used_up(limits: QuerySet[Any]) -> QuerySet[Any]:
    """Budgets of whose present period 80 % is used, or more. A counter nobody has met lately stands in an older one."""
    begun = Func("period", "time_zone", Now(), function="apikeys_period_start", output_field=DateTimeField())
    return limits.exclude(period__in=[Period.NOW, Period.MINUTE]).filter(
        amount__gt=0, counter__used__gte=F("amount") - F("amount") / 5, counter__period_start__gte=begun
    )
