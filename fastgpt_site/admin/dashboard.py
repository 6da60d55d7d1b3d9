"""The admin's first page: figures, leaders and open tasks, of the viewer's teams alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin
from django.contrib.admin.widgets import AutocompleteSelect
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest
from django.utils import timezone
from django.utils.formats import date_format, time_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from unfold.widgets import UnfoldAdminSelectWidget

from apikeys.accounting.ledger import Outcome
from apikeys.accounting.reconciliation import Reconciliation
from apikeys.accounting.units import points
from apikeys.admin.scope import has_many, is_searched
from apikeys.hot_path.broadcasts import LIVE_SECONDS
from apikeys.hot_path.servers import ServerProcess
from apikeys.keys.models import ApiKey
from apikeys.statistics.leaders import PLACES, leaders
from apikeys.statistics.rollup import BEHIND, REFUSED, rollup_watermark
from apikeys.statistics.sums import (
    Series,
    Span,
    Step,
    Sums,
    UsageScope,
    Used,
    a_week_before,
    series,
    sums,
    today_begins,
)
from apikeys.teams import Team
from chat.models import App
from fastgpt_site.admin.tasks import change_url, open_tasks
from fastgpt_site.observability import health

STALE = BEHIND + timedelta(minutes=10)

COLORS = {
    Outcome.COMPLETE: "var(--color-primary-600)",
    Outcome.CANCELLED: "var(--color-base-400)",
    Outcome.TERMINATED: "var(--color-blue-500)",
    Outcome.FAILED: "var(--color-red-600)",
    Outcome.LOST: "var(--color-orange-500)",
    REFUSED: "var(--color-yellow-500)",
}
NAMES = {
    Outcome.COMPLETE: gettext_lazy("complete"),
    Outcome.CANCELLED: gettext_lazy("cancelled"),
    Outcome.TERMINATED: gettext_lazy("terminated"),
    Outcome.FAILED: gettext_lazy("failed"),
    Outcome.LOST: gettext_lazy("lost"),
    REFUSED: gettext_lazy("refused"),
}
# These colors are readable on white and on dark.
TICKS = "#778195"
PLOT_OPTIONS = {
    "animation": False,
    "responsive": True,
    "maintainAspectRatio": False,
    "interaction": {"mode": "index", "intersect": False},
    "plugins": {"legend": {"position": "bottom", "labels": {"boxHeight": 8, "boxWidth": 8, "color": TICKS}}},
    "scales": {
        "x": {"stacked": True, "grid": {"display": False}, "ticks": {"color": TICKS, "maxRotation": 0}},
        "y": {"stacked": True, "beginAtZero": True, "ticks": {"color": TICKS, "precision": 0}},
    },
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of today, and what it was a week ago. A share is in percent."""

    title: str
    now: float | None
    before: float | None
    is_share: bool = False

    @property
    def places(self) -> str:
        return "1g" if self.is_share else "-2g"

    @property
    def change(self) -> float | None:
        """Return the change in percent; for a share, in percentage points."""
        if self.now is None or self.before is None:
            return None
        if self.is_share:
            return self.now - self.before
        return (self.now - self.before) * 100 / self.before if self.before else None


def add_figures(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    user: Any = request.user
    teams = Team.objects.for_user(user)
    picker = TeamPicker(request, teams)
    name = request.GET.get("range", "")
    span = Span(name) if name in Span.values else Span.DAY
    now = timezone.now()
    scope = UsageScope(
        picker.scope(),
        has_usage=user.has_perm("apikeys.view_usagerecord"),
        has_refusals=user.has_perm("apikeys.view_refusal"),
    )
    context |= {
        "title": _("Dashboard"),
        "picker": picker,
        "range": span,
        "ranges": [(value, label, _query(value, picker.chosen)) for value, label in Span.choices],
        "tasks": list(open_tasks(user, picker.chosen)),
        "site": _site(now) if user.is_superuser else None,
    }
    if not scope.is_empty:
        context |= {"figures": _figures(scope, now), "plots": _plots(scope, span, now)}
    if scope.has_usage:
        context |= _leaders(user, scope, span, now)
    return context


class TeamPicker:
    """The teams that one may be chosen from. A foreign one, like one that is not, is as if none were chosen."""

    def __init__(self, request: HttpRequest, teams: QuerySet[Team]) -> None:
        field, user = ApiKey._meta.get_field("team"), request.user
        self.user, self.teams = user, teams
        team_id = request.GET.get("team", "")
        self.chosen: Team | None = (
            teams.filter(pk=team_id).first() if 0 < len(team_id) <= 24 and "\0" not in team_id else None
        )
        widget: forms.Widget = UnfoldAdminSelectWidget()
        if has_many(Team, user):
            widget = AutocompleteSelect(field, admin.site)
        choice = forms.ModelChoiceField(teams, required=False, widget=widget, empty_label=_("All teams"))
        self.can_search = not has_many(Team, user) or is_searched(field, request, admin.site)
        self.select = choice.widget.render("team", self.chosen and self.chosen.pk, {"id": "team"})
        self.media = choice.widget.media

    @property
    def is_shown(self) -> bool:
        return self.can_search and len(self.teams.values("pk")[:2]) > 1

    def scope(self) -> tuple[str, ...] | None:
        if self.chosen is not None:
            return (self.chosen.pk,)
        if self.user.is_superuser:
            return None
        return tuple(self.teams.order_by().values_list("pk", flat=True))


def _query(span: str, team: Team | None) -> str:
    return "?" + urlencode({"range": span} | ({"team": team.pk} if team else {}))


def _figures(scope: UsageScope, now: datetime) -> list[Figure]:
    today = sums(scope, today_begins(now), now)
    a_week_ago = a_week_before(now)
    before = sums(scope, today_begins(a_week_ago), a_week_ago)
    figures = []
    if scope.has_usage:
        figures += [
            Figure(_("Requests"), today.accepted, before.accepted),
            Figure(_("Tokens"), today.tokens, before.tokens),
            Figure(_("Points"), float(points(today.micropoints)), float(points(before.micropoints))),
        ]
    if scope.has_refusals:
        figures.append(Figure(_("Refusals"), today.refused, before.refused))
    if scope.has_usage:
        figures.append(Figure(_("Error rate"), _percent(today), _percent(before), is_share=True))
    return figures


def _percent(found: Sums) -> float | None:
    return None if found.error_rate is None else found.error_rate * 100


def _plots(scope: UsageScope, span: Span, now: datetime) -> list[dict[str, Any]]:
    hours = Span.WEEK if span is Span.WEEK else Span.DAY
    days = Span.WEEK if span is Span.DAY else span
    return [
        _plot(_("Requests by hour, {range}").format(range=hours.label), scope, hours, "hour", now),
        _plot(_("Requests by day, {range}").format(range=days.label), scope, days, "day", now),
    ]


def _plot(title: str, scope: UsageScope, span: Span, step: Step, now: datetime) -> dict[str, Any]:
    shown: Series = series(scope, span, step=step, now=now)
    names = [str(NAMES[stack]) for stack in shown.stacks]
    data = {
        "labels": [_tick(label, span, step) for label in shown.labels],
        "datasets": [
            {"label": name, "data": figures, "backgroundColor": COLORS[stack]}
            for name, (stack, figures) in zip(names, shown.stacks.items(), strict=True)
        ],
    }
    return {
        "id": f"by-{step}",
        "title": title,
        "data": json.dumps(data),
        "options": json.dumps(PLOT_OPTIONS),
        "total": sum(map(sum, shown.stacks.values())),
        "first_column": _("Hour") if step == "hour" else _("Day"),
        "headers": names,
        "step": step,
        "rows": list(zip(shown.labels, zip(*shown.stacks.values(), strict=True), strict=True)),
    }


def _tick(label: datetime, span: Span, step: Step) -> str:
    if step == "hour":
        hour = time_format(label, "H:i")
        return hour if span is Span.DAY else f"{date_format(label, 'D')} {hour}"
    return date_format(label, "MONTH_DAY_FORMAT")


def _first(used: Iterable[Used], is_app: bool, attribute: str) -> list[tuple[str, int]]:
    figures = [(row.subject_id, getattr(row, attribute)) for row in used if row.is_app == is_app]
    figures = [(pk, points(figure) if attribute == "micropoints" else figure) for pk, figure in figures if figure]
    return sorted(figures, key=lambda figure: (-figure[1], figure[0]))[:PLACES]


def _leader_row(figure: tuple[str, int], rows: dict[str, Any], url: Callable[[str], str] | None) -> dict[str, Any]:
    pk, number = figure
    row = rows.get(pk)
    return {"name": row or pk, "team": row and row.team, "figure": number, "url": url(pk) if url and row else None}


def _leaders(user: Any, scope: UsageScope, span: Span, now: datetime) -> dict[str, Any]:
    used, as_of = leaders(scope, span, now)
    keys = (
        ApiKey.objects.for_user(user).select_related("team").in_bulk([row.subject_id for row in used if not row.is_app])
    )
    apps = App.objects.for_user(user).select_related("team").in_bulk([row.subject_id for row in used if row.is_app])
    key_url = change_url("apikeys_apikey") if user.has_perm("apikeys.view_apikey") else None
    app_url = change_url("chat_app") if user.has_perm("chat.view_app") else None
    return {
        "as_of": as_of if as_of != now else None,
        "leaders": [
            {
                "title": title,
                "tables": [
                    (measure, [_leader_row(row, names, link) for row in _first(used, is_app, attribute)])
                    for measure, attribute in (
                        (_("requests"), "requests"),
                        (_("tokens"), "tokens"),
                        (_("points"), "micropoints"),
                    )
                ],
            }
            for title, is_app, names, link in ((_("Keys"), False, keys, key_url), (_("Apps"), True, apps, app_url))
        ],
    }


def _site(now: datetime) -> dict[str, Any]:
    until = rollup_watermark()
    processes = ServerProcess.objects.filter(heartbeat_at__gt=Now() - timedelta(seconds=LIVE_SECONDS))
    count = len(found := list(processes.order_by("host", "pid")))
    return {
        "processes": found,
        "process_count": ngettext("{count} server process", "{count} server processes", count).format(count=count),
        "has_worker": health.jobs() == "ok",
        "reconciliation": Reconciliation.objects.first(),
        "rolled_up_until": until,
        "is_behind": until is None or now - until > STALE,
    }
