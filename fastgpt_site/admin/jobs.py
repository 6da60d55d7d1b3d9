"""The page of background jobs, for those who run the site. What becomes of a job is not decided here."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from procrastinate.contrib.django.models import ProcrastinateJob

from apikeys.admin.long_lists import LongList
from apikeys.admin.scope import SuperusersOnly

STATES = {
    "todo": _("waiting"),
    "doing": _("running"),
    "succeeded": _("succeeded"),
    "failed": _("failed"),
    "cancelled": _("cancelled"),
    "aborting": _("being aborted"),
    "aborted": _("aborted"),
}
# Procrastinate names its columns in English only.
LABELS = {
    "id": _("ID"),
    "task_name": _("task"),
    "queue_name": _("queue"),
    "priority": _("priority"),
    "lock": _("lock"),
    "queueing_lock": _("queueing lock"),
    "attempts": _("attempts"),
    "scheduled_at": _("scheduled at"),
}
ProcrastinateJob._meta.verbose_name, ProcrastinateJob._meta.verbose_name_plural = _("job"), _("jobs")
for name, label in LABELS.items():
    ProcrastinateJob._meta.get_field(name).verbose_name = label  # type: ignore[union-attr]


class StateFilter(admin.SimpleListFilter):
    title, parameter_name = _("state"), "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return list(STATES.items())

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(status=self.value()) if self.value() in STATES else queryset


@admin.register(ProcrastinateJob)
class JobAdmin(SuperusersOnly, LongList):
    """Jobs that wait, run or failed; those that ended well are deleted."""

    list_display = ("id", "task_name", "state", "queue_name", "arguments", "attempts", "scheduled_at")
    list_filter = (StateFilter, "task_name")
    search_fields = ("task_name",)
    ordering = ("-id",)
    sortable_by = ()
    fields = readonly_fields = (
        "id",
        "task_name",
        "state",
        "queue_name",
        "priority",
        "arguments",
        "lock",
        "queueing_lock",
        "attempts",
        "scheduled_at",
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description=_("state"))
    def state(self, job: ProcrastinateJob) -> Any:
        return STATES.get(job.status, job.status)

    @admin.display(description=_("arguments"))
    def arguments(self, job: ProcrastinateJob) -> str:
        return json.dumps(job.args)[:500]
