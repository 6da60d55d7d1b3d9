"""Open tasks: keys, limits and alerts that need attention, as the dashboard lists them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.db.models import QuerySet
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from apikeys.accounting.limits import ALERTED_AT_80, Limit
from apikeys.alerts import attention
from apikeys.alerts.deliveries import undelivered_alerts
from apikeys.alerts.models import Alert
from apikeys.keys.models import ApiKey
from apikeys.teams import Team

# So many rows that need attention are named; the list shows the rest.
NAMED = 5
COUNTED = 100
# Among more keys or limits than that, not all are looked through while somebody waits for this page.
LOOKED_THROUGH = 10_000


@dataclass(frozen=True, slots=True)
class Task:
    """One kind of row that needs attention: some by name, and the list that shows all."""

    title: str
    count: str
    rows: list[tuple[str, str, str]]
    url: str


def change_url(name: str) -> Callable[[Any], str]:
    return lambda pk: reverse(f"admin:{name}_change", args=[pk])


def open_tasks(user: Any, team: Team | None) -> Iterable[Task]:
    def of(model: Any) -> Any:
        rows = model.objects.for_user(user)
        return rows.for_team(team.pk) if team else rows

    def is_long(rows: QuerySet[Any]) -> bool:
        return rows.order_by().values("pk")[: LOOKED_THROUGH + 1].count() > LOOKED_THROUGH

    def task(
        title: str, rows: QuerySet[Any], name: str, query: str, tell: Callable[[Any], tuple[str, str]]
    ) -> Task | None:
        count = len(rows.order_by().values_list("pk", flat=True)[: COUNTED + 1])
        named = [(*tell(row), change_url(name)(row.pk)) for row in rows.select_related("team")[:NAMED]] if count else []
        shown = _("more than {count}").format(count=COUNTED) if count > COUNTED else str(count)
        parameters = {query: "yes"} | ({"team__id__exact": team.pk} if team else {})
        url = reverse(f"admin:{name}_changelist") + "?" + urlencode(parameters)
        return Task(title, shown, named, url) if count else None

    found: list[Task | None] = []
    if user.has_perm("apikeys.view_limit"):
        limits = of(Limit)
        if is_long(limits):
            # An index of the counters finds them. A budget that was lowered since comes in when it is met again.
            limits = limits.filter(counter__alerted__gte=ALERTED_AT_80)
        limits = attention.nearly_used_up(limits).select_related("team", "key", "counter")
        found.append(task(_("Budgets used to 80% or more"), limits, "apikeys_limit", "nearly_used_up", describe_limit))
    if user.has_perm("apikeys.view_apikey"):
        keys = of(ApiKey)
        expiring = attention.expiring_soon(keys)
        found.append(
            task(_("Keys that expire within 30 days"), expiring, "apikeys_apikey", "expires_soon", describe_expiry)
        )
        if not is_long(keys):
            idle = attention.unused_keys(keys).select_related("activity").order_by("created_at")
            found.append(task(_("Keys unused for 90 days"), idle, "apikeys_apikey", "unused", describe_last_use))
        else:
            parameters = {"unused": "yes"} | ({"team__id__exact": team.pk} if team else {})
            url = reverse("admin:apikeys_apikey_changelist") + "?" + urlencode(parameters)
            found.append(Task(_("Keys unused for 90 days"), "", [], url))
    if user.has_perm("apikeys.view_alert"):
        alerts = undelivered_alerts(of(Alert)).select_related("key").order_by("-pk")
        found.append(task(_("Undelivered alerts"), alerts, "apikeys_alert", "given_up", describe_alert))
    return [one for one in found if one is not None]


def describe_limit(limit: Limit) -> tuple[str, str]:
    share = limit.counter.used * 100 // limit.amount
    return f"{limit.key or limit.team}: {limit}", f"{share}%"


def describe_expiry(key: ApiKey) -> tuple[str, str]:
    return f"{key} ({key.team})", date_format(timezone.localtime(key.expires_at), "SHORT_DATETIME_FORMAT")


def describe_last_use(key: ApiKey) -> tuple[str, str]:
    activity = getattr(key, "activity", None)
    return f"{key} ({key.team})", (
        date_format(timezone.localtime(activity.last_used_at), "SHORT_DATE_FORMAT") if activity else _("never used")
    )


def describe_alert(alert: Alert) -> tuple[str, str]:
    return f"{alert.key or alert.team}: {alert.get_kind_display()}", date_format(
        timezone.localtime(alert.created_at), "SHORT_DATETIME_FORMAT"
    )
