"""Sums of usage and refusals over time: of all teams, of some, or of one key.

They are exact to the record: from the hourly roll-ups where these reach, and from the ledger, by its indexes, for the
parts of hours at either end and for what came since.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from django.db import connection, models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from psycopg.rows import class_row

from apikeys.accounting.ledger import Outcome
from apikeys.keys.models import ApiKey
from apikeys.statistics.rollup import HOUR, REFUSED, floor, oldest_kept, rollup_watermark

# Plots stack them in this order.
STACKS = [*Outcome.values, REFUSED]
Step = Literal["hour", "day"]
Quantity = Literal["requests", "tokens", "micropoints"]


class Span(models.TextChoices):
    """A range of time that ends now. Days begin at midnight of the current time zone, and the present one counts."""

    DAY = "24h", _("24 hours")
    WEEK = "7d", _("7 days")
    MONTH = "30d", _("30 days")
    YEAR = "12m", _("12 months")

    def start(self, now: datetime) -> datetime:
        if self is Span.DAY:
            return floor(now) - 23 * HOUR
        today = today_begins(now)
        if self is Span.YEAR:
            if (today.month, today.day) == (2, 29):
                return today.replace(year=today.year - 1, month=3, day=1)
            return _days_later(today.replace(year=today.year - 1), 1)
        return _days_later(today, -6 if self is Span.WEEK else -29)


@dataclass(frozen=True, slots=True)
class UsageScope:
    """Whose requests are counted: of these teams, None for all, or of one key."""

    teams: tuple[str, ...] | None = ()
    key: str | None = None
    # Figures that the viewer may not see are left out.
    has_usage: bool = True
    has_refusals: bool = True

    @classmethod
    def of_key(cls, api_key: ApiKey, **seen: bool) -> UsageScope:
        return cls((api_key.team_id,), api_key.pk, **seen)

    @property
    def is_empty(self) -> bool:
        return not (self.has_usage or self.has_refusals)

    @property
    def stacks(self) -> list[str]:
        return [*(Outcome.values if self.has_usage else []), *([REFUSED] if self.has_refusals else [])]


@dataclass(frozen=True, slots=True)
class Sums:
    """The requests of some time by how they ended; refused requests have an outcome of their own."""

    requests: dict[str, int]
    tokens: int
    micropoints: int

    @property
    def accepted(self) -> int:
        return sum(count for outcome, count in self.requests.items() if outcome != REFUSED)

    @property
    def refused(self) -> int:
        return self.requests.get(REFUSED, 0)

    @property
    def error_rate(self) -> float | None:
        """Return the share of accepted requests that failed or were lost; None where there were none."""
        errors = self.requests.get(Outcome.FAILED, 0) + self.requests.get(Outcome.LOST, 0)
        return errors / self.accepted if self.accepted else None


@dataclass(frozen=True, slots=True)
class Series:
    """The bars of a plot: the start of each hour or day, and for each outcome a figure for each of them."""

    labels: list[datetime]
    stacks: dict[str, list[int]]


@dataclass(frozen=True, slots=True)
class Part:
    """The sums of one outcome in one hour or day; `bucket` is its start, None where the whole time is summed up."""

    bucket: datetime | None
    outcome: str
    requests: int
    tokens: int
    micropoints: int


@dataclass(frozen=True, slots=True)
class Used:
    """The usage of one key or app."""

    is_app: bool
    subject_id: str
    requests: int
    tokens: int
    micropoints: int


SUMS = """
SELECT CASE WHEN %(step)s <> '' THEN date_trunc(%(step)s, moment, %(zone)s) END AS bucket, outcome,
    sum(requests)::bigint AS requests, sum(tokens)::bigint AS tokens, sum(cost_micropoints)::bigint AS micropoints
FROM ({rows}) AS part
GROUP BY bucket, outcome
"""
OF_TEAMS = """
SELECT hour AS moment, outcome, requests, prompt_tokens::bigint + completion_tokens AS tokens, cost_micropoints
FROM apikeys_hourlytotal
WHERE hour >= %(first)s AND hour < %(last)s AND outcome = ANY (%(outcomes)s)
    AND (%(is_all)s AND team_id IS NULL OR NOT %(is_all)s AND team_id = ANY (%(teams)s))
UNION ALL
SELECT record.created_at, outcome, 1, prompt_tokens::bigint + completion_tokens, cost_micropoints
FROM unnest(%(starts)s::timestamptz[], %(ends)s::timestamptz[]) AS piece (start, "end")
CROSS JOIN unnest(CASE WHEN %(is_all)s THEN ARRAY(SELECT id FROM apikeys_team) ELSE %(teams)s END) AS team (id)
CROSS JOIN LATERAL (
    SELECT * FROM apikeys_usagerecord AS usage
    WHERE usage.team_id = team.id AND usage.created_at >= piece.start AND usage.created_at < piece.end
) AS record
WHERE %(has_usage)s
UNION ALL
SELECT refusal.created_at, 'refused', sample_weight, 0, 0
FROM unnest(%(starts)s::timestamptz[], %(ends)s::timestamptz[]) AS piece (start, "end")
CROSS JOIN unnest(CASE WHEN %(is_all)s THEN ARRAY(SELECT id FROM apikeys_team) ELSE %(teams)s END) AS team (id)
CROSS JOIN LATERAL (
    SELECT * FROM apikeys_refusal AS kept
    WHERE kept.team_id = team.id AND kept.created_at >= piece.start AND kept.created_at < piece.end
) AS refusal
WHERE %(has_refusals)s
UNION ALL
SELECT refusal.created_at, 'refused', sample_weight, 0, 0
FROM unnest(%(starts)s::timestamptz[], %(ends)s::timestamptz[]) AS piece (start, "end")
CROSS JOIN LATERAL (
    SELECT * FROM apikeys_refusal AS kept
    WHERE kept.team_id IS NULL AND kept.created_at >= piece.start AND kept.created_at < piece.end
) AS refusal
WHERE %(has_refusals)s AND %(is_all)s
"""
OF_KEY = """
SELECT hour AS moment, outcome, requests, prompt_tokens::bigint + completion_tokens AS tokens, cost_micropoints
FROM apikeys_hourlyusage
WHERE key_id = %(key)s AND hour >= %(first)s AND hour < %(last)s AND outcome = ANY (%(outcomes)s)
UNION ALL
SELECT hour, 'refused', refusals, 0, 0
FROM apikeys_hourlyrefusals WHERE key_id = %(key)s AND hour >= %(first)s AND hour < %(last)s AND %(has_refusals)s
UNION ALL
SELECT created_at, outcome, 1, prompt_tokens::bigint + completion_tokens, cost_micropoints
FROM unnest(%(starts)s::timestamptz[], %(ends)s::timestamptz[]) AS piece (start, "end")
JOIN apikeys_usagerecord AS usage
    ON usage.key_id = %(key)s AND usage.created_at >= piece.start AND usage.created_at < piece.end
WHERE %(has_usage)s
UNION ALL
SELECT created_at, 'refused', sample_weight, 0, 0
FROM unnest(%(starts)s::timestamptz[], %(ends)s::timestamptz[]) AS piece (start, "end")
JOIN apikeys_refusal AS kept
    ON kept.key_id = %(key)s AND kept.created_at >= piece.start AND kept.created_at < piece.end
WHERE %(has_refusals)s
"""
SUMS_OF_TEAMS, SUMS_OF_KEY = SUMS.format(rows=OF_TEAMS), SUMS.format(rows=OF_KEY)

TOP = """
WITH part AS (
    SELECT key_id, app_id, requests, prompt_tokens::bigint + completion_tokens AS tokens, cost_micropoints
    FROM apikeys_hourlyusage
    WHERE hour >= %(first)s AND hour < %(last)s AND (%(is_all)s OR team_id = ANY (%(teams)s))
    UNION ALL
    SELECT record.key_id, record.app_id, 1, prompt_tokens::bigint + completion_tokens, cost_micropoints
    FROM unnest(%(starts)s::timestamptz[], %(ends)s::timestamptz[]) AS piece (start, "end")
    CROSS JOIN unnest(CASE WHEN %(is_all)s THEN ARRAY(SELECT id FROM apikeys_team) ELSE %(teams)s END) AS team (id)
    CROSS JOIN LATERAL (
        SELECT * FROM apikeys_usagerecord AS usage
        WHERE usage.team_id = team.id AND usage.created_at >= piece.start AND usage.created_at < piece.end
    ) AS record
),
used AS (
    SELECT GROUPING(key_id) = 1 AS is_app, coalesce(key_id, app_id) AS subject_id, sum(requests)::bigint AS requests,
        sum(tokens)::bigint AS tokens, sum(cost_micropoints)::bigint AS micropoints
    FROM part GROUP BY GROUPING SETS (key_id, app_id)
),
placed AS (
    SELECT *, least(
        row_number() OVER (PARTITION BY is_app ORDER BY requests DESC, subject_id),
        row_number() OVER (PARTITION BY is_app ORDER BY tokens DESC, subject_id),
        row_number() OVER (PARTITION BY is_app ORDER BY micropoints DESC, subject_id)
    ) AS place
    FROM used WHERE subject_id IS NOT NULL
)
SELECT is_app, subject_id, requests, tokens, micropoints FROM placed WHERE place <= %(places)s
"""

# One statement reads the points and how far the roll-ups reach. They hold nothing from before the oldest hour kept; and
# where a day was pruned after they had reached into it, all of it is read from what they are made of.
POINTS = """
WITH reach AS (
    SELECT coalesce(CASE WHEN EXISTS (
        SELECT FROM apikeys_dailyusage WHERE key_id = ANY (%(keys)s) AND day = (until AT TIME ZONE 'UTC')::date
    ) THEN date_trunc('day', until, 'UTC') ELSE until END, %(oldest)s) AS until FROM apikeys_rollupwatermark
), part AS (
    SELECT key_id, cost_micropoints FROM apikeys_hourlyusage
    WHERE key_id = ANY (%(keys)s) AND hour >= %(oldest)s AND hour < (SELECT until FROM reach)
    UNION ALL
    SELECT key_id, cost_micropoints FROM apikeys_dailyusage
    WHERE key_id = ANY (%(keys)s) AND (day < (%(oldest)s AT TIME ZONE 'UTC')::date
        OR day::timestamp AT TIME ZONE 'UTC' >= (SELECT until FROM reach))
    UNION ALL
    SELECT key_id, cost_micropoints FROM apikeys_usagerecord
    WHERE key_id = ANY (%(keys)s) AND created_at < %(oldest)s
    UNION ALL
    SELECT key_id, cost_micropoints FROM apikeys_usagerecord
    WHERE key_id = ANY (%(keys)s) AND created_at >= greatest(%(oldest)s, (SELECT until FROM reach))
)
SELECT key_id, sum(cost_micropoints)::bigint FROM part GROUP BY key_id
"""


def series(
    scope: UsageScope, span: Span, *, step: Step, quantity: Quantity = "requests", now: datetime | None = None
) -> Series:
    """Return a figure for each hour or day of the range; each has a label whether anything happened or not.

    Points are in millionths. Where the time zone is not whole hours from UTC, an hour of the roll-ups that lies in two
    days is counted to the one in which it begins.
    """
    now = now or timezone.now()
    start = span.start(now)
    labels = _labels(start, now, step)
    places = {label: index for index, label in enumerate(labels)}
    stacks = {stack: [0] * len(labels) for stack in scope.stacks}
    for part in _sums(scope, labels[0], now, step):
        if part.bucket in places:
            stacks[part.outcome][places[part.bucket]] += getattr(part, quantity)
    return Series([timezone.localtime(label) for label in labels], stacks)


def sums(scope: UsageScope, start: datetime, end: datetime) -> Sums:
    """What happened from `start` on and before `end`."""
    parts = _sums(scope, start, end, "")
    return Sums(
        requests={part.outcome: part.requests for part in parts},
        tokens=sum(part.tokens for part in parts),
        micropoints=sum(part.micropoints for part in parts),
    )


def top(scope: UsageScope, start: datetime, end: datetime, places: int) -> list[Used]:
    """Return the keys and apps that lead by requests, tokens or points, in no order. This reads all their hours."""
    with connection.cursor() as cursor:
        cursor.cursor.row_factory = class_row(Used)
        cursor.execute(TOP, _parameters(scope, start, end) | {"places": places})
        rows: list[Used] = cursor.fetchall()
    return rows


def points_used(key_ids: list[str]) -> dict[str, int]:
    """Return what each key has used in all, in millionths of a point; keys that used nothing are left out."""
    with connection.cursor() as cursor:
        cursor.execute(POINTS, {"keys": key_ids, "oldest": oldest_kept(timezone.now())})
        return dict(cursor.fetchall())


def today_begins(now: datetime) -> datetime:
    return timezone.localtime(now).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)


def a_week_before(moment: datetime) -> datetime:
    return _days_later(timezone.localtime(moment), -7)


def _days_later(local: datetime, days: int) -> datetime:
    """Move by the clock on the wall: an aware datetime of one zone is moved just so."""
    return local + timedelta(days=days)


def _labels(start: datetime, now: datetime, step: Step) -> list[datetime]:
    labels = []
    label = today_begins(start) if step == "day" else floor(start)
    while label <= now:
        # UTC has no times that are left out or come twice.
        labels.append(label.astimezone(UTC))
        label = _days_later(label, 1) if step == "day" else label + HOUR
    return labels


def _sums(scope: UsageScope, start: datetime, end: datetime, step: str) -> list[Part]:
    parameters = _parameters(scope, start, end) | {"step": step, "zone": timezone.get_current_timezone_name()}
    with connection.cursor() as cursor:
        cursor.cursor.row_factory = class_row(Part)
        cursor.execute(SUMS_OF_TEAMS if scope.key is None else SUMS_OF_KEY, parameters)
        rows: list[Part] = cursor.fetchall()
    return rows


def _parameters(scope: UsageScope, start: datetime, end: datetime) -> dict[str, Any]:
    first, last, pieces = _whole_hours(start, end, rollup_watermark())
    return {
        "is_all": scope.teams is None,
        "teams": list(scope.teams or ()),
        "key": scope.key,
        "outcomes": scope.stacks,
        "has_usage": scope.has_usage,
        "has_refusals": scope.has_refusals,
        "first": first,
        "last": last,
        "starts": [piece[0] for piece in pieces],
        "ends": [piece[1] for piece in pieces],
    }


def _whole_hours(
    start: datetime, end: datetime, until: datetime | None
) -> tuple[datetime, datetime, list[tuple[datetime, datetime]]]:
    """Return the first hour of the roll-ups, the hour past their last, and the pieces that the ledger answers.

    The hour in which the roll-ups end holds its part before that moment.
    """
    first = _ceiling(start)
    if until is None:
        return first, first, [(start, end)]
    reached, last = (until, _ceiling(until)) if end > until else (floor(end), floor(end))
    if first >= last:
        return first, first, [(start, end)]
    pieces = [(start, first), (reached, end)]
    return first, last, [piece for piece in pieces if piece[0] < piece[1]]


def _ceiling(moment: datetime) -> datetime:
    hour = floor(moment)
    return hour if hour == moment else hour + HOUR
