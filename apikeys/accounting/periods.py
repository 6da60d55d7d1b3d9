"""The measures and periods of limits, and when a period starts and ends."""

from __future__ import annotations

import zoneinfo
from datetime import datetime, timedelta
from decimal import Decimal

from django.core.exceptions import ValidationError
from django.db import models
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from apikeys.accounting import units


class Measure(models.TextChoices):
    """Which quantity a limit counts, in integers. People give and read points, where millionths are counted."""

    REQUESTS = "requests", _("requests")
    TOKENS = "tokens", _("tokens")
    MICROPOINTS = "micropoints", _("millionths of a point")
    OPEN = "open", _("concurrent requests")

    @property
    def unit(self) -> str:
        return gettext("points") if self is Measure.MICROPOINTS else str(self.label)

    def to_unit(self, amount: int) -> Decimal | int:
        return units.points(amount) if self is Measure.MICROPOINTS else amount

    def from_unit(self, number: Decimal) -> int:
        """Return the amount to count. Raise ValueError when it is not whole."""
        return units.micropoints(number) if self is Measure.MICROPOINTS else units.whole(number)

    def text(self, amount: int) -> str:
        return units.points_text(amount) if self is Measure.MICROPOINTS else f"{amount:,}"


class Period(models.TextChoices):
    """Over which time a limit counts. Calendar periods begin at midnight of the limit's time zone."""

    NOW = "now", _("at any moment")
    MINUTE = "minute", _("a minute")
    DAY = "day", _("a day")
    WEEK = "week", _("a week, from Monday")
    MONTH = "month", _("a month")
    TOTAL = "total", _("in total")


def validate_time_zone(value: str) -> None:
    # `localtime` is this machine's, which no other knows, the database least of all.
    if value == "localtime" or value not in zoneinfo.available_timezones():
        complaint = _("%(value)r is not a time zone, such as Europe/Berlin.")
        raise ValidationError(complaint, code="invalid", params={"value": value})


def period_start(period: str, time_zone: str, moment: datetime) -> datetime | None:
    """Return when the period of this moment began, as `apikeys_period_start` does; None where it has no start."""
    local = moment.astimezone(zoneinfo.ZoneInfo(time_zone))
    if period == Period.MINUTE:
        return local.replace(second=0, microsecond=0)
    begun = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    match period:
        case Period.DAY:
            return begun
        case Period.WEEK:
            return begun - timedelta(days=local.weekday())
        case Period.MONTH:
            return begun.replace(day=1)
    return None


def period_end(period: str, start: datetime, time_zone: str) -> datetime | None:
    local = start.astimezone(zoneinfo.ZoneInfo(time_zone))
    match period:
        case Period.MINUTE:
            return start + timedelta(minutes=1)
        case Period.DAY:
            return local + timedelta(days=1)
        case Period.WEEK:
            return local + timedelta(days=7)
        case Period.MONTH:
            return (local.replace(day=1) + timedelta(days=32)).replace(day=1)
    return None
