"""The admin of a team's model catalog: models with their prices, and the routes that lead to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.text import capfirst
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.admin import TabularInline as UnfoldTabularInline
from unfold.widgets import UnfoldAdminDecimalFieldWidget

from apikeys.accounting import units
from apikeys.admin.filters import ScopedListFilter
from apikeys.admin.scope import LIVE, ScopedChoices, TeamScopedAdmin
from apikeys.audit import history_messages, recording
from chat.catalog import CatalogModel, Route

if TYPE_CHECKING:
    CatalogModelForm = forms.ModelForm[CatalogModel]
    RouteModelForm = forms.ModelForm[Route]
    RouteFormSetBase = forms.BaseInlineFormSet[Route, CatalogModel, RouteModelForm]
    RouteTabularInline = admin.TabularInline[Route, CatalogModel]
else:
    CatalogModelForm = RouteModelForm = forms.ModelForm
    RouteFormSetBase = forms.BaseInlineFormSet
    RouteTabularInline = UnfoldTabularInline


class PointsField(forms.DecimalField):
    """Points with six decimals, kept as whole millionths."""

    def __init__(self, **kwargs: Any) -> None:
        fixed = {"min_value": 0, "max_digits": 12, "decimal_places": 6, "widget": UnfoldAdminDecimalFieldWidget}
        super().__init__(**{**kwargs, **fixed, "label": capfirst(kwargs["label"])})

    def prepare_value(self, value: Any) -> Any:
        return units.points(value) if isinstance(value, int) else value

    def has_changed(self, initial: Any, data: Any) -> bool:
        return super().has_changed(self.prepare_value(initial), data)

    def clean(self, value: Any) -> Any:
        points = super().clean(value)
        return None if points is None else units.micropoints(points)


class ModelForm(CatalogModelForm):
    prompt_price = PointsField(label=_("points per 1,000 prompt tokens"), initial=0)
    cached_prompt_price = PointsField(
        label=_("points per 1,000 cached prompt tokens"),
        required=False,
        help_text=_("Empty: they cost what the others cost."),
    )
    completion_price = PointsField(label=_("points per 1,000 completion tokens"), initial=0)
    reasoning_price = PointsField(
        label=_("points per 1,000 reasoning tokens"),
        required=False,
        help_text=_("Empty: they cost what the others cost."),
    )
    image_price = PointsField(label=_("points per image"), initial=0)

    def validate_unique(self) -> None:
        # A model that exists has its team, but not in the form: Django would leave out what is unique in the team.
        super().validate_unique()
        if "team" not in self.fields:
            try:
                self.instance.validate_constraints()
            except ValidationError as error:
                self.add_error(None, error)


class RouteFormSet(RouteFormSetBase):
    """Offers an existing model the providers of its own team, and says of a foreign one at its row."""

    def add_fields(self, form: Any, index: int | None) -> None:
        super().add_fields(form, index)
        provider = form.fields.get("provider")
        if provider is not None and not self.instance._state.adding:
            provider.queryset = provider.queryset.filter(team=self.instance.team_id)

    def clean(self) -> None:
        super().clean()
        for form in self.forms:
            provider = form.cleaned_data.get("provider")
            if provider is not None and self.instance.team_id and provider.team_id != self.instance.team_id:
                form.add_error("provider", _("The provider belongs to another team."))


class RouteInline(ScopedChoices, RouteTabularInline):
    model = Route
    formset = RouteFormSet
    extra = 1
    fields = ("provider", "upstream_name", "priority", "weight", "tokens_field")

    def get_formset(self, request: HttpRequest, obj: CatalogModel | None = None, **kwargs: Any) -> Any:
        formset = super().get_formset(request, obj, **kwargs)
        # Unfold's tables of inlines have headings, and no labels.
        for field in formset.form.base_fields.values():
            field.widget.attrs.setdefault("aria-label", capfirst(field.label or ""))
        return formset

    # A route is part of its model.

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        user: Any = request.user
        return bool(user.has_perm("chat.view_catalogmodel") or user.has_perm("chat.change_catalogmodel"))

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        user: Any = request.user
        return bool(user.has_perm("chat.change_catalogmodel") or user.has_perm("chat.add_catalogmodel"))

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("chat.change_catalogmodel")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("chat.change_catalogmodel")


@admin.register(CatalogModel)
class ModelAdmin(TeamScopedAdmin):
    """A model that apps use is archived, not deleted: their usage names it."""

    form = ModelForm
    list_display = ("name", "team", "kind", "shown_routes", "archived_at")
    list_filter = (("team", ScopedListFilter), "kind", ("archived_at", admin.EmptyFieldListFilter))
    list_select_related = ("team",)
    search_fields = ("name", "=id", "routes__upstream_name")
    inlines = [RouteInline]
    actions = ["archive", "unarchive"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).prefetch_related("routes__provider")

    def get_fieldsets(self, request: HttpRequest, obj: CatalogModel | None = None) -> Any:
        identity = ["team", "name", "kind", "context_length"]
        if obj is not None:
            identity = ["id", *identity, "archived_at", "created_at"]
        abilities = ("takes_tools", "takes_images", "takes_json_schema")
        prices = ("prompt_price", "cached_prompt_price", "completion_price", "reasoning_price", "image_price")
        return [
            (None, {"fields": identity}),
            (_("What it takes"), {"fields": abilities}),
            (_("Prices"), {"fields": prices}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: CatalogModel | None = None) -> tuple[str, ...]:
        return ("id", "team", "archived_at", "created_at") if obj else ()

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        rows = queryset.filter(archived_at=None) if LIVE in request.GET else queryset
        return super().get_search_results(request, rows, search_term)

    @admin.display(description=_("routes"))
    def shown_routes(self, model: CatalogModel) -> str:
        return ", ".join(str(route) for route in model.routes.all()) or "-"

    @admin.action(description=_("Archive: refuse all calls of apps with the selected models"), permissions=["change"])
    def archive(self, request: HttpRequest, queryset: QuerySet[CatalogModel]) -> None:
        for model in queryset.filter(archived_at=None):
            if recording.update(CatalogModel.objects.filter(pk=model.pk, archived_at=None), archived_at=timezone.now()):
                self.log_change(request, model, history_messages.ARCHIVED())
                self.message_user(request, gettext("Archived %(app)s.") % {"app": model}, messages.SUCCESS)

    @admin.action(description=_("Unarchive: accept calls again"), permissions=["change"])
    def unarchive(self, request: HttpRequest, queryset: QuerySet[CatalogModel]) -> None:
        for model in queryset.exclude(archived_at=None):
            recording.update(CatalogModel.objects.filter(pk=model.pk), archived_at=None)
            self.log_change(request, model, history_messages.UNARCHIVED())
            self.message_user(request, gettext("Unarchived %(app)s.") % {"app": model}, messages.SUCCESS)
