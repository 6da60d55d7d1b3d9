"""What needs attention: keys, limits and alerts that the dashboard lists."""

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
from apikeys.alerts.deliveries import given_up
from apikeys.alerts.models import Alert
from apikeys.keys.models import ApiKey
from apikeys.teams import Team

# So many rows of what needs a hand are named; of more there is the list.
NAMED = 5
COUNTED = 100
# Of more keys or limits than that, not all are looked through while somebody waits for this page.
LOOKED_THROUGH = 10_000


@dataclass(frozen=True, slots=True)
class Task:
    """Something that needs a hand: some of its rows by name, and the list that shows all."""

    title: str
    count: str
    rows: list[tuple[str, str, str]]
    url: str


def change_url(name: str) -> Callable[[Any], str]:
    return lambda pk: reverse(f"admin:{name}_change", args=[pk])


def open_tasks(user: Any, team: Team | None) -> Iterable[Task]:
    """What needs a hand, of the chosen team or all of the viewer's; what they may not view is left out."""

    def of(model: Any) -> QuerySet[Any]:
        rows = model.objects.for_user(user)
        return rows.for_team(team.pk) if team else rows  # type: ignore[no-any-return]

    def is_long(rows: QuerySet[Any]) -> bool:
        return rows.order_by().values("pk")[: LOOKED_THROUGH + 1].count() > LOOKED_THROUGH

    def task(
        title: str, rows: QuerySet[Any], name: str, query: str, tell: Callable[[Any], tuple[str, str]]
    ) -> Task | None:
        count = len(rows.order_by().values_list("pk", flat=True)[: COUNTED + 1])
        named = [(*tell(row), change_url(name)(row.pk)) for row in rows.select_related("team")[:NAMED]] if count else []
        told = _("more than {count}").format(count=COUNTED) if count > COUNTED else str(count)
        asked = {query: "yes"} | ({"team__id__exact": team.pk} if team else {})
        url = reverse(f"admin:{name}_changelist") + "?" + urlencode(asked)
        return Task(title, told, named, url) if count else None

    found: list[Task | None] = []
    if user.has_perm("apikeys.view_limit"):
        limits = of(Limit)
        if is_long(limits):
            # By an index of the counters. A budget that was lowered since is not among them before it is met again.
            limits = limits.filter(counter__alerted__gte=ALERTED_AT_80)
        limits = attention.nearly_used_up(limits).select_related("team", "key", "counter")
        found.append(task(_("Budgets used to 80% or more"), limits, "apikeys_limit", "nearly_used_up", describe_limit))
    if user.has_perm("apikeys.view_apikey"):
        keys = of(ApiKey)
        ending = attention.ending_soon(keys)
        found.append(task(_("Keys that expire within 30 days"), ending, "apikeys_apikey", "ends_soon", describe_expiry))
        if not is_long(keys):
            idle = attention.unused(keys).select_related("activity").order_by("created_at")
            found.append(task(_("Keys unused for 90 days"), idle, "apikeys_apikey", "unused", describe_last_use))
        else:
            asked = {"unused": "yes"} | ({"team__id__exact": team.pk} if team else {})
            url = reverse("admin:apikeys_apikey_changelist") + "?" + urlencode(asked)
            found.append(Task(_("Keys unused for 90 days"), "", [], url))
    if user.has_perm("apikeys.view_alert"):
        alerts = given_up(of(Alert)).select_related("key").order_by("-pk")
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
