"""The admin's read-only pages of the audit: who changed what, when and from where."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.contrib import admin
from django.contrib.contenttypes.models import ContentType
from django.db.models import DateTimeField, Field, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _

from apikeys.admin.downloads import download, is_too_long
from apikeys.admin.filters import ScopedListFilter
from apikeys.admin.long_lists import LongList, words
from apikeys.admin.scope import ReadOnlyAdmin
from apikeys.audit.models import AuditEntry
from apikeys.audit.recording import audited_models

COLUMNS = (
    "id",
    "timestamp",
    "actor",
    "actor_id",
    "via",
    "remote_addr",
    "request_id",
    "team_id",
    "kind",
    "object_id",
    "object",
    "action",
    "changes",
)


class KindFilter(admin.SimpleListFilter):
    title = _("kind of object")
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        kinds = [(model._meta.label_lower, capfirst(model._meta.verbose_name)) for model in audited_models()]
        return sorted(kinds, key=lambda kind: str(kind[1]))

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if not self.value():
            return queryset
        chosen = [model for model in audited_models() if model._meta.label_lower == self.value()]
        types = ContentType.objects.get_for_models(*chosen).values() if chosen else []
        return queryset.filter(content_type__in=list(types))


# auditlog registers pages of its own, which know no teams.
admin.site.unregister(AuditEntry)


@admin.register(AuditEntry)
class AuditEntryAdmin(LongList, ReadOnlyAdmin):
    list_display = ("timestamp", "who", "via", "what", "kind", "object", "fields_changed", "team")
    list_filter = (
        ("team", ScopedListFilter),
        KindFilter,
        "action",
        ("actor", ScopedListFilter),
        "via",
        ("timestamp", admin.DateFieldListFilter),
    )
    search_fields = ("object_repr", "=object_pk", "actor_name", "=cid")
    search_help_text = _("The name or id of what was changed, who did it, or the id of the request.")
    list_select_related = ("team", "content_type")
    fields = readonly_fields = (
        "timestamp",
        "who",
        "via",
        "remote_addr",
        "request_id",
        "team",
        "kind",
        "object",
        "object_id_",
        "what",
        "change",
    )
    actions = ["export_csv", "export_json"]
    sortable_by = ()
    ordering = ("-id",)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        # Every word has to match some field.
        for word in words(search_term):
            named = Q(object_repr__icontains=word) | Q(actor_name__icontains=word)
            queryset = queryset.filter(named | Q(object_pk=word) | Q(cid=word))
        return queryset, False

    @admin.action(description=_("Export the selected entries as CSV"), permissions=["view"])
    def export_csv(self, request: HttpRequest, queryset: QuerySet[AuditEntry]) -> HttpResponse | None:
        return self._export(request, queryset, "csv")

    @admin.action(description=_("Export the selected entries as JSON"), permissions=["view"])
    def export_json(self, request: HttpRequest, queryset: QuerySet[AuditEntry]) -> HttpResponse | None:
        return self._export(request, queryset, "json")

    def _export(self, request: HttpRequest, queryset: QuerySet[AuditEntry], file_format: str) -> HttpResponse | None:
        if is_too_long(self, request, queryset):
            return None
        entries = queryset.select_related("content_type").order_by("-id").iterator(chunk_size=2_000)
        return download("audit", file_format, COLUMNS, map(as_data, entries))

    @admin.display(description=_("done by"))
    def who(self, entry: AuditEntry) -> str:
        return entry.actor_name or "-"

    @admin.display(description=_("action"))
    def what(self, entry: AuditEntry) -> str:
        return str(entry.get_action_display())

    @admin.display(description=_("kind"))
    def kind(self, entry: AuditEntry) -> str:
        model = entry.content_type.model_class()
        return capfirst(str(model._meta.verbose_name)) if model else str(entry.content_type)

    @admin.display(description=_("object"))
    def object(self, entry: AuditEntry) -> str:
        return str(entry.object_repr)

    @admin.display(description=_("id of the object"))
    def object_id_(self, entry: AuditEntry) -> str:
        return str(entry.object_pk)

    @admin.display(description=_("fields"))
    def fields_changed(self, entry: AuditEntry) -> str:
        # The creation or deletion of a row has all fields.
        is_update = entry.action == AuditEntry.Action.UPDATE
        return ", ".join(sorted(str(line[0]) for line in lines(entry))) if is_update else ""

    @admin.display(description=_("request"))
    def request_id(self, entry: AuditEntry) -> str:
        return entry.cid or "-"

    @admin.display(description=_("change"))
    def change(self, entry: AuditEntry) -> str:
        return render_to_string("admin/apikeys/auditentry/change.html", {"lines": lines(entry)})


def lines(entry: AuditEntry) -> list[tuple[Any, Any, Any]]:
    """Return (field, before, after) for people; for a many-to-many relation, (field, removed, added)."""
    model = entry.content_type.model_class()
    fields: dict[str, Any] = {field.name: field for field in model._meta.get_fields()} if model else {}
    changes = []
    for name, change in (entry.changes or {}).items():
        field = fields.get(name)
        label = capfirst(str(getattr(field, "verbose_name", name)))
        if isinstance(change, dict):
            objects = ", ".join(change["objects"])
            changes.append((label, "", objects) if change["operation"] == "add" else (label, objects, ""))
        else:
            before, after = (readable(field, value) for value in change)
            if (before, after) != ("", ""):
                changes.append((label, before, after))
    return changes


def readable(field: Field[Any, Any] | None, value: Any) -> Any:
    if value is None or value in ("", "None"):
        return ""
    if isinstance(field, DateTimeField):
        try:
            # auditlog stores UTC without the zone.
            return timezone.localtime(datetime.fromisoformat(value).replace(tzinfo=UTC))
        except (TypeError, ValueError, OverflowError):
            return value
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if isinstance(value, list):
        return ", ".join(map(str, value))
    choices = dict(getattr(field, "flatchoices", None) or [])
    return choices.get(value, value)


def as_data(entry: AuditEntry) -> dict[str, Any]:
    kind = entry.content_type
    return {
        "id": entry.pk,
        "timestamp": entry.timestamp.isoformat(),
        "actor": entry.actor_name,
        "actor_id": entry.actor_id,
        "via": entry.via,
        "remote_addr": entry.remote_addr,
        "request_id": entry.cid,
        "team_id": entry.team_id,
        "kind": f"{kind.app_label}.{kind.model}",
        "object_id": entry.object_pk,
        "object": entry.object_repr,
        "action": ("create", "update", "delete", "access")[entry.action],
        "changes": entry.changes,
    }
