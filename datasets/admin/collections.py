"""The admin's pages of collections: what they came from, how far they are, and where they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from apikeys.admin.filters import ScopedListFilter
from apikeys.admin.long_lists import MAXIMUM_ROWS
from apikeys.admin.scope import rows_for
from apikeys.errors import InvalidParameter
from datasets.admin import counts
from datasets.admin.base import DatasetOwnedPages, readable_name
from datasets.folders import MAXIMUM_DEPTH, check_depth, check_place
from datasets.models import UNREAD, Collection, Dataset, Datum, Kind

if TYPE_CHECKING:
    CollectionModelForm = forms.ModelForm[Collection]
else:
    CollectionModelForm = forms.ModelForm

# People make these kinds here; the others come by an import.
MADE_BY_HAND = (Kind.FOLDER, Kind.VIRTUAL)


class CollectionForm(CollectionModelForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "kind" in self.fields:
            self.fields["kind"].choices = [(kind.value, kind.label) for kind in MADE_BY_HAND]  # type: ignore[attr-defined]

    def add_prefix(self, field_name: str) -> str:
        # Unfold takes any form with a field named "dataset" for one of its own, and does nothing.
        return super().add_prefix("its_dataset" if field_name == "dataset" else field_name)

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        dataset = cleaned.get("dataset") or (self.instance.dataset if self.instance.dataset_id else None)
        parent = cleaned.get("parent")
        if parent is not None and dataset is not None:
            if parent.dataset_id != dataset.pk:
                raise ValidationError({"parent": _("The folder belongs to another dataset.")})
            check_folder(self.instance, parent, cleaned.get("kind"))
        return cleaned

    def clean_name(self) -> str:
        return readable_name(self.cleaned_data["name"])


def check_folder(collection: Collection, parent: Collection, new_kind: str | None) -> None:
    """Raise ValidationError when a collection cannot be put there. Lock the dataset until it has been saved."""
    # Two folders that were put into each other at the same time would be found by nobody.
    Dataset.objects.select_for_update(no_key=True).get(pk=parent.dataset_id)
    try:
        if collection._state.adding:
            check_depth(parent.pk, 1 if new_kind == Kind.FOLDER else 0)
        else:
            check_place(Collection(pk=collection.pk, parent_id=parent.pk))
    except InvalidParameter:
        message = _("A folder cannot be inside itself, or inside more than %(depth)s others.") % {
            "depth": MAXIMUM_DEPTH
        }
        raise ValidationError({"parent": message}) from None


def ids_with_all_below(chosen: list[str]) -> list[str]:
    found = dict.fromkeys(chosen)
    level = list(found)
    while level and len(found) <= MAXIMUM_ROWS:
        below = Collection.objects.filter(parent__in=level).order_by().values_list("pk", flat=True)
        level = [pk for pk in below[: MAXIMUM_ROWS + 1] if pk not in found]
        found |= dict.fromkeys(level)
    return list(found)


@admin.register(Collection)
class CollectionAdmin(DatasetOwnedPages):
    form = CollectionForm
    team_path = "dataset__team"
    list_display = ("name", "dataset", "parent", "kind", "state_", "data", "waiting", "updated_at")
    list_filter = (("dataset", ScopedListFilter), "kind", "state")
    list_select_related = ("dataset", "parent")
    search_fields = ("name", "=id", "url")
    ordering = ("-updated_at", "pk")

    def rows_of_page(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        return counts.annotate_collections(rows)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        # A form's search names the field that it is for.
        asked_for = request.GET.get("field_name")
        if asked_for == "parent":
            queryset = queryset.filter(kind=Kind.FOLDER)
        elif asked_for == "collection":
            queryset = queryset.exclude(kind=Kind.FOLDER)
        return super().get_search_results(request, queryset, search_term)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        if obj is not None and "parent" in form.base_fields:
            field: Any = form.base_fields["parent"]
            field.queryset = field.queryset.filter(dataset=obj.dataset_id).exclude(pk=obj.pk)
        return form

    def get_field_queryset(self, db: str | None, db_field: Any, request: HttpRequest) -> QuerySet[Any]:
        rows = super().get_field_queryset(db, db_field, request)
        return rows.filter(kind=Kind.FOLDER) if db_field.name == "parent" else rows

    def get_fieldsets(self, request: HttpRequest, obj: Collection | None = None) -> Any:
        if obj is None:
            return [(None, {"fields": ("dataset", "kind", "name", "parent")})]
        source = (
            ["kind", "url", "chunk_size", "metadata"] if obj.kind == Kind.LINK else ["kind", "chunk_size", "metadata"]
        )
        return [
            (None, {"fields": ("id", "dataset", "name", "parent")}),
            (_("Source"), {"fields": source}),
            (_("Lifecycle"), {"fields": ("created_at", "updated_at")}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Collection | None = None) -> tuple[str, ...]:
        return ("id", "dataset", "kind", "url", "chunk_size", "metadata", "created_at", "updated_at") if obj else ()

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        dataset = rows_for(Dataset, request.user).filter(pk=request.GET.get("dataset", "")).first()
        return {"dataset": dataset, "kind": Kind.VIRTUAL}

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], **kwargs: Any) -> Any:  # type: ignore[override]
        collection: Collection | None = kwargs.get("obj")
        if collection is not None:
            user: Any = request.user
            context |= {
                "collection": collection,
                "datum_count": collection.data.count(),
                "waiting_count": waiting_for(collection),
                "may_view_data": user.has_perm("datasets.view_datum"),
                "may_add_data": user.has_perm("datasets.add_datum") and collection.kind != Kind.FOLDER,
                "may_view_datasets": user.has_perm("datasets.view_dataset"),
            }
        return super().render_change_form(request, context, **kwargs)

    def save_model(self, request: HttpRequest, obj: Collection, form: Any, change: bool) -> None:
        if not change:
            obj.save(force_insert=True)
        elif form.changed_data:
            obj.save(update_fields=[*form.changed_data, "updated_at"])

    def rows_below(self, chosen: list[str]) -> list[tuple[type[Model], QuerySet[Any]]]:
        found = ids_with_all_below(chosen)
        return [
            (Collection, Collection.objects.filter(pk__in=found)),
            (Datum, Datum.objects.filter(collection__in=found)),
        ]

    @admin.display(description=gettext_lazy("state"), ordering="state")
    def state_(self, collection: Collection) -> str:
        label = str(collection.get_state_display())
        return f"{label}: {collection.failure}" if collection.failure else label

    @admin.display(description=gettext_lazy("data"))
    def data(self, collection: Any) -> str:
        return counts.text_of(collection.datum_count)

    @admin.display(description=gettext_lazy("pending"))
    def waiting(self, collection: Any) -> str:
        return counts.text_of(collection.waiting_count + (collection.state in UNREAD))


def waiting_for(collection: Collection) -> int:
    """Count as FastGPT's `trainingAmount` does: texts without a vector, and the source while it is still to be read."""
    return collection.pending.open().filter(vector_set__is_current=True).count() + (collection.state in UNREAD)
