"""Filters of the admin's lists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.contrib.admin import SimpleListFilter
from django.contrib.admin.options import BaseModelAdmin
from django.contrib.admin.widgets import AutocompleteSelect
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin as UnfoldModelAdmin

from apikeys.alerts.attention import expiring_soon, nearly_used_up, unused_keys

if TYPE_CHECKING:
    AnyModelAdmin = admin.ModelAdmin[Any]
    AnyBaseModelAdmin = BaseModelAdmin[Any]
    AnyModelChoiceField = forms.ModelChoiceField[Any]
    AnyModelMultipleChoiceField = forms.ModelMultipleChoiceField[Any]
else:
    # Unfold has no types, so type checkers see Django's classes.
    AnyModelAdmin, AnyBaseModelAdmin = UnfoldModelAdmin, BaseModelAdmin
    AnyModelChoiceField, AnyModelMultipleChoiceField = forms.ModelChoiceField, forms.ModelMultipleChoiceField
from apikeys.admin.scope import ChoiceInTeam, has_many, is_in_team, is_searched, rows_for


class YesFilter(SimpleListFilter):
    """A filter that shows either all rows or those of one kind."""

    label: Any = ""

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("yes", self.label)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return self.rows(queryset) if self.value() == "yes" else queryset

    def rows(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        raise NotImplementedError


class ExpiringSoonFilter(YesFilter):
    title, parameter_name, label = _("expiry"), "expires_soon", _("Within 30 days")

    def rows(self, queryset: Any) -> QuerySet[Any]:
        return expiring_soon(queryset)


class UnusedFilter(YesFilter):
    title, parameter_name, label = _("last use"), "unused", _("None for 90 days")

    def rows(self, queryset: Any) -> QuerySet[Any]:
        return unused_keys(queryset)


class NearlyUsedUpFilter(YesFilter):
    title, parameter_name, label = _("usage"), "nearly_used_up", _("80% or more")

    def rows(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return nearly_used_up(queryset)


class ScopedListFilter(admin.RelatedFieldListFilter):
    """A filter by a related row that offers only rows which the user may see: few as links, many by a search."""

    has_many = False

    def field_choices(self, field: Any, request: HttpRequest, model_admin: Any) -> Any:
        rows, site = rows_for(field.related_model, request.user), model_admin.admin_site
        self.has_many = has_many(field.related_model, request.user)
        if not self.has_many:
            ordering = self.field_admin_ordering(field, request, model_admin)
            keys = rows.order_by().values("pk")
            return field.get_choices(include_blank=False, ordering=ordering, limit_choices_to={"pk__in": keys})
        self.can_search = is_searched(field, request, site)
        choice = ChoiceInTeam if is_in_team(field.related_model) else forms.ModelChoiceField
        rows = rows.select_related("team") if is_in_team(field.related_model) else rows
        self.choice: Any = choice(rows, widget=AutocompleteSelect(field, site))
        return []

    @property
    def template(self) -> str:  # type: ignore[override]
        return "admin/searched_filter.html" if self.has_many else "admin/filter.html"

    def has_output(self) -> bool:
        return self.can_search if self.has_many else super().has_output()

    def choices(self, changelist: Any) -> Iterator[Any]:
        links = super().choices(changelist)
        if not self.has_many:
            yield from links
            return
        name = self.lookup_kwarg
        yield {
            "select": self.choice.widget.render(name, self.lookup_val, {"id": f"filter-{name}", "required": True}),
            "others": [
                (other, value)
                for other, values in changelist.filter_params.items()
                if other not in self.expected_parameters()
                for value in values
            ],
            "links": list(links),
        }
