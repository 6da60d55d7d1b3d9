"""Usage and refusals by the hour, rolled up from the ledger every minute, so that pages need not read the ledger.

Up to one moment, `RollupWatermark.until`, every record is in the roll-ups; whoever wants later figures reads the ledger
too. That moment stays some minutes behind the clock. A record that appears later than those (a long answer, one written
off, one that replaces such) is noted by a trigger on the ledger, and its whole hour is rebuilt. What is
pruned from the ledger stays here.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection, models, transaction
from django.utils.translation import gettext_lazy as _

from apikeys.accounting import rollup
from apikeys.accounting.ledger import Outcome
from apikeys.keys.models import ApiKey
from apikeys.teams import Team, unconstrained_key

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
# More than the five minutes after which the trigger notes a record as late, by more than any statement may take.
BEHIND = timedelta(minutes=6)
KEPT_MONTHS = 13
REFUSED = "refused"


class HourlyUsage(models.Model):
    """The sums of one UTC hour, for each way to distinguish its requests. There is one row of each: hours are written
    whole, by one process at a time. Foreign keys without a constraint, as in UsageRecord."""

    hour = models.DateTimeField(_("hour"), db_index=True, help_text=_("The start of the hour."))
    team = unconstrained_key(Team, _("team"))
    key = unconstrained_key(ApiKey, _("key"))
    app = unconstrained_key("chat.App", _("app"), null=True)
    endpoint = models.CharField(_("endpoint"), max_length=100)
    model = models.CharField(_("model"), max_length=200, blank=True)
    outcome = models.CharField(_("outcome"), max_length=10, choices=Outcome.choices)
    requests = models.PositiveBigIntegerField(_("requests"))
    prompt_tokens = models.PositiveBigIntegerField(_("prompt tokens"))
    completion_tokens = models.PositiveBigIntegerField(_("completion tokens"))
    cost_micropoints = models.PositiveBigIntegerField(_("cost micropoints"))

    class Meta:
        indexes = [
            models.Index(fields=["team", "hour"], name="hourly_usage_by_team"),
            models.Index(fields=["key", "hour"], name="hourly_usage_by_key"),
        ]

    def __str__(self) -> str:
        return f"{self.hour}, {self.model or self.endpoint}"


class HourlyRefusals(models.Model):
    """How many requests one UTC hour refused, of a key or of callers without one."""

    hour = models.DateTimeField(_("hour"), db_index=True, help_text=_("The start of the hour."))
    team = unconstrained_key(Team, _("team"), null=True)
    key = unconstrained_key(ApiKey, _("key"), null=True)
    code = models.CharField(_("code"), max_length=50)
    refusals = models.PositiveBigIntegerField(_("refusals"))

    class Meta:
        indexes = [models.Index(fields=["key", "hour"], name="hourly_refusals_by_key")]

    def __str__(self) -> str:
        return f"{self.hour}, {self.code}"


class HourlyTotal(models.Model):
    """The sums of one team's UTC hour, or of all teams together where there is no team; keys are not distinguished.

    With a million keys an hour's usage has as many rows as it had requests; these are few in any case.
    """

    hour = models.DateTimeField(_("hour"), db_index=True, help_text=_("The start of the hour."))
    team = unconstrained_key(Team, _("team"), null=True)
    outcome = models.CharField(_("outcome"), max_length=10, choices=[*Outcome.choices, (REFUSED, "refused")])
    requests = models.PositiveBigIntegerField(_("requests"))
    prompt_tokens = models.PositiveBigIntegerField(_("prompt tokens"), default=0)
    completion_tokens = models.PositiveBigIntegerField(_("completion tokens"), default=0)
    cost_micropoints = models.PositiveBigIntegerField(_("cost micropoints"), default=0)

    class Meta:
        indexes = [models.Index(fields=["team", "hour"], name="hourly_total_by_team")]

    def __str__(self) -> str:
        return f"{self.hour}, {self.outcome}"


class LateHour(models.Model):
    """An hour to which the ledger got a record when it may have been rolled up already. Written by a trigger."""

    hour = models.DateTimeField(_("hour"))

    def __str__(self) -> str:
        return str(self.hour)


class RollupWatermark(models.Model):
    """The one row that says how far the roll-ups reach. Records before that moment are in them, later ones are not."""

    until = models.DateTimeField(_("until"), null=True)

    class Meta:
        verbose_name_plural = _("rollup watermark")
        constraints = [models.CheckConstraint(condition=models.Q(id=1), name="rolled_up_once")]

    def __str__(self) -> str:
        return str(self.until)


# Each team's part of the ledger is found by its index; there is none by time alone. A day that was pruned, or is being,
# has daily rows: what they hold stands at the day's first hour, and such a day is only ever rebuilt as a whole.
USAGE = """
INSERT INTO apikeys_hourlyusage (hour, team_id, key_id, app_id, endpoint, model, outcome,
    requests, prompt_tokens, completion_tokens, cost_micropoints)
SELECT hour, team_id, key_id, app_id, endpoint, model, outcome,
    sum(requests), sum(prompt_tokens), sum(completion_tokens), sum(cost_micropoints)
FROM (
    SELECT date_trunc('hour', record.created_at, 'UTC') AS hour, team_id, key_id, app_id, endpoint, model, outcome,
        1 AS requests, prompt_tokens, completion_tokens, cost_micropoints
    FROM apikeys_team AS team CROSS JOIN LATERAL (
        SELECT * FROM apikeys_usagerecord AS usage
        WHERE usage.team_id = team.id AND usage.created_at >= %(start)s AND usage.created_at < %(end)s
    ) AS record
    UNION ALL
    SELECT day::timestamp AT TIME ZONE 'UTC', team_id, key_id, app_id, endpoint, model, outcome,
        requests, prompt_tokens, completion_tokens, cost_micropoints
    FROM apikeys_dailyusage AS daily
    WHERE day::timestamp AT TIME ZONE 'UTC' >= %(start)s AND day::timestamp AT TIME ZONE 'UTC' < %(end)s
        AND team_id = ANY (ARRAY(SELECT id FROM apikeys_team))
) AS used
GROUP BY hour, team_id, key_id, app_id, endpoint, model, outcome
"""
TOTALS = """
INSERT INTO apikeys_hourlytotal (hour, team_id, outcome, requests, prompt_tokens, completion_tokens, cost_micropoints)
SELECT hour, team_id, outcome, sum(requests), sum(prompt_tokens), sum(completion_tokens), sum(cost_micropoints)
FROM apikeys_hourlyusage WHERE hour >= %(start)s AND hour < %(end)s
GROUP BY GROUPING SETS ((hour, outcome, team_id), (hour, outcome))
"""
REFUSALS = """
INSERT INTO apikeys_hourlyrefusals (hour, team_id, key_id, code, refusals)
SELECT date_trunc('hour', refusal.created_at, 'UTC') AS hour, team_id, key_id, code, sum(sample_weight)
FROM (SELECT id FROM apikeys_team UNION ALL SELECT NULL) AS team CROSS JOIN LATERAL (
    SELECT * FROM apikeys_refusal AS kept
    WHERE kept.team_id = team.id AND kept.created_at >= %(start)s AND kept.created_at < %(end)s
    UNION ALL
    SELECT * FROM apikeys_refusal AS kept
    WHERE team.id IS NULL AND kept.team_id IS NULL AND kept.created_at >= %(start)s AND kept.created_at < %(end)s
) AS refusal
GROUP BY hour, team_id, key_id, code
"""
REFUSED_TOTALS = """
INSERT INTO apikeys_hourlytotal (hour, team_id, outcome, requests, prompt_tokens, completion_tokens, cost_micropoints)
SELECT hour, team_id, 'refused', sum(refusals), 0, 0, 0
FROM apikeys_hourlyrefusals WHERE hour >= %(start)s AND hour < %(end)s AND team_id IS NOT NULL GROUP BY hour, team_id
UNION ALL
SELECT hour, NULL, 'refused', sum(refusals), 0, 0, 0
FROM apikeys_hourlyrefusals WHERE hour >= %(start)s AND hour < %(end)s GROUP BY hour
"""
OLDEST = """
SELECT least(min(oldest.created_at), (
    SELECT min(day)::timestamp AT TIME ZONE 'UTC' FROM apikeys_dailyusage
    WHERE team_id = ANY (ARRAY(SELECT id FROM apikeys_team))
), (SELECT min(created_at) FROM apikeys_refusal WHERE id = (SELECT min(id) FROM apikeys_refusal)))
FROM apikeys_team AS team CROSS JOIN LATERAL (
    SELECT created_at FROM apikeys_usagerecord WHERE team_id = team.id ORDER BY created_at LIMIT 1
) AS oldest
"""


def roll_up() -> None:
    """Bring the roll-ups up to a few minutes ago, in transactions of at most a day each.

    It may be ended at any moment and run twice at once: what is done stays done, and the next run does the rest.
    """
    _rebuild_late_hours()
    while _advance():
        pass
    _delete_old()


def rollup_watermark() -> datetime | None:
    return RollupWatermark.objects.values_list("until", flat=True).get()


def _advance() -> bool:
    """Roll up to the next midnight, or to the present. Return whether there is more to do."""
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        row, now = _begin(cursor)
        target = now.replace(second=0, microsecond=0) - BEHIND
        if row.until is None:
            cursor.execute(OLDEST)
            oldest: datetime | None = cursor.fetchone()[0]
            start = midnight(min(target, max(oldest or target, oldest_kept(now))))
        else:
            start = floor(row.until)
            start = midnight(start) if _is_pruned(cursor, start) else start
            target = max(target, row.until)
        end = min(target, midnight(start) + DAY)
        # Notes are removed before the hours are read: a record that comes from here on leaves a note of its own.
        were_noted, _ = LateHour.objects.filter(hour__gte=start, hour__lt=end).delete()
        if end == row.until and not were_noted:
            return False
        _rebuild_usage(cursor, start, end)
        _rebuild_refusals(cursor, start, end)
        row.until = end
        row.save(update_fields=["until"])
        return end < target


def _rebuild_late_hours() -> None:
    notes = dict(LateHour.objects.values_list("pk", "hour"))
    for hour in sorted(set(notes.values())):
        with transaction.atomic(durable=True), connection.cursor() as cursor:
            row, now = _begin(cursor)
            # The hour in which the roll-ups end is rebuilt whenever they advance.
            if row.until is not None and hour >= floor(row.until):
                continue
            LateHour.objects.filter(pk__in=[pk for pk, noted in notes.items() if noted == hour]).delete()
            if row.until is None or hour < oldest_kept(now):
                continue
            start, length = (midnight(hour), DAY) if _is_pruned(cursor, hour) else (hour, HOUR)
            _rebuild_usage(cursor, start, min(start + length, row.until))


def _begin(cursor: Any) -> tuple[RollupWatermark, datetime]:
    # It takes turns with other runs, and with prunes, which move records between the tables that are summed up here.
    cursor.execute(rollup.LOCK)
    # The planner may be wrong about the ledger's size.
    cursor.execute("SET LOCAL enable_seqscan = off")
    cursor.execute("SELECT clock_timestamp()")
    now: datetime = cursor.fetchone()[0]
    return RollupWatermark.objects.get(), now.astimezone(UTC)


def _is_pruned(cursor: Any, hour: datetime) -> bool:
    # Only the first hour can be in a day that has daily rows: such a day is made whole.
    cursor.execute("SELECT EXISTS (SELECT FROM apikeys_dailyusage WHERE day = (%s AT TIME ZONE 'UTC')::date)", [hour])
    return bool(cursor.fetchone()[0])


def _rebuild_usage(cursor: Any, start: datetime, end: datetime) -> None:
    HourlyUsage.objects.filter(hour__gte=start, hour__lt=end).delete()
    HourlyTotal.objects.filter(hour__gte=start, hour__lt=end).exclude(outcome=REFUSED).delete()
    cursor.execute(USAGE, {"start": start, "end": end})
    cursor.execute(TOTALS, {"start": start, "end": end})


def _rebuild_refusals(cursor: Any, start: datetime, end: datetime) -> None:
    HourlyRefusals.objects.filter(hour__gte=start, hour__lt=end).delete()
    HourlyTotal.objects.filter(hour__gte=start, hour__lt=end, outcome=REFUSED).delete()
    cursor.execute(REFUSALS, {"start": start, "end": end})
    cursor.execute(REFUSED_TOTALS, {"start": start, "end": end})


def _delete_old() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        before = oldest_kept(cursor.fetchone()[0].astimezone(UTC))
    tables: Iterable[type[models.Model]] = (HourlyUsage, HourlyRefusals, HourlyTotal)
    for table in tables:
        rows = table._default_manager.filter(hour__lt=before)
        while oldest := rows.order_by("hour").values_list("hour", flat=True).first():
            table._default_manager.filter(hour=oldest).delete()


def oldest_kept(now: datetime) -> datetime:
    months = now.year * 12 + now.month - 1 - KEPT_MONTHS
    return datetime(months // 12, months % 12 + 1, 1, tzinfo=UTC)


def floor(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def midnight(moment: datetime) -> datetime:
    return floor(moment).replace(hour=0)
