"""The admin of providers, apps and conversations. What a user meets there is decided in `apikeys.admin.scope`."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.widgets import AutocompleteSelectMultiple
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.validators import RegexValidator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.text import capfirst
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.admin import TabularInline as UnfoldTabularInline
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminPasswordWidget,
    UnfoldAdminSelectWidget,
    UnfoldBooleanSwitchWidget,
)

from apikeys.accounting.units import MICROPOINTS
from apikeys.admin.filters import ScopedListFilter
from apikeys.admin.scope import (
    LIVE,
    ChoiceInTeam,
    ChoicesInTeam,
    ReadOnlyAdmin,
    SearchOfLive,
    TeamScopedAdmin,
    has_many,
    is_searched,
)
from apikeys.audit import history_messages, recording
from apikeys.hot_path import broadcasts
from apikeys.keys.models import ApiKey
from chat.admin.playground_view import TRY_APPS, TrialView, apps_to_try
from chat.models import App, Conversation, Message, Price, Provider

if TYPE_CHECKING:
    AppModelForm = forms.ModelForm[App]
    ProviderModelForm = forms.ModelForm[Provider]
    PriceModelForm = forms.ModelForm[Price]
    PriceTabularInline = admin.TabularInline[Price, Provider]
else:
    PriceModelForm = forms.ModelForm
    PriceTabularInline = UnfoldTabularInline
    AppModelForm = ProviderModelForm = forms.ModelForm


class ProviderForm(ProviderModelForm):
    secret = forms.CharField(
        label=_("Secret"),
        required=False,
        max_length=2000,
        # It travels in an HTTP header.
        validators=[RegexValidator(r"\A[\x21-\x7e]*\Z", _("Only printable ASCII characters without blanks."))],
        widget=UnfoldAdminPasswordWidget(render_value=False, attrs={"autocomplete": "new-password"}),
        help_text=_(
            "The provider's own key. It is stored encrypted and never shown again. Empty leaves it as it is. "
            "Changing the base URL clears it, unless a new one is given here."
        ),
    )
    clear_secret = forms.BooleanField(
        label=_("Clear the secret"),
        required=False,
        widget=UnfoldBooleanSwitchWidget,
        help_text=_("Forget the secret that is stored."),
    )

    def clean(self) -> dict[str, Any]:
        answers: dict[str, Any] = super().clean() or {}
        if answers.get("secret") and answers.get("clear_secret"):
            raise ValidationError({"clear_secret": _("Give a new secret or clear the old one, not both.")})
        return answers

    def validate_unique(self) -> None:
        """Also what is unique in the team, which is set but not in the form of a provider that exists."""
        super().validate_unique()
        if "team" not in self.fields:
            try:
                self.instance.validate_constraints()
            except ValidationError as error:
                self.add_error(None, error)


class PointsField(forms.DecimalField):
    """Points with six decimals, kept as whole millionths."""

    def __init__(self, **kwargs: Any) -> None:
        fixed = {"min_value": 0, "max_digits": 12, "decimal_places": 6, "widget": UnfoldAdminDecimalFieldWidget}
        super().__init__(**{**kwargs, **fixed})

    def prepare_value(self, value: Any) -> Any:
        return Decimal(value) / MICROPOINTS if isinstance(value, int) else value

    def has_changed(self, initial: Any, data: Any) -> bool:
        return super().has_changed(self.prepare_value(initial), data)

    def clean(self, value: Any) -> Any:
        points = super().clean(value)
        return None if points is None else int(points * MICROPOINTS)


class PriceForm(PriceModelForm):
    prompt_micropoints = PointsField(label=_("points for 1,000 prompt tokens"), initial=0)
    completion_micropoints = PointsField(label=_("points for 1,000 tokens of the answer"), initial=0)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Unfold's tables of inlines have headings, and no labels.
        for field in self.fields.values():
            field.widget.attrs["aria-label"] = capfirst(field.label)


class PriceInline(PriceTabularInline):
    model = Price
    form = PriceForm
    extra = 1
    fields = ("model", "prompt_micropoints", "completion_micropoints")

    # A price is part of its provider.

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("chat.view_provider") or request.user.has_perm("chat.change_provider")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("chat.change_provider") or request.user.has_perm("chat.add_provider")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("chat.change_provider")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("chat.change_provider")


@admin.register(Provider)
class ProviderAdmin(TeamScopedAdmin):
    form = ProviderForm
    list_display = ("name", "team", "base_url", "has_secret")
    list_filter = (("team", ScopedListFilter),)
    list_select_related = ("team",)
    search_fields = ("name", "=id", "base_url")
    inlines = [PriceInline]

    def get_fieldsets(self, request: HttpRequest, obj: Provider | None = None) -> Any:
        identity = ["team", "name", "base_url"]
        secret = ["secret"]
        if obj is not None:
            identity = ["id", *identity]
            secret = ["has_secret"]
            secret += ["secret", "clear_secret"] if self.has_change_permission(request, obj) else []
        limits = ("connect_seconds", "first_byte_seconds", "between_chunks_seconds", "total_seconds")
        return [(None, {"fields": identity}), (_("Secret"), {"fields": secret}), (_("Time limits"), {"fields": limits})]

    def get_readonly_fields(self, request: HttpRequest, obj: Provider | None = None) -> tuple[str, ...]:
        return ("id", "team", "has_secret") if obj else ()

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return not lookup.startswith("encrypted_secret") and super().lookup_allowed(lookup, value, request)  # type: ignore[arg-type]

    def save_model(self, request: HttpRequest, obj: Provider, form: Any, change: bool) -> None:
        answers = form.cleaned_data
        # Only what was edited, so that a secret stored in the meantime is not written over.
        edited = [name for name in form.changed_data if name not in ("secret", "clear_secret")]
        if answers["secret"] or answers.get("clear_secret"):
            obj.set_secret(answers["secret"])
            edited.append("encrypted_secret")
        had_secret = change and Provider.objects.filter(pk=obj.pk).exclude(encrypted_secret=None).exists()
        if not change:
            obj.save(force_insert=True)
        else:
            obj.save(update_fields=edited)
            # The database clears the secret of another URL.
            obj.refresh_from_db(fields=["encrypted_secret"])
        if "encrypted_secret" in edited or had_secret != obj.has_secret:
            recording.record(
                obj, {"secret": (recording.MASK if had_secret else "", recording.MASK if obj.has_secret else "")}
            )
        if had_secret and not obj.has_secret and "base_url" in edited:
            self.message_user(request, _("The base URL changed, so the secret was cleared."), messages.WARNING)

    @admin.display(boolean=True, description=_("has a secret"))
    def has_secret(self, provider: Provider) -> bool:
        return provider.has_secret


class TrialForm(forms.Form):
    """Which app is talked to. The rest of the page is for its script."""

    app = ChoiceInTeam(queryset=App.objects.none(), label=_("App"), widget=UnfoldAdminSelectWidget)


class AppForm(AppModelForm):
    """Offers an app that exists the datasets of its own team."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.instance._state.adding and "datasets" in self.fields:
            field: Any = self.fields["datasets"]
            field.queryset = field.queryset.filter(team=self.instance.team_id)

    def clean(self) -> dict[str, Any]:
        answers: dict[str, Any] = super().clean() or {}
        team_id = answers["team"].pk if answers.get("team") else self.instance.team_id
        if team_id and any(dataset.team_id != team_id for dataset in answers.get("datasets") or ()):
            self.add_error("datasets", _("A dataset belongs to another team."))
        return answers


class SearchOfSeveral(AutocompleteSelectMultiple):
    """Without the cross that clears all: it would stand in a list and be none of its items."""

    def build_attrs(self, base_attrs: Any, extra_attrs: Any = None) -> dict[str, Any]:
        return {**super().build_attrs(base_attrs, extra_attrs), "data-allow-clear": "false"}


@admin.register(App)
class AppAdmin(TeamScopedAdmin):
    """Apps are archived, not deleted: their keys and usage name them for good."""

    form = AppForm
    list_display = ("name", "team", "provider", "model", "archived_at")
    list_filter = (("team", ScopedListFilter), ("archived_at", admin.EmptyFieldListFilter))
    list_select_related = ("team", "provider")
    search_fields = ("name", "=id", "model")
    actions = ["archive", "archive_and_cut", "unarchive"]

    def get_fieldsets(self, request: HttpRequest, obj: App | None = None) -> Any:
        identity = ["team", "name", "intro", "provider", "model", "system_prompt", "max_tokens", "temperature"]
        identity += ["history_length", "can_override", "dialect"]
        if obj is not None:
            identity = ["id", *identity, "archived_at", "created_at", "updated_at"]
        knowledge = ["datasets", "search_mode", "similarity", "quote_limit", "uses_rerank"]
        knowledge += ["quote_template", "quote_prompt", "empty_answer"]
        return [(None, {"fields": identity}), (_("Answers from knowledge"), {"fields": knowledge})]

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        # Not through Django's own, which leaves out relations with a model of their own.
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
            # Not through `admin_view`, which is synchronous: it asks for the session itself.
            path("try/answer/", TrialView.as_view(), name="chat_app_try_answer"),
            *super().get_urls(),
        ]

    def try_view(self, request: HttpRequest) -> TemplateResponse:
        user: Any = request.user
        if not user.has_perms(TRY_APPS):
            raise PermissionDenied
        form = TrialForm(initial={"app": request.GET.get("app", "")}, auto_id="try-%s")
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
        description=_("Archive, and cut what the selected apps are answering at this moment"), permissions=["change"]
    )
    def archive_and_cut(self, request: HttpRequest, queryset: QuerySet[App]) -> None:
        for app in queryset:
            self._archive(request, app)
            hearing = broadcasts.call(cut_app=app.pk)
            self.message_user(
                request, f"{gettext('Archived %(app)s.') % {'app': app}} {hearing.told()}", messages.SUCCESS
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


@admin.register(Conversation)
class ConversationAdmin(ReadOnlyAdmin):
    team_path = "app__team"
    list_display = ("chat_id", "app", "custom_uid", "created_at", "updated_at")
    list_filter = (("app", ScopedListFilter),)
    list_select_related = ("app",)
    search_fields = ("chat_id", "custom_uid", "app__name")
    fields = ("app", "chat_id", "custom_uid", "metadata", "variables", "created_at", "updated_at", "its_messages")
    show_full_result_count = False

    @admin.display(description=_("messages"))
    def its_messages(self, conversation: Conversation) -> str:
        url = reverse("admin:chat_message_changelist")
        return format_html(
            '<a class="site-link" href="{}?conversation__id__exact={}">{}</a>',
            url,
            conversation.pk,
            gettext("Show them"),
        )


@admin.register(Message)
class MessageAdmin(ReadOnlyAdmin):
    team_path = "conversation__app__team"
    fields = readonly_fields = (
        "conversation",
        "data_id",
        "role",
        "content",
        "response_data",
        "ending",
        "request_id",
        "created_at",
    )
    list_display = ("data_id", "conversation", "role", "ending", "created_at")
    list_filter = ("role", "ending")
    list_select_related = ("conversation",)
    search_fields = ("=data_id", "=conversation__chat_id", "=request_id")
    ordering = ("-pk",)
    show_full_result_count = False
