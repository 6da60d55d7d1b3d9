"""The admin of teams, keys, rules and usage. What a user meets there is decided in `team_scope`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from procrastinate.contrib.django.models import ProcrastinateJob
from unfold.admin import TabularInline as UnfoldTabularInline
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from apikeys import explanations
from apikeys.alert_admin import AlertAdmin, WebhookAdmin
from apikeys.audit_admin import AuditEntryAdmin
from apikeys.endpoints import routes
from apikeys.key_admin import ApiKeyAdmin
from apikeys.limit_admin import LimitAdmin
from apikeys.long_lists import LongList
from apikeys.models import AccessKind, EndpointRule, Membership, Team
from apikeys.team_scope import (
    AnyBaseModelAdmin,
    AnyModelAdmin,
    ProtectionShown,
    ReadOnlyAdmin,
    ScopedChoices,
    ScopedListFilter,
    TeamScopedAdmin,
)
from apikeys.usage import DailyUsage, KeyActivity, Refusal, UsageRecord

__all__ = ["AlertAdmin", "ApiKeyAdmin", "AuditEntryAdmin", "LimitAdmin", "WebhookAdmin"]

if TYPE_CHECKING:
    MembershipTabularInline = admin.TabularInline[Membership, Team]
    RuleModelForm = forms.ModelForm[EndpointRule]
else:
    MembershipTabularInline = UnfoldTabularInline
    RuleModelForm = forms.ModelForm


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


# Jobs belong to no team, and a team's staff need not see them: deliveries are shown with their alert.
admin.site.unregister([User, Group, ProcrastinateJob])


@admin.register(User)
class SiteUserAdmin(SuperusersOnly, UserAdmin, ProtectionShown):  # type: ignore[type-arg]
    """Who may change users can give any permission to anybody."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm


@admin.register(Group)
class SiteGroupAdmin(SuperusersOnly, GroupAdmin, AnyModelAdmin):
    """Likewise."""


class MembershipInline(ScopedChoices, MembershipTabularInline):
    model = Membership
    extra = 1


@admin.register(Team)
class TeamAdmin(TeamScopedAdmin):
    """Only superusers make new teams, and bring people in with whom a team's staff share none."""

    team_path = "pk"
    list_display = ("name", "id", "disabled_at", "created_at")
    search_fields = ("name", "=id")
    readonly_fields = ("id", "created_at")
    inlines = [MembershipInline]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return is_superuser(request)


def declared_kinds() -> dict[str, frozenset[AccessKind]]:
    """Which kinds of key each endpoint takes, of those that take any."""
    return {route.view.endpoint: route.view.api_key_access for route in routes() if route.view.api_key_access}


class EndpointRuleForm(RuleModelForm):
    endpoint = forms.ChoiceField(help_text="It takes the kinds of key that are named behind it.")
    denied_kinds = forms.MultipleChoiceField(
        required=False,
        choices=AccessKind.choices,
        widget=forms.CheckboxSelectMultiple,
        help_text="Kinds of key that may no longer call this endpoint. A rule lowers; it cannot open anything.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.declared = declared_kinds()
        if self.instance.pk:
            kinds = self.declared.get(self.instance.endpoint, frozenset()) | set(self.instance.denied_kinds)
            choices = [(kind, label) for kind, label in AccessKind.choices if kind in kinds]
            self.fields["denied_kinds"].choices = choices  # type: ignore[attr-defined]
        else:
            self.fields["endpoint"].choices = [  # type: ignore[attr-defined]
                (name, f"{name}: {', '.join(sorted(str(kind.label) for kind in kinds))}")
                for name, kinds in sorted(self.declared.items())
            ]

    def clean(self) -> dict[str, Any]:
        answers: dict[str, Any] = super().clean() or {}
        if "endpoint" in answers:
            taken = self.declared[answers["endpoint"]]
            denied = answers.get("denied_kinds", [])
            never = [str(kind.label) for kind in AccessKind if kind in denied and kind not in taken]
            if never:
                raise ValidationError({"denied_kinds": f"This endpoint never takes: {', '.join(never)}."})
        return answers


@admin.register(EndpointRule)
class EndpointRuleAdmin(SuperusersOnly, AnyModelAdmin):
    """A rule holds for the whole site."""

    form = EndpointRuleForm
    list_display = ("endpoint", "denied_kinds", "changed_at")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("endpoint", "changed_at") if obj else ()


@admin.register(KeyActivity)
class KeyActivityAdmin(LongList, ReadOnlyAdmin):
    team_path = "key__team"
    list_display = ("key", "last_used_at", "last_used_from")
    list_select_related = ("key",)
    search_fields = ("key__name", "=key__id")
    ordering = ("-last_used_at",)


@admin.register(UsageRecord)
class UsageRecordAdmin(LongList, ReadOnlyAdmin):
    list_display = (
        "id",
        "created_at",
        "team",
        "key",
        "app",
        "endpoint",
        "model",
        "prompt_tokens",
        "completion_tokens",
        "status",
        "ending",
        "duration_ms",
    )
    list_filter = (("team", ScopedListFilter), ("key", ScopedListFilter), ("app", ScopedListFilter), "ending")
    list_select_related = ("team", "key", "app")
    fields = readonly_fields = ("explanation",)
    search_fields = ("=id", "=key__id")
    search_help_text = "The id of a request or of a key. For a key's name there is the filter."
    # A ledger is too long to be sorted by anything but time.
    sortable_by = ()

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        """The newest first: by the index of the team, key or app that the list is of, or by the primary key."""
        is_of_one = any(name.startswith(("team__", "key__", "app__")) for name in request.GET)
        return ("-created_at", "-id") if is_of_one or not is_superuser(request) else ("-id",)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        # By the ids as they are: with its case folded, none is found in an index.
        word = search_term.strip().lower()
        return queryset.filter(Q(pk=word) | Q(key=word)) if word else queryset, False

    @admin.display(description="explanation")
    def explanation(self, record: UsageRecord) -> str:
        return explained(explanations.explain_charge(record))


@admin.register(DailyUsage)
class DailyUsageAdmin(LongList, ReadOnlyAdmin):
    list_display = (
        "day",
        "team",
        "key",
        "app",
        "endpoint",
        "model",
        "ending",
        "token_source",
        "requests",
        "prompt_tokens",
        "completion_tokens",
        "cost_micropoints",
        "duration_ms",
    )
    list_filter = (("team", ScopedListFilter), ("app", ScopedListFilter), "ending")
    list_select_related = ("team", "key", "app")
    search_fields = ("=key__id", "key__name")
    show_full_result_count = False
    ordering = ("-day", "-pk")


@admin.register(Refusal)
class RefusalAdmin(LongList, ReadOnlyAdmin):
    list_display = ("id", "created_at", "team", "key", "endpoint", "status", "code", "stands_for", "client_address")
    list_filter = (("team", ScopedListFilter), "code")
    list_select_related = ("team", "key")
    search_fields = ("=id", "=key__id", "key__name")
    fields = readonly_fields = ("explanation",)
    show_full_result_count = False
    ordering = ("-id",)

    @admin.display(description="explanation")
    def explanation(self, refusal: Refusal) -> str:
        return explained(explanations.explain_refusal(refusal))


def explained(explanation: explanations.Explanation) -> str:
    return format_html('<pre class="explanation">{}</pre>', explanation.text())
