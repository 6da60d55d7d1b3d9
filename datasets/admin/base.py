"""Bases of the admin's pages of datasets, collections and data: there may be millions of rows below them."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.actions import delete_selected
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponseBase
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from apikeys.admin.long_lists import LongList
from apikeys.admin.scope import TeamScopedAdmin
from datasets.admin import counts
from datasets.lookups import lock_datasets_of
from datasets.names import CONTROLS

# One deletion, which reads its rows, has at most so many. The database itself removes what belongs to them.
MAXIMUM_DELETED = 1_000


def readable_name(name: str) -> str:
    """Return the name. Raise ValidationError for one that would break or turn the line that it stands in."""
    if CONTROLS.search(name):
        raise ValidationError(_("Give a name without control characters."))
    return name


class KnowledgePages(LongList, TeamScopedAdmin):
    actions = ("delete_selected",)

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> Any:
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except IntegrityError:
            # Somebody was quicker with the same, or removed what this belongs to. Looked at again, the form says so.
            return super().changeform_view(request, object_id, form_url, extra_context)

    @admin.action(description=gettext_lazy("Delete the selected"), permissions=["delete"])
    def delete_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponseBase | None:
        if queryset.order_by().values("pk")[: MAXIMUM_DELETED + 1].count() > MAXIMUM_DELETED:
            message = _("At most %(number)s rows can be deleted at once. To delete more, delete what they belong to.")
            self.message_user(request, message % {"number": f"{MAXIMUM_DELETED:,}"}, messages.ERROR)
            return None
        return delete_selected(self, request, queryset)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        rows, models, lacking, protected = super().get_deleted_objects(objs, request)
        for model, found in self.rows_below([row.pk for row in objs]):
            models[model._meta.verbose_name_plural] = counts.text_of(counts.up_to(found))
        return rows, models, lacking, protected

    def rows_below(self, chosen: list[str]) -> list[tuple[type[Model], QuerySet[Any]]]:
        return []


class DatasetOwnedPages(KnowledgePages):
    """Pages of rows that lie in a dataset, which is locked while they are removed."""

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        self.delete_queryset(request, self.model.objects.filter(pk=obj.pk))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        with transaction.atomic():
            lock_datasets_of(queryset)
            super().delete_queryset(request, queryset)
