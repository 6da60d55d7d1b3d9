"""The overview on a key's page, beside its form. It costs the same few queries however much the key was used."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.models import Count, Max, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from apikeys.access.endpoints import routes
from apikeys.access.policy import may_call
from apikeys.access.rules import EndpointRule
from apikeys.accounting import units
from apikeys.accounting.ledger import DailyUsage, Refusal, UsageRecord
from apikeys.accounting.limits import Limit
from apikeys.accounting.periods import period_end
from apikeys.admin.audit import lines
from apikeys.audit import history_messages
from apikeys.audit.models import AuditEntry
from apikeys.keys.models import ApiKey
from apikeys.lifecycle.reports import limits_over
from apikeys.statistics.key_series import KeySeries, all_series

ROWS = 20
DAYS = 30
# Endpoints and addresses come from so many of the newest requests, so that a busy key's page stays quick.
MAXIMUM_RECORDS = 10_000
SPANS = {
    "day": gettext_lazy("Last 24 hours"),
    "month": gettext_lazy("Last 30 days"),
    "year": gettext_lazy("Last 52 weeks"),
}


@dataclass(frozen=True, slots=True)
class LimitBar:
    """One limit, how much of it is used, and when its period ends."""

    limit: Limit
    # An amount of 0, which refuses everything, counts as used up.
    percent: int
    left: str
    soft: str
    ends_at: datetime | None

    @property
    def state(self) -> str:
        return "full" if self.percent >= 100 else "near" if self.percent >= 80 else ""


@dataclass(frozen=True, slots=True)
class Plot:
    title: Any
    series: KeySeries
    data: str

    @property
    def points(self) -> Decimal:
        return units.points(self.series.micropoints)


@dataclass(frozen=True, slots=True)
class EndpointUse:
    name: str
    may_call: bool
    requests: int
    last_at: datetime | None


def overview(api_key: ApiKey, user: Any) -> dict[str, Any]:
    """Return the template's context: as much of the key as this user may see."""
    shown: dict[str, Any] = {
        "secrets": api_key.secrets.defer("digest").select_related("reuse").order_by("-pk")[:ROWS],
        "trail": trail_of(api_key, has_audit=user.has_perm("apikeys.view_auditentry")),
    }
    if user.has_perm("apikeys.view_limit"):
        shown["limit_bars"] = [bar(limit) for limit in limits_over(api_key)]
    if user.has_perm("apikeys.view_usagerecord"):
        records = UsageRecord.objects.filter(key=api_key)
        since = timezone.now() - timedelta(days=DAYS)
        newest = records.filter(created_at__gte=since).order_by("-created_at").values("pk")[:MAXIMUM_RECORDS]
        # Without this subquery the planner would group a busy key's whole month.
        recent = UsageRecord.objects.filter(pk__in=newest)
        shown |= {
            "plots": [plot(span, series) for span, series in all_series(api_key).items()],
            "requests": records.select_related("app").defer("limits").order_by("-created_at")[:ROWS],
            "endpoint_uses": endpoint_uses(api_key, recent),
            "addresses": recent.exclude(client_address=None)
            .values("client_address")
            .annotate(requests=Count("pk"), last_at=Max("created_at"))
            .order_by("-last_at")[:ROWS],
            "looked_through": MAXIMUM_RECORDS,
        }
    if user.has_perm("apikeys.view_refusal"):
        shown["refusals"] = (
            Refusal.objects.filter(key=api_key).defer("limits", "requested").order_by("-created_at")[:ROWS]
        )
    return shown


def bar(limit: Limit) -> LimitBar:
    used, reserved, since = limit.current_usage()
    taken = used + reserved
    return LimitBar(
        limit=limit,
        percent=min(100, taken * 100 // limit.amount) if limit.amount else 100,
        left=limit.amount_text(max(0, limit.amount - taken)),
        soft="" if limit.soft_amount is None else limit.amount_text(limit.soft_amount),
        ends_at=None if since is None else period_end(limit.period, since, limit.time_zone),
    )


def plot(span: str, series: KeySeries) -> Plot:
    stacks = [
        {"label": _("Complete"), "data": series.complete, "backgroundColor": "#2563eb", "stack": "requests"},
        {"label": _("Others"), "data": series.others, "backgroundColor": "#d97706", "stack": "requests"},
    ]
    return Plot(SPANS[span], series, json.dumps({"labels": series.labels, "datasets": stacks}))


def callable_endpoints(api_key: ApiKey) -> set[str]:
    denied_kinds = EndpointRule.objects.denied_kinds()
    return {route.view.endpoint for route in routes() if may_call(api_key, route.view, denied_kinds)}


def endpoint_uses(api_key: ApiKey, recent: QuerySet[UsageRecord]) -> list[EndpointUse]:
    """Return the endpoints that the key may call, and those that it called."""
    since = timezone.now().date() - timedelta(days=DAYS)
    used = {
        row["endpoint"]: row
        for row in recent.values("endpoint").order_by().annotate(requests=Count("pk"), last_at=Max("created_at"))
    }
    pruned = set(
        DailyUsage.objects.filter(key=api_key, day__gte=since).order_by().values_list("endpoint", flat=True).distinct()
    )
    may_call = callable_endpoints(api_key)
    return [
        EndpointUse(
            name=name,
            may_call=name in may_call,
            requests=used[name]["requests"] if name in used else 0,
            last_at=used[name]["last_at"] if name in used else None,
        )
        for name in sorted(may_call | used.keys() | pruned)
    ]


@dataclass(frozen=True, slots=True)
class Change:
    """One change of the key: a message of the admin's history, or lines of fields from the audit."""

    at: datetime
    who: str
    words: str = ""
    lines: Sequence[tuple[Any, Any, Any]] = ()


def trail_of(api_key: ApiKey, *, has_audit: bool) -> list[Change]:
    """Return the newest changes first: all of them, or without the audit only those made in the admin."""
    kind = ContentType.objects.get_for_model(ApiKey)
    audited = AuditEntry.objects.filter(content_type=kind, object_pk=api_key.pk).select_related("content_type")
    entries = LogEntry.objects.filter(content_type=kind, object_id=api_key.pk).select_related("user")
    changes = []
    if has_audit:
        changes += [
            Change(entry.timestamp, f"{entry.actor_name} ({entry.get_via_display()})", lines=lines(entry))
            for entry in audited.order_by("-id")[:ROWS]
        ]
    changes += [
        Change(entry.action_time, entry.user.get_username(), history_messages.read(entry.get_change_message()))
        for entry in entries.order_by("-action_time", "-pk")[:ROWS]
    ]
    return sorted(changes, key=lambda change: change.at, reverse=True)[:ROWS]
