"""The admin's pages of users, groups and teams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.forms import BaseInlineFormSet
from django.http import HttpRequest
from procrastinate.contrib.django.models import ProcrastinateJob
from unfold.admin import TabularInline as UnfoldTabularInline
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from apikeys.admin.permission_names import PermissionsNamed
from apikeys.admin.scope import (
    CheckedList,
    ProtectionShown,
    ScopedChoices,
    SuperusersOnly,
    TeamScopedAdmin,
    is_superuser,
)
from apikeys.sign_in import reauthentication
from apikeys.teams import Membership, Team

if TYPE_CHECKING:
    MembershipTabularInline = admin.TabularInline[Membership, Team]
    MembershipFormSetBase = BaseInlineFormSet[Membership, Team, Any]
else:
    MembershipTabularInline = UnfoldTabularInline
    MembershipFormSetBase = BaseInlineFormSet


# These get pages of their own. Jobs belong to no team; a team's staff see deliveries with their alert.
admin.site.unregister([User, Group, ProcrastinateJob])


class PeopleAdmin(SuperusersOnly):
    """Asks for the password: whoever may change users can give any permission to anybody, also to themselves."""

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)  # type: ignore[misc]
        return form if reauthentication.is_recent(request) else reauthentication.requires_reauthentication(form)


@admin.register(User)
class SiteUserAdmin(PeopleAdmin, PermissionsNamed, UserAdmin, ProtectionShown):  # type: ignore[type-arg]
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> Any:
        # Django's page asks for no old password, not even for one's own.
        if self.has_change_permission(request) and not reauthentication.is_recent(request):
            return reauthentication.ask(request)
        return super().user_change_password(request, id, form_url)


@admin.register(Group)
class SiteGroupAdmin(PeopleAdmin, PermissionsNamed, GroupAdmin, CheckedList):  # type: ignore[misc]
    pass


class MembershipFormSet(MembershipFormSetBase):
    """Members of a team. A new one may do there whatever their permissions say."""

    is_late = False

    def clean(self) -> None:
        super().clean()
        if self.is_late and any(form.has_changed() for form in self.extra_forms):
            raise reauthentication.reauthentication_error()


class MembershipInline(ScopedChoices, MembershipTabularInline):
    model = Membership
    formset = MembershipFormSet
    extra = 1

    def get_formset(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        formset = super().get_formset(request, obj, **kwargs)
        formset.is_late = not reauthentication.is_recent(request)  # type: ignore[attr-defined]
        return formset


@admin.register(Team)
class TeamAdmin(TeamScopedAdmin):
    """Only superusers add teams, and members with whom a team's staff share no team."""

    team_path = "pk"
    list_display = ("name", "id", "disabled_at", "created_at")
    search_fields = ("name", "=id")
    inlines = [MembershipInline]

    def get_fields(self, request: HttpRequest, obj: Team | None = None) -> tuple[str, ...]:
        return ("id", "name", "disabled_at", "created_at") if obj else ("name", "disabled_at")

    def get_readonly_fields(self, request: HttpRequest, obj: Team | None = None) -> tuple[str, ...]:
        return ("id", "created_at") if obj else ()

    def has_add_permission(self, request: HttpRequest) -> bool:
        return is_superuser(request)
