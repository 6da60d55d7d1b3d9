"""The scope of staff in the admin: their own teams and all that belongs to them. Superusers see everything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import BaseModelAdmin, InlineModelAdmin
from django.contrib.admin.widgets import AutocompleteSelect
from django.contrib.auth.models import User
from django.core.exceptions import BadRequest, ValidationError
from django.db import DataError
from django.db.models import ForeignKey, ManyToManyField, Model, QuerySet
from django.http import HttpRequest
from django.utils.text import capfirst
from unfold.admin import ModelAdmin as UnfoldModelAdmin

from apikeys.audit import history_messages
from apikeys.teams import Team

if TYPE_CHECKING:
    AnyModelAdmin = admin.ModelAdmin[Any]
    AnyBaseModelAdmin = BaseModelAdmin[Any]
    AnyModelChoiceField = forms.ModelChoiceField[Any]
    AnyModelMultipleChoiceField = forms.ModelMultipleChoiceField[Any]
else:
    # Unfold has no types, so type checkers see Django's classes.
    AnyModelAdmin, AnyBaseModelAdmin = UnfoldModelAdmin, BaseModelAdmin
    AnyModelChoiceField, AnyModelMultipleChoiceField = forms.ModelChoiceField, forms.ModelMultipleChoiceField

# A form or a filter lists so many choices; if there are more, it offers a search.
MAXIMUM_CHOICES = 50
# With this parameter, a search finds only rows that can still be used.
LIVE = "live"


def rows_for(model: type[Model], user: Any) -> QuerySet[Any]:
    """Return the rows that a form or filter may offer to this user; for users, those who share a team with them."""
    if model is User:
        users = User.objects.order_by("username")
        return users if user.is_superuser else users.filter(teams__in=Team.objects.for_user(user)).distinct()
    rows: QuerySet[Any] = model._default_manager.for_user(user)  # type: ignore[attr-defined]
    return rows


class ChoiceInTeam(AnyModelChoiceField):
    """A choice that names its team, since those of several teams may stand in one list."""

    def label_from_instance(self, obj: Any) -> str:
        return f"{obj} ({obj.team})"


class ChoicesInTeam(AnyModelMultipleChoiceField):
    def label_from_instance(self, obj: Any) -> str:
        return f"{obj} ({obj.team})"


class SearchOfLive(AutocompleteSelect):
    """A search in a form. It leaves out archived and revoked rows, which a list's filters do find."""

    def get_url(self) -> str:
        return f"{super().get_url()}?{LIVE}=yes"


class ScopedChoices(AnyBaseModelAdmin):
    """Offers in its forms, and accepts from them, only rows that the user may see."""

    def get_field_queryset(self, db: str | None, db_field: Any, request: HttpRequest) -> QuerySet[Any]:
        rows = rows_for(db_field.related_model, request.user)
        return rows.select_related("team") if is_in_team(db_field.related_model) else rows

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if is_in_team(db_field.related_model):
            kwargs.setdefault("form_class", ChoiceInTeam)
        if is_searched(db_field, request, self.admin_site):
            kwargs.setdefault("widget", SearchOfLive(db_field, self.admin_site))
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field: Any = super().formfield_for_dbfield(db_field, request, **kwargs)
        if isinstance(db_field, ForeignKey | ManyToManyField) and field is not None:
            # This removes the four icons: a key's form is no place to delete a user or edit a team.
            field.widget = field.widget.widget
            field.widget.choices = field.choices
            if isinstance(self, InlineModelAdmin):
                # Unfold's tables of inlines have headings instead of labels.
                field.widget.attrs.setdefault("aria-label", capfirst(field.label))
        return field


def is_in_team(model: type[Model]) -> bool:
    return any(field.name == "team" for field in model._meta.fields)


def has_many(model: type[Model], user: Any) -> bool:
    return len(rows_for(model, user).order_by().values("pk")[: MAXIMUM_CHOICES + 1]) > MAXIMUM_CHOICES


def is_searched(field: Any, request: HttpRequest, site: admin.AdminSite) -> bool:
    # The search serves only those who may see the related pages.
    if not has_many(field.related_model, request.user):
        return False
    related: Any = site.get_model_admin(field.related_model)
    return bool(related.has_view_permission(request))


class SuperusersOnly(AnyBaseModelAdmin):
    """Pages that decide for the whole site, whatever permissions staff were given."""

    def has_module_permission(self, request: HttpRequest) -> bool:
        return is_superuser(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return is_superuser(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return is_superuser(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return is_superuser(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return is_superuser(request)


def is_superuser(request: HttpRequest) -> bool:
    user: Any = request.user
    return bool(user.is_active and user.is_superuser)


class CheckedList(AnyModelAdmin):
    """Responds with 400 to a filter's value or a choice of rows that cannot be queried, where Django would fail."""

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        try:
            return super().changelist_view(request, extra_context)
        except (DataError, ValueError) as error:
            # The database raises these, or Django when it writes the query. The page itself is rendered later.
            raise BadRequest("A filter has an invalid value.") from error

    # Django's stubs have one parameter more than Django.
    def response_action(self, request: HttpRequest, queryset: QuerySet[Any]) -> Any:  # type: ignore[override]
        for chosen in request.POST.getlist(ACTION_CHECKBOX_NAME):
            try:
                self.model._meta.pk.to_python(chosen)
            except ValidationError as error:
                raise BadRequest("An invalid row was selected.") from error
        return super().response_action(request, queryset)

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        # Values in the URL have passed no form, and widgets fail on those that they cannot show.
        return {}


class ProtectionShown(CheckedList):
    """Shows what protects a row from deletion. Django would rather say that the keys behind it may not be deleted."""

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        rows, counts, lacking, protected = super().get_deleted_objects(objs, request)
        return rows, counts, set() if protected else lacking, protected


class HistoryRead(AnyModelAdmin):
    """Shows a row's history in the reader's language."""

    def history_view(self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None) -> Any:
        response = super().history_view(request, object_id, extra_context)
        context = getattr(response, "context_data", None) or {}
        for entry in context.get("action_list", ()):
            entry.change_message = history_messages.read(entry.change_message)
        return response


class TeamScopedAdmin(ScopedChoices, ProtectionShown, HistoryRead):
    """Pages of rows that belong to a team. A row of a foreign team looks like one that does not exist."""

    # This lookup leads from the model to its team.
    team_path = "team"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows = super().get_queryset(request)
        user: Any = request.user
        if user.is_superuser:
            return rows
        # With ids instead of a subquery, an index that begins with the team returns its rows in order.
        teams = list(Team.objects.for_user(user).order_by().values_list("pk", flat=True))
        return rows.filter(**{f"{self.team_path}__in": teams})

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        # Filters cannot add their scripts and styles themselves.
        searched = AutocompleteSelect(self.model._meta.pk, self.admin_site)
        return super().changelist_view(request, {"media": self.media + searched.media, **(extra_context or {})})


class ReadOnlyAdmin(TeamScopedAdmin):
    """Pages of rows that the server writes and people only read."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
