"""What a key's page shows besides its form. However much the key was used, it costs the same few queries."""

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
from apikeys.access.policy import KINDS
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
# So many of the newest requests are looked through for endpoints and addresses: a busy key's page stays quick.
MAXIMUM_RECORDS = 10_000
SPANS = {
    "day": gettext_lazy("Last 24 hours"),
    "month": gettext_lazy("Last 30 days"),
    "year": gettext_lazy("Last 52 weeks"),
}


@dataclass(frozen=True, slots=True)
class LimitBar:
    """One limit, how far it is used up, and when it begins anew."""

    limit: Limit
    # Of an amount of 0, which refuses everything, all is used.
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
    """What this user may see of it, for the template."""
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
        # Two steps in one query: the planner would otherwise group a busy key's whole month.
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
    """What its kind may call by declaration and rule, and its own list has not taken away."""
    denied = {rule.endpoint: set(rule.denied_kinds) for rule in EndpointRule.objects.all()}
    own = set(api_key.allowed_endpoints)
    found = set()
    for route in routes():
        endpoint = route.view.endpoint
        lowered = denied.get(endpoint, set())
        if api_key.kind not in lowered and KINDS[api_key.kind] & (route.view.api_key_access - lowered):
            found.add(endpoint)
    return found & own if own else found


def endpoint_uses(api_key: ApiKey, recent: QuerySet[UsageRecord]) -> list[EndpointUse]:
    """Those that it may call, and those that it did."""
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
    """One change of the key: in the words of whoever made it in the admin, or field by field from the audit."""

    at: datetime
    who: str
    words: str = ""
    lines: Sequence[tuple[Any, Any, Any]] = ()


def trail_of(api_key: ApiKey, *, has_audit: bool) -> list[Change]:
    """Who changed it, the newest first: by whatever way, or without the audit what was done in the admin."""
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
