"""The usage of one key over time, for the plots of its page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from apikeys.accounting.ledger import Outcome
from apikeys.keys.models import ApiKey
from apikeys.statistics import sums as statistics
from apikeys.statistics.sums import Span, Step, UsageScope


@dataclass(frozen=True, slots=True)
class KeySeries:
    """Bars from the oldest to the newest, and what they add up to."""

    labels: list[str]
    complete: list[int]
    others: list[int]
    tokens: int
    micropoints: int

    @property
    def requests(self) -> int:
        return sum(self.complete) + sum(self.others)


def all_series(api_key: ApiKey) -> dict[str, KeySeries]:
    """Return 24 hours by the hour, 30 days by the day and 12 months by the week, in the viewer's time zone."""
    now = timezone.now()
    return {
        "day": _series(api_key, Span.DAY, "hour", now, lambda bar: f"{bar:%H:%M}"),
        "month": _series(api_key, Span.MONTH, "day", now, lambda bar: f"{bar:%m-%d}"),
        "year": _series(api_key, Span.YEAR, "day", now, lambda bar: f"{bar - timedelta(days=bar.weekday()):%Y-%m-%d}"),
    }


def _series(api_key: ApiKey, span: Span, step: Step, now: datetime, label: Callable[[datetime], str]) -> KeySeries:
    """Return bars; neighbors with one label become one bar."""
    scope = UsageScope.of_key(api_key, has_refusals=False)
    series = statistics.series(scope, span, step=step, now=now)
    sums = statistics.sums(scope, span.start(now), now)
    complete: dict[str, int] = {}
    others: dict[str, int] = {}
    for index, bar in enumerate(series.labels):
        name = label(bar)
        everything = sum(counts[index] for counts in series.stacks.values())
        done = series.stacks[Outcome.COMPLETE][index]
        complete[name] = complete.get(name, 0) + done
        others[name] = others.get(name, 0) + everything - done
    return KeySeries(list(complete), list(complete.values()), list(others.values()), sums.tokens, sums.micropoints)
