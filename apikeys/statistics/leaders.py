"""The keys and apps that used most, computed in advance: among a million keys that takes seconds, or a minute."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import connection, models, transaction
from django.utils.translation import gettext_lazy as _

from apikeys.statistics.rollup import BEHIND, rollup_watermark
from apikeys.statistics.sums import Span, UsageScope, Used, top
from apikeys.teams import Team, unconstrained_key

PLACES = 10
# A board may grow so old before it is computed again.
EVERY = {
    Span.DAY: timedelta(minutes=5),
    Span.WEEK: timedelta(minutes=30),
    Span.MONTH: timedelta(hours=3),
    Span.YEAR: timedelta(hours=12),
}


class Leaderboard(models.Model):
    """When the leaders of a range were computed, and from which time."""

    span = models.CharField(_("span"), max_length=4, primary_key=True, choices=Span.choices)
    since = models.DateTimeField(_("since"))
    until = models.DateTimeField(_("until"))

    def __str__(self) -> str:
        return self.span


class Leader(models.Model):
    """A key or an app that is among the first ten of its team by requests, tokens or points."""

    board = models.ForeignKey(
        Leaderboard, verbose_name=_("board"), on_delete=models.CASCADE, db_index=False, related_name="leaders"
    )
    team = unconstrained_key(Team, _("team"))
    is_app = models.BooleanField(_("is app"))
    subject_id = models.CharField(_("subject ID"), max_length=24, help_text=_("The id of the key or the app."))
    requests = models.PositiveBigIntegerField(_("requests"))
    tokens = models.PositiveBigIntegerField(_("tokens"))
    cost_micropoints = models.PositiveBigIntegerField(_("cost micropoints"))
    is_of_all = models.BooleanField(_("is of all"), help_text=_("Whether it is among the top ten of all teams."))

    class Meta:
        indexes = [
            models.Index(fields=["board", "team"], name="leader_by_team"),
            models.Index(fields=["board"], condition=models.Q(is_of_all=True), name="leader_of_all"),
        ]

    def __str__(self) -> str:
        return self.subject_id


RECOMPUTE = """
INSERT INTO apikeys_leader (board_id, team_id, is_app, subject_id, requests, tokens, cost_micropoints, is_of_all)
SELECT %(span)s, team_id, is_app, subject_id, requests, tokens, cost_micropoints,
    least(by_requests, by_tokens, by_points) <= %(places)s
FROM (
    SELECT *,
        least(
            row_number() OVER (PARTITION BY is_app, team_id ORDER BY requests DESC, subject_id),
            row_number() OVER (PARTITION BY is_app, team_id ORDER BY tokens DESC, subject_id),
            row_number() OVER (PARTITION BY is_app, team_id ORDER BY cost_micropoints DESC, subject_id)
        ) AS in_team,
        row_number() OVER (PARTITION BY is_app ORDER BY requests DESC, subject_id) AS by_requests,
        row_number() OVER (PARTITION BY is_app ORDER BY tokens DESC, subject_id) AS by_tokens,
        row_number() OVER (PARTITION BY is_app ORDER BY cost_micropoints DESC, subject_id) AS by_points
    FROM (
        SELECT team_id, GROUPING(key_id) = 1 AS is_app, coalesce(key_id, app_id) AS subject_id,
            sum(requests) AS requests, sum(prompt_tokens::bigint + completion_tokens) AS tokens,
            sum(cost_micropoints) AS cost_micropoints
        FROM apikeys_hourlyusage WHERE hour >= %(since)s
        GROUP BY GROUPING SETS ((team_id, key_id), (team_id, app_id))
    ) AS used
    WHERE subject_id IS NOT NULL
) AS placed
WHERE in_team <= %(places)s
"""


def recompute() -> None:
    until = rollup_watermark()
    if until is None:
        return
    boards = Leaderboard.objects.in_bulk()
    for span, pause in EVERY.items():
        if span not in boards or until - boards[span].until >= pause:
            _recompute(span, until)


def leaders(scope: UsageScope, span: Span, now: datetime) -> tuple[list[Used], datetime]:
    """Return the keys and apps among the first of the scope's teams, in no order, and when they were counted.

    Where nobody has computed them lately, they are counted now, which takes as long as it takes.
    """
    board = Leaderboard.objects.filter(pk=span).first()
    if board is None or now - board.until > 2 * EVERY[span] + BEHIND:
        return top(scope, span.start(now), now, PLACES), now
    found = Leader.objects.filter(board=board)
    # The first of several teams are among the first of each.
    found = found.filter(is_of_all=True) if scope.teams is None else found.filter(team__in=scope.teams)
    rows = found.values("is_app", "subject_id", "requests", "tokens", micropoints=models.F("cost_micropoints"))
    return [Used(**row) for row in rows], board.until


@transaction.atomic(durable=True)
def _recompute(span: Span, until: datetime) -> None:
    with connection.cursor() as cursor:
        # Two workers at once take turns, so that not each adds the same.
        cursor.execute("SELECT pg_advisory_xact_lock(7074002)")
        # One session at a time has a sum for each of a million keys in hand.
        cursor.execute("SET LOCAL work_mem = '128MB'")
        since = span.start(until)
        Leaderboard.objects.filter(pk=span).delete()
        Leaderboard.objects.create(span=span, since=since, until=until)
        cursor.execute(RECOMPUTE, {"span": span.value, "since": since, "places": PLACES})
