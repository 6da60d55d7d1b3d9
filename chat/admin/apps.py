"""The admin of apps, and its playground. `apikeys.admin.scope` decides what a user meets there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.widgets import AutocompleteSelectMultiple
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminSelectWidget,
)

from apikeys.admin.filters import ScopedListFilter
from apikeys.admin.scope import (
    LIVE,
    ChoiceInTeam,
    ChoicesInTeam,
    SearchOfLive,
    TeamScopedAdmin,
    has_many,
    is_searched,
)
from apikeys.audit import history_messages, recording
from apikeys.hot_path import broadcasts
from apikeys.keys.models import ApiKey
from chat.catalog import ModelKind
from chat.models import App
from chat.playground import TRY_APPS, PlaygroundView, apps_to_try

if TYPE_CHECKING:
    AppModelForm = forms.ModelForm[App]
else:
    AppModelForm = forms.ModelForm


class PlaygroundForm(forms.Form):
    """The choice of an app to talk to. The rest of the page is for its script."""

    app = ChoiceInTeam(queryset=App.objects.none(), label=_("App"), widget=UnfoldAdminSelectWidget)


class AppForm(AppModelForm):
    """Offers models that chat and, to an app that exists, what is of its own team."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        fields: dict[str, Any] = self.fields
        if "model" in fields:
            fields["model"].queryset = fields["model"].queryset.filter(kind=ModelKind.CHAT)
        for name in {"model", "datasets"} & set(fields) if not self.instance._state.adding else ():
            fields[name].queryset = fields[name].queryset.filter(team=self.instance.team_id)

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        team_id = cleaned["team"].pk if cleaned.get("team") else self.instance.team_id
        if team_id and any(dataset.team_id != team_id for dataset in cleaned.get("datasets") or ()):
            self.add_error("datasets", _("A dataset belongs to another team."))
        return cleaned


class SearchOfSeveral(AutocompleteSelectMultiple):
    """A search for several, without the cross that clears all: it would stand in a list and be none of its items."""

    def build_attrs(self, base_attrs: Any, extra_attrs: Any = None) -> dict[str, Any]:
        return {**super().build_attrs(base_attrs, extra_attrs), "data-allow-clear": "false"}


@admin.register(App)
class AppAdmin(TeamScopedAdmin):
    """Apps are archived, not deleted: their keys and usage name them for good."""

    form = AppForm
    list_display = ("name", "team", "model", "archived_at")
    list_filter = (("team", ScopedListFilter), ("archived_at", admin.EmptyFieldListFilter))
    list_select_related = ("team", "model")
    search_fields = ("name", "=id", "model__name")
    actions = ["archive", "archive_and_cut", "unarchive"]

    def get_fieldsets(self, request: HttpRequest, obj: App | None = None) -> Any:
        identity = ["team", "name", "intro", "model", "system_prompt", "max_tokens", "temperature"]
        identity += ["history_length", "can_override", "passes_tools", "dialect"]
        if obj is not None:
            identity = ["id", *identity, "archived_at", "created_at", "updated_at"]
        knowledge = ["datasets", "search_mode", "similarity", "quote_limit", "uses_rerank"]
        knowledge += ["quote_template", "quote_prompt", "empty_answer"]
        return [(None, {"fields": identity}), (_("Answers from knowledge"), {"fields": knowledge})]

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        # Django's own method is not called: it leaves out relations with a model of their own.
        is_many = is_searched(db_field, request, self.admin_site)
        widget = SearchOfSeveral(db_field, self.admin_site) if is_many else UnfoldAdminCheckboxSelectMultipleWidget
        rows = self.get_field_queryset(None, db_field, request)
        return db_field.formfield(form_class=ChoicesInTeam, queryset=rows, widget=widget)

    def get_readonly_fields(self, request: HttpRequest, obj: App | None = None) -> tuple[str, ...]:
        return ("id", "team", "archived_at", "created_at", "updated_at") if obj else ()

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        rows = queryset.filter(archived_at=None) if LIVE in request.GET else queryset
        return super().get_search_results(request, rows, search_term)

    def get_urls(self) -> list[URLPattern]:
        return [
            path("try/", self.admin_site.admin_view(self.try_view), name="chat_app_try"),
            # `admin_view`, which is synchronous, does not wrap it: the view asks for the session itself.
            path("try/answer/", PlaygroundView.as_view(), name="chat_app_try_answer"),
            *super().get_urls(),
        ]

    def try_view(self, request: HttpRequest) -> TemplateResponse:
        user: Any = request.user
        if not user.has_perms(TRY_APPS):
            raise PermissionDenied
        form = PlaygroundForm(initial={"app": request.GET.get("app", "")}, auto_id="try-%s")
        field: Any = form.fields["app"]
        field.queryset = apps_to_try(user).select_related("team")
        if has_many(App, user):
            field.widget = SearchOfLive(ApiKey._meta.get_field("app"), self.admin_site)
            field.widget.choices = field.choices
        context = {
            **self.admin_site.each_context(request),
            "title": _("Try it"),
            "form": form,
            "media": form.media,
            "answer_url": reverse("admin:chat_app_try_answer"),
        }
        return TemplateResponse(request, "admin/chat/app/try.html", context)

    @admin.action(description=_("Archive: refuse all calls of the selected apps"), permissions=["change"])
    def archive(self, request: HttpRequest, queryset: QuerySet[App]) -> None:
        for app in queryset.filter(archived_at=None):
            self._archive(request, app)
            self.message_user(request, gettext("Archived %(app)s.") % {"app": app}, messages.SUCCESS)

    @admin.action(
        description=_("Archive, and terminate what the selected apps are answering right now"), permissions=["change"]
    )
    def archive_and_cut(self, request: HttpRequest, queryset: QuerySet[App]) -> None:
        for app in queryset:
            self._archive(request, app)
            acknowledgements = broadcasts.broadcast(terminated_app=app.pk)
            self.message_user(
                request, f"{gettext('Archived %(app)s.') % {'app': app}} {acknowledgements.summary()}", messages.SUCCESS
            )

    def _archive(self, request: HttpRequest, app: App) -> None:
        if recording.update(App.objects.filter(pk=app.pk, archived_at=None), archived_at=timezone.now()):
            self.log_change(request, app, history_messages.ARCHIVED())

    @admin.action(description=_("Unarchive: accept calls of the selected apps again"), permissions=["change"])
    def unarchive(self, request: HttpRequest, queryset: QuerySet[App]) -> None:
        for app in queryset.exclude(archived_at=None):
            recording.update(App.objects.filter(pk=app.pk), archived_at=None)
            self.log_change(request, app, history_messages.UNARCHIVED())
            self.message_user(request, gettext("Unarchived %(app)s.") % {"app": app}, messages.SUCCESS)
