"""The page of background jobs, for those who run the site. What becomes of a job is not decided here."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from procrastinate.contrib.django.models import ProcrastinateJob

from apikeys.long_lists import LongList
from apikeys.team_scope import SuperusersOnly


@admin.register(ProcrastinateJob)
class JobAdmin(SuperusersOnly, LongList):
    """Jobs that wait, run or failed; those that ended well are deleted."""

    list_display = ("id", "task_name", "status", "queue_name", "arguments", "attempts", "scheduled_at")
    list_filter = ("status", "task_name")
    search_fields = ("task_name",)
    ordering = ("-id",)
    sortable_by = ()
    fields = readonly_fields = (
        "id",
        "task_name",
        "status",
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

    @admin.display(description=_("arguments"))
    def arguments(self, job: ProcrastinateJob) -> str:
        return json.dumps(job.args)[:500]
