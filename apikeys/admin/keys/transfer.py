"""The admin's export and import of keys."""

from __future__ import annotations

import copy
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin.models import ADDITION, CHANGE, LogEntry
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.db import DataError, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.widgets import UnfoldAdminFileFieldWidget

from apikeys.admin.downloads import CONTENT_TYPES, download, is_too_long
from apikeys.audit import history_messages
from apikeys.keys.models import ApiKey
from apikeys.lifecycle.export import export_rows
from apikeys.lifecycle.import_file import COLUMNS, MAXIMUM_BYTES, Unreadable, read
from apikeys.lifecycle.import_plan import Plan, Planner, apply
from apikeys.sign_in import reauthentication

# The model admin of keys, whose module imports this one.
KeyAdmin = Any
# Nobody reads more lines than this; a summary of all stands above them.
MAXIMUM_SHOWN = 500


class ImportForm(forms.Form):
    file = forms.FileField(
        label=gettext_lazy("File"), widget=UnfoldAdminFileFieldWidget(attrs={"accept": ".csv,.json"})
    )


def export(keys_admin: KeyAdmin, request: HttpRequest, queryset: Any, file_format: str) -> HttpResponse | None:
    if is_too_long(keys_admin, request, queryset):
        return None
    key_ids = list(queryset.order_by().values_list("pk", flat=True))
    rows = ApiKey.objects.filter(pk__in=key_ids).with_state().order_by("-created_at", "-pk")
    return download("keys", file_format, COLUMNS, export_rows(rows))


def export_filtered(keys_admin: KeyAdmin, request: HttpRequest) -> HttpResponse:
    """Export all keys of the list with its filters and search, whichever of its pages the user is on."""
    if not keys_admin.has_view_permission(request):
        raise PermissionDenied
    query: Any = request.GET.copy()
    file_format = query.pop("format", ["csv"])[-1]
    query.pop("p", None)
    back = f"{reverse('admin:apikeys_apikey_changelist')}?{query.urlencode()}"
    if file_format not in CONTENT_TYPES:
        return HttpResponseRedirect(back)
    request.GET = query
    # Unfold's filters read the request from the model admin, which all threads share: hence the copy.
    for_this_request = copy.copy(keys_admin)
    for_this_request.request = request
    try:
        changelist = for_this_request.get_changelist_instance(request)
    except (IncorrectLookupParameters, DataError, ValueError):
        # The list itself shows the error in its filters.
        return HttpResponseRedirect(back)
    return export(keys_admin, request, changelist.queryset, file_format) or HttpResponseRedirect(back)


def import_view(keys_admin: KeyAdmin, request: HttpRequest) -> HttpResponse:
    """Show the plan of a file; apply it when the file is sent again with the digest of that plan."""
    may_add, may_change = keys_admin.has_add_permission(request), keys_admin.has_change_permission(request)
    if not (may_add or may_change):
        raise PermissionDenied
    is_sent = request.method == "POST"
    form = ImportForm(request.POST if is_sent else None, request.FILES if is_sent else None)
    context: dict[str, Any] = {"form": form}
    if form.is_valid():
        file = form.cleaned_data["file"]
        try:
            if file.size > MAXIMUM_BYTES:
                raise Unreadable(_("The file is larger than 5 MB."))
            rows = read(file.read())
            plan, is_done = plan_or_apply(keys_admin, request, rows, may_add=may_add, may_change=may_change)
        except Unreadable as error:
            context["complaint"] = str(error)
        else:
            if is_done:
                return report_done(keys_admin, request, plan)
            is_sent_late = "digest" in request.POST and is_late(request, plan)
            context |= {
                "plan": plan,
                "shown_rows": [row for row in plan.rows if row.is_new or row.changes][:MAXIMUM_SHOWN],
                "shown_mistakes": plan.mistakes[:MAXIMUM_SHOWN],
                "maximum_shown": MAXIMUM_SHOWN,
                "late": reauthentication.reauthentication_error().message if is_sent_late else "",
                "has_changed": "digest" in request.POST and not is_sent_late,
            }
    context |= {
        **keys_admin.admin_site.each_context(request),
        "title": _("Import keys"),
        "opts": keys_admin.opts,
        "columns": COLUMNS,
        "list_url": reverse("admin:apikeys_apikey_changelist"),
    }
    return TemplateResponse(request, "admin/apikeys/apikey/import.html", context)


def is_late(request: HttpRequest, plan: Plan) -> bool:
    return plan.widens and not reauthentication.is_recent(request)


def plan_or_apply(
    keys_admin: KeyAdmin, request: HttpRequest, rows: Any, *, may_add: bool, may_change: bool
) -> tuple[Plan, bool]:
    """Return the plan and whether it was applied: only if it has no mistakes and is the one that was shown."""
    user: Any = request.user
    digest = request.POST.get("digest")
    with transaction.atomic():
        keys = keys_admin.get_queryset(request).order_by("pk")
        if digest is not None:
            keys = keys.select_for_update(of=("self",))
        plan = Planner(user, keys, rows, may_add=may_add, may_change=may_change).plan()
        if plan.mistakes or digest != plan.digest or is_late(request, plan):
            return plan, False
        apply(plan)
        content_type = ContentType.objects.get_for_model(ApiKey)
        LogEntry.objects.bulk_create(
            LogEntry(
                user_id=user.pk,
                content_type=content_type,
                object_id=row.api_key.pk,
                object_repr=str(row.api_key)[:200],
                action_flag=ADDITION if row.is_new else CHANGE,
                change_message=history_messages.IMPORTED()
                if row.is_new
                else history_messages.CHANGED_BY_IMPORT(columns=", ".join(row.changes)),
            )
            for row in [*plan.new, *plan.changed]
        )
        return plan, True


def report_done(keys_admin: KeyAdmin, request: HttpRequest, plan: Plan) -> HttpResponse:
    text = _("Imported: %(new)s new keys, which have no secret until they are rotated; %(changed)s changed.")
    keys_admin.message_user(request, text % {"new": len(plan.new), "changed": len(plan.changed)}, messages.SUCCESS)
    url = reverse("admin:apikeys_apikey_changelist")
    if request.headers.get("HX-Request"):
        return HttpResponse(headers={"HX-Redirect": url})
    return HttpResponseRedirect(url)
