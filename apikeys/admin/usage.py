"""The admin's pages of usage: the ledger, daily usage, refusals, and the last use of keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _
from unfold.admin import TabularInline as UnfoldTabularInline

from apikeys.accounting import explanations
from apikeys.accounting.ledger import DailyUsage, KeyActivity, Refusal, UsageRecord
from apikeys.accounting.units import points_text
from apikeys.admin.filters import ScopedListFilter
from apikeys.admin.keys.key_admin import moment
from apikeys.admin.long_lists import LongList
from apikeys.admin.scope import (
    ReadOnlyAdmin,
    is_superuser,
)
from apikeys.teams import Membership, Team

if TYPE_CHECKING:
    MembershipTabularInline = admin.TabularInline[Membership, Team]
else:
    MembershipTabularInline = UnfoldTabularInline


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
        "created",
        "team",
        "key",
        "app",
        "endpoint",
        "model",
        "tokens",
        "status",
        "outcome",
        "duration_ms",
    )
    list_filter = (("team", ScopedListFilter), ("key", ScopedListFilter), ("app", ScopedListFilter), "outcome")
    list_select_related = ("team", "key", "app")
    fields = readonly_fields = ("explanation",)
    search_fields = ("=id", "=key__id")
    search_help_text = _("A request id or a key id. To find a key by its name, use the filter.")
    # The ledger is too long to be sorted by anything but time.
    sortable_by = ()

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        # The newest come first, by the index of the team, key or app that is filtered by, or by the primary key.
        is_of_one = any(name.startswith(("team__", "key__", "app__")) for name in request.GET)
        return ("-created_at", "-id") if is_of_one or not is_superuser(request) else ("-id",)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        # Ids are compared exactly: a case-insensitive comparison uses no index.
        word = search_term.strip().lower()
        return queryset.filter(Q(pk=word) | Q(key=word)) if word else queryset, False

    @admin.display(description=_("created at"))
    def created(self, record: UsageRecord) -> str:
        return moment(record.created_at)

    @admin.display(description=_("tokens"))
    def tokens(self, record: UsageRecord) -> str:
        return f"{record.prompt_tokens:,} + {record.completion_tokens:,}"

    @admin.display(description=_("explanation"))
    def explanation(self, record: UsageRecord) -> str:
        return render_explanation(explanations.explain_charge(record))


@admin.register(DailyUsage)
class DailyUsageAdmin(LongList, ReadOnlyAdmin):
    list_display = (
        "day",
        "team",
        "key",
        "app",
        "endpoint",
        "model",
        "outcome",
        "requests",
        "tokens",
        "points",
    )
    list_filter = (("team", ScopedListFilter), ("app", ScopedListFilter), "outcome")
    list_select_related = ("team", "key", "app")
    search_fields = ("=key__id", "key__name")
    show_full_result_count = False
    ordering = ("-day", "-pk")

    @admin.display(description=_("tokens"))
    def tokens(self, row: DailyUsage) -> str:
        return f"{row.prompt_tokens:,} + {row.completion_tokens:,}"

    @admin.display(description=_("points"))
    def points(self, row: DailyUsage) -> str:
        return points_text(row.cost_micropoints)


@admin.register(Refusal)
class RefusalAdmin(LongList, ReadOnlyAdmin):
    list_display = ("id", "created", "team", "key", "endpoint", "status", "code", "sample_weight", "client_address")
    list_filter = (("team", ScopedListFilter), "code")
    list_select_related = ("team", "key")
    search_fields = ("=id", "=key__id", "key__name")
    fields = readonly_fields = ("explanation",)
    show_full_result_count = False
    ordering = ("-id",)

    @admin.display(description=_("created at"))
    def created(self, refusal: Refusal) -> str:
        return moment(refusal.created_at)

    @admin.display(description=_("explanation"))
    def explanation(self, refusal: Refusal) -> str:
        return render_explanation(explanations.explain_refusal(refusal))


def render_explanation(explanation: explanations.Explanation) -> str:
    return format_html('<pre class="explanation">{}</pre>', explanation.text())
