"""How much one key was used over time, for the plots of its page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.db.models import Count, F, Q, Sum
from django.db.models.functions import TruncDate, TruncHour
from django.utils import timezone

from apikeys.models import ApiKey
from apikeys.usage import DailyUsage, Ending, UsageRecord

SUMS = {
    "tokens": Sum(F("prompt_tokens") + F("completion_tokens"), default=0),
    "micropoints": Sum("cost_micropoints", default=0),
}


@dataclass(frozen=True, slots=True)
class Series:
    """Bars from the oldest to the newest, and what they add up to."""

    labels: list[str]
    complete: list[int]
    others: list[int]
    tokens: int
    micropoints: int

    @property
    def requests(self) -> int:
        return sum(self.complete) + sum(self.others)


def all_series(api_key: ApiKey) -> dict[str, Series]:
    """The last 24 hours by the hour, 30 days by the day and 52 weeks by the week. Costs three queries."""
    now = timezone.now().astimezone(UTC)
    hour, today = now.replace(minute=0, second=0, microsecond=0), now.date()
    week = today - timedelta(days=today.weekday())
    days = _days(api_key, week - timedelta(weeks=51))
    return {
        "day": _series(
            [hour - timedelta(hours=back) for back in reversed(range(24))],
            _hours(api_key, hour - timedelta(hours=23)),
            lambda bar: f"{timezone.localtime(bar):%H:%M}",
        ),
        "month": _series(
            [today - timedelta(days=back) for back in reversed(range(30))],
            [row for row in days if row["bar"] > today - timedelta(days=30)],
            lambda bar: f"{bar:%m-%d}",
        ),
        "year": _series(
            [week - timedelta(weeks=back) for back in reversed(range(52))],
            [{**row, "bar": row["bar"] - timedelta(days=row["bar"].weekday())} for row in days],
            lambda bar: f"{bar:%Y-%m-%d}",
        ),
    }


def _hours(api_key: ApiKey, since: datetime) -> list[dict[str, Any]]:
    records = UsageRecord.objects.filter(key=api_key, created_at__gte=since)
    return list(_summed(records.values(bar=TruncHour("created_at", tzinfo=UTC)), Count("pk")))


def _days(api_key: ApiKey, since: date) -> list[dict[str, Any]]:
    """A request is in the ledger or in a daily row, never in both."""
    begin = datetime(since.year, since.month, since.day, tzinfo=UTC)
    records = UsageRecord.objects.filter(key=api_key, created_at__gte=begin)
    daily = DailyUsage.objects.filter(key=api_key, day__gte=since)
    return [
        *_summed(records.values(bar=TruncDate("created_at", tzinfo=UTC)), Count("pk")),
        *_summed(daily.values(bar=F("day")), Sum("requests")),
    ]


def _summed(rows: Any, requests: Any) -> Iterable[dict[str, Any]]:
    complete = requests.copy()
    complete.filter = Q(ending=Ending.COMPLETE)
    return rows.order_by().annotate(all=requests, complete=complete, **SUMS)  # type: ignore[no-any-return]


def _series(bars: list[Any], rows: Iterable[dict[str, Any]], label: Any) -> Series:
    everything, complete = Counter[Any](), Counter[Any]()
    tokens = micropoints = 0
    for row in rows:
        everything[row["bar"]] += row["all"]
        complete[row["bar"]] += row["complete"] or 0
        tokens += row["tokens"]
        micropoints += row["micropoints"]
    return Series(
        labels=[label(bar) for bar in bars],
        complete=[complete[bar] for bar in bars],
        others=[everything[bar] - complete[bar] for bar in bars],
        tokens=tokens,
        micropoints=micropoints,
    )
