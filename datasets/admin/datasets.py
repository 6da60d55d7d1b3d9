"""The admin's pages of datasets: what is in them, which models serve them, and the pages to fill and search them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.widgets import UnfoldAdminTextInputWidget

from apikeys.admin.filters import ScopedListFilter
from apikeys.admin.scope import MAXIMUM_CHOICES, ChoiceInTeam
from datasets.admin import counts, import_page, search_page
from datasets.admin.base import KnowledgePages, readable_name
from datasets.models import Collection, Dataset, Datum, VectorSet
from datasets.vectors import sets as vector_sets

if TYPE_CHECKING:
    DatasetModelForm = forms.ModelForm[Dataset]
else:
    DatasetModelForm = forms.ModelForm

EMBEDDING = ("embedding_provider", "embedding_model")
RERANKING = ("rerank_provider", "rerank_model")


def chosen_set(dataset: Dataset) -> VectorSet | None:
    # A set in the making is of the model that people chose last.
    found: VectorSet | None = dataset.vector_sets.select_related("provider").order_by("is_current").first()
    return found


def progress_context(dataset: Dataset) -> dict[str, Any]:
    sets = []
    for vector_set in dataset.vector_sets.select_related("provider").order_by("-is_current"):
        made, waiting, all_waiting = (
            rows.count() for rows in (vector_set.vectors, vector_set.pending.open(), vector_set.pending)
        )
        refused = all_waiting - waiting
        one = {"set": vector_set, "made": made, "waiting": waiting, "refused": refused, "total": made + all_waiting}
        sets.append(one)
    is_at_work = any(one["waiting"] or not one["set"].is_current for one in sets)
    return {"dataset": dataset, "sets": sets, "is_at_work": is_at_work}


class DatasetForm(DatasetModelForm):
    # `DatasetAdmin.get_form` fills in what the user may choose.
    embedding_provider = ChoiceInTeam(queryset=Dataset.objects.none(), required=False)
    embedding_model = forms.CharField(
        label=gettext_lazy("Embedding model"),
        required=False,
        max_length=200,
        widget=UnfoldAdminTextInputWidget,
        help_text=gettext_lazy(
            "The model's name, as the provider spells it. Changing the model rebuilds all vectors; searches "
            "use the existing ones until that is done."
        ),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        dataset = kwargs.get("instance")
        vector_set = chosen_set(dataset) if dataset is not None and dataset.pk else None
        if vector_set is not None and vector_set.provider is not None:
            chosen = {"embedding_provider": vector_set.provider_id, "embedding_model": vector_set.model}
            kwargs["initial"] = chosen | (kwargs.get("initial") or {})
        super().__init__(*args, **kwargs)

    def clean_name(self) -> str:
        return readable_name(self.cleaned_data["name"])

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        provider, model = (cleaned.get(name) for name in EMBEDDING)
        team_id = cleaned["team"].pk if cleaned.get("team") else self.instance.team_id
        if provider is not None and team_id and provider.team_id != team_id:
            self.add_error("embedding_provider", _("The provider belongs to another team."))
        if bool(provider) != bool(model) and not self.errors.keys() & set(EMBEDDING):
            self.add_error("embedding_model", _("An embedding provider and its model must be given together."))
        return cleaned


@admin.register(Dataset)
class DatasetAdmin(KnowledgePages):
    form = DatasetForm
    list_display = ("name", "team", "current_model", "collections", "data", "waiting", "updated_at")
    list_filter = (("team", ScopedListFilter),)
    list_select_related = ("team",)
    search_fields = ("name", "=id", "intro")

    def rows_of_page(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        return counts.annotate_datasets(rows)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        if "embedding_provider" in form.base_fields:
            offered = self.formfield_for_dbfield(VectorSet._meta.get_field("provider"), request)
            offered.label = gettext_lazy("Embedding provider")
            form.base_fields["embedding_provider"] = offered
        return form

    def get_fieldsets(self, request: HttpRequest, obj: Dataset | None = None) -> Any:
        identity: tuple[str, ...] = ("team", "name", "intro")
        if obj is None:
            return [(None, {"fields": identity}), (_("Models"), {"fields": (*EMBEDDING, *RERANKING)})]
        # The page says above the form which model embeds; the form has it for those who may choose another.
        models = (*EMBEDDING, *RERANKING) if self.has_change_permission(request, obj) else RERANKING
        life = ("created_at", "updated_at")
        return [
            (None, {"fields": ("id", *identity)}),
            (_("Models"), {"fields": models}),
            (_("Lifecycle"), {"fields": life}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Dataset | None = None) -> tuple[str, ...]:
        return ("id", "team", "created_at", "updated_at") if obj else ()

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], **kwargs: Any) -> Any:  # type: ignore[override]
        dataset: Dataset | None = kwargs.get("obj")
        if dataset is not None:
            context |= self._glance(request, dataset)
        return super().render_change_form(request, context, **kwargs)

    def _glance(self, request: HttpRequest, dataset: Dataset) -> dict[str, Any]:
        user: Any = request.user
        return {
            **progress_context(dataset),
            "collection_count": dataset.collections.count(),
            "datum_count": Datum.objects.filter(collection__dataset=dataset).count(),
            "apps": list(dataset.apps.order_by("name", "pk")[:MAXIMUM_CHOICES]),
            "may_view_apps": user.has_perm("chat.view_app"),
            "may_import": user.has_perms(("datasets.add_collection", "datasets.view_collection")),
            "may_view_collections": user.has_perm("datasets.view_collection"),
            "may_search": user.has_perm("datasets.view_datum"),
        }

    def save_model(self, request: HttpRequest, obj: Dataset, form: Any, change: bool) -> None:
        provider, model = (form.cleaned_data[name] for name in EMBEDDING)
        if not change:
            obj.save(force_insert=True)
            vector_sets.create(obj, provider, model)
            return
        edited = [name for name in form.changed_data if name not in EMBEDDING]
        if edited:
            obj.save(update_fields=[*edited, "updated_at"])
        if set(EMBEDDING) & set(form.changed_data):
            self._change_model(request, obj, provider, model)

    def _change_model(self, request: HttpRequest, dataset: Dataset, provider: Any, model: str) -> None:
        if vector_sets.change_model(dataset, provider, model) is not None:
            message = _("All vectors are being rebuilt. Searches use the existing ones until that is done.")
            self.message_user(request, message, messages.INFO)

    def rows_below(self, chosen: list[str]) -> list[tuple[type[Model], QuerySet[Any]]]:
        return [
            (Collection, Collection.objects.filter(dataset__in=chosen)),
            (Datum, Datum.objects.filter(collection__dataset__in=chosen)),
        ]

    def get_urls(self) -> list[URLPattern]:
        views = {
            "import": self.import_view,
            "import/state": self.import_state_view,
            "search": self.search_view,
            "progress": self.progress_view,
        }
        pages = [
            path(f"<path:object_id>/{page}/", self.admin_site.admin_view(view), name=f"datasets_dataset_{name}")
            for page, view in views.items()
            for name in [page.replace("/", "_")]
        ]
        return pages + super().get_urls()

    def import_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return import_page.import_view(self, request, object_id)

    def import_state_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return import_page.state_view(self, request, object_id)

    def search_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return search_page.search_view(self, request, object_id)

    def progress_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Render the part of a dataset's page about its vectors, which the page puts in place of the older one."""
        dataset = self.get_object(request, object_id)
        if not self.has_view_permission(request):
            raise PermissionDenied
        if dataset is None:
            raise Http404
        return TemplateResponse(request, "admin/datasets/dataset/progress.html", progress_context(dataset))

    @admin.display(description=gettext_lazy("embedding model"))
    def current_model(self, dataset: Any) -> str:
        return dataset.current_model or "-"

    @admin.display(description=gettext_lazy("collections"))
    def collections(self, dataset: Any) -> str:
        return counts.text_of(dataset.collection_count)

    @admin.display(description=gettext_lazy("data"))
    def data(self, dataset: Any) -> str:
        return counts.text_of(dataset.datum_count)

    @admin.display(description=gettext_lazy("waiting vectors"))
    def waiting(self, dataset: Any) -> str:
        return counts.text_of(dataset.waiting_count)
