"""The admin's pages of keys. Only the response to the POST that makes a plaintext shows it."""

from __future__ import annotations

import json
from datetime import datetime
from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext

from apikeys.admin.filters import ExpiringSoonFilter, ScopedListFilter, UnusedFilter
from apikeys.admin.keys import bulk, transfer
from apikeys.admin.keys.actions import KEY_CHANGES, Done, KeyChange
from apikeys.admin.keys.forms import KeyChangeForm, KeyForm, LateKeyForm, LinesField
from apikeys.admin.keys.new_key_forms import FIRST_LIMITS, LimitedNewKeyForm, NewKeyForm, like, reserve_id, reserved_id
from apikeys.admin.keys.overview import overview
from apikeys.admin.long_lists import LongList, words
from apikeys.admin.scope import LIVE, TeamScopedAdmin, rows_for
from apikeys.audit import history_messages
from apikeys.keys.kinds import AccessKind
from apikeys.keys.models import RIGHTS, ApiKey, KeySecret, KeyStateError
from apikeys.lifecycle.snippets import APP_ID, snippets
from apikeys.sign_in import reauthentication
from apikeys.teams import Team

PLOT_OPTIONS = json.dumps(
    {
        "animation": False,
        "maintainAspectRatio": False,
        "plugins": {"legend": {"display": False}},
        "scales": {
            "x": {"stacked": True, "grid": {"display": False}, "ticks": {"maxTicksLimit": 5, "maxRotation": 0}},
            "y": {"stacked": True, "beginAtZero": True, "grid": {"display": True}, "ticks": {"precision": 0}},
        },
    }
)
# With this parameter, the page of a new key copies another one.
COPY_PARAMETER = "copy"
# A key's page names so many of the models that it can use.
MODELS_SHOWN = 20


@admin.register(ApiKey)
class ApiKeyAdmin(LongList, TeamScopedAdmin):
    list_display = ("name", "kind_", "team", "app", "owner", "last_four_", "state", "last_used", "expires")
    list_filter = (
        ("team", ScopedListFilter),
        ("app", ScopedListFilter),
        ("owner", ScopedListFilter),
        ExpiringSoonFilter,
        UnusedFilter,
    )
    search_fields = ("name", "=id", "app__name", "owner__username", "=secrets__last_four")
    search_help_text = gettext_lazy("Name, id, app, owner, or the last four characters. Never the key itself.")
    actions = ("bulk_disable", "bulk_enable", "bulk_revoke", "bulk_expire", "export_csv", "export_json")
    list_before_template = "admin/apikeys/apikey/list_buttons.html"
    formfield_overrides = {ArrayField: {"form_class": LinesField}}

    def rows_of_page(self, rows: Any) -> QuerySet[Any]:
        return rows.with_state()  # type: ignore[no-any-return]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        # Every word has to match some field. Subqueries find apps and owners, so that no key is joined with its rows.
        if LIVE in request.GET:
            queryset = queryset.filter(revoked_at=None)
        for word in words(search_term):
            apps = rows_for(ApiKey._meta.get_field("app").related_model, request.user).filter(name__icontains=word)
            owners = rows_for(ApiKey._meta.get_field("owner").related_model, request.user).filter(
                username__icontains=word
            )
            secrets = KeySecret.objects.filter(last_four=word).values("key")
            queryset = queryset.filter(
                Q(name__icontains=word)
                | Q(pk=word)
                | Q(app__in=apps.order_by().values("pk"))
                | Q(owner__in=owners.order_by().values("pk"))
                | Q(pk__in=secrets)
            )
        return queryset, False

    def get_field_queryset(self, db: str | None, db_field: Any, request: HttpRequest) -> QuerySet[Any]:
        rows = super().get_field_queryset(db, db_field, request)
        return rows.filter(archived_at=None) if db_field.name == "app" else rows

    # A revoked key can only be viewed, and no key is ever deleted.

    def has_change_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        return (obj is None or obj.revoked_at is None) and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        if change:
            form: type[KeyForm] = KeyChangeForm if reauthentication.is_recent(request) else LateKeyForm
        else:
            form = LimitedNewKeyForm if self._may_limit(request) else NewKeyForm
            if not reauthentication.is_recent(request):
                form = reauthentication.requires_reauthentication(form)
        return super().get_form(request, obj, change, **{"form": form, **kwargs})

    @staticmethod
    def _may_limit(request: HttpRequest) -> bool:
        return request.user.has_perm("apikeys.add_limit")

    def get_fieldsets(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        if obj is None:
            identity = ("kind", "team", "app", "name", "owner", "note", "ends", "expires_at", "reservation")
            first = (*FIRST_LIMITS, "points_period") if self._may_limit(request) else ()
            return [
                (None, {"fields": identity}),
                (_("Limits"), {"fields": (*first, *RIGHTS), "classes": ("collapse",)}),
            ]
        # A user who may only view the key has no use for this hidden field.
        etag = ("etag",) if self.has_change_permission(request, obj) else ()
        limits = ("expires_at", *(name for name in RIGHTS if not (name == "can_name_app" and obj.app_id)))
        life: tuple[str, ...] = ("id", "team", "app", "models", "created_at", "last_used_from")
        life += ("disabled_at",) if obj.disabled_at else ()
        life += ("revoked_at", "revoked_by", "revoked_reason", "acknowledged") if obj.revoked_at else ()
        return [
            (_("Policy"), {"fields": ("name", "owner", "note", *limits, *etag)}),
            (_("Lifecycle"), {"fields": life}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:
        if obj is None:
            return ()
        facts = ("id", "team", "app", "models", "created_at", "last_used_from")
        return (*facts, "disabled_at", "revoked_at", "revoked_by", "revoked_reason", "acknowledged")

    @admin.display(description=gettext_lazy("models"))
    def models(self, api_key: ApiKey) -> str:
        names = api_key.model_names()
        return ", ".join(names[:MODELS_SHOWN]) + (" \u2026" if len(names) > MODELS_SHOWN else "") if names else "-"

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        user: Any = request.user
        initial: dict[str, Any] = {"owner": user.pk}
        teams = list(Team.objects.for_user(user).values_list("pk", flat=True)[:2])
        if len(teams) == 1:
            initial["team"] = teams[0]
        copied = self.get_queryset(request).filter(pk=request.GET.get(COPY_PARAMETER, "")).first()
        if copied is not None and self.has_view_permission(request, copied):
            initial |= like(copied)
        return initial | {"reservation": reserve_id(user.pk)}

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], **kwargs: Any) -> Any:  # type: ignore[override]
        api_key: ApiKey | None = kwargs.get("obj")
        # The response to a new key shows its plaintext, so these buttons would lead nowhere.
        context |= {"show_save_and_add_another": False, "show_save_and_continue": api_key is not None}
        if api_key is not None:
            context |= overview(api_key, request.user) | {"plot_options": PLOT_OPTIONS}
            if self.has_add_permission(request):
                context["copy_url"] = f"{reverse('admin:apikeys_apikey_add')}?{COPY_PARAMETER}={api_key.pk}"
        if api_key is not None and self.has_change_permission(request, api_key):
            context["key_changes"] = [
                (change, self._url(change.name, api_key.pk)) for change in KEY_CHANGES if change.applies_to(api_key)
            ]
        return super().render_change_form(request, context, **kwargs)

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> Any:
        # Django takes "_saveasnew" for an addition, whatever the URL.
        is_opened = request.method == "GET" and object_id is None and self.has_add_permission(request)
        if is_opened and not reauthentication.is_recent(request):
            return reauthentication.ask(request)
        is_addition = request.method == "POST" and (object_id is None or "_saveasnew" in request.POST)
        if not is_addition or not self.has_add_permission(request):
            return super().changeform_view(request, object_id, form_url, extra_context)
        key_id = self._reserved_id(request)
        if key_id is None or is_made(key_id):
            return self._used_up(request, key_id)
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except (IntegrityError, ValidationError):
            # This form was sent twice at the same time, and the other request was quicker.
            if not is_made(key_id):
                raise
            return self._used_up(request, key_id)

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        if change:
            # Only edited columns are saved: another may have changed in the meantime, by a revocation say.
            obj.save(update_fields=form.changed_data)
            return
        made, plaintext = ApiKey.objects.create_key(id=self._reserved_id(request), **form.policy())
        for limit in form.first_limits(made):
            limit.save(force_insert=True)
        obj.pk = made.pk
        # The plaintext stays within this one request, from here to `response_add`.
        request.new_plaintext = plaintext  # type: ignore[attr-defined]

    def response_add(self, request: HttpRequest, obj: ApiKey, post_url_continue: Any = None) -> HttpResponse:
        made = self.get_queryset(request).get(pk=obj.pk)
        return self._show_once(request, made, request.new_plaintext, _("Created."))  # type: ignore[attr-defined]

    def _reserved_id(self, request: HttpRequest) -> str | None:
        user: Any = request.user
        return reserved_id(request.POST.get("reservation", ""), user.pk)

    def _used_up(self, request: HttpRequest, key_id: str | None) -> HttpResponse:
        # The form's id is invalid, or has been used. Its sender may no longer see the key that was made with it.
        if not self.get_queryset(request).filter(pk=key_id).exists():
            self.message_user(request, _("That form is no longer valid. Fill in this one."), messages.ERROR)
            return HttpResponseRedirect(reverse("admin:apikeys_apikey_add"))
        self.message_user(
            request,
            _(
                "The form that you submitted has already created this key, which was shown once. If it is lost, "
                "rotate it."
            ),
            messages.WARNING,
        )
        return HttpResponseRedirect(self._url("change", str(key_id)))

    def _show_once(self, request: HttpRequest, api_key: ApiKey, plaintext: str, done: str) -> HttpResponse:
        # The response to the POST that made the plaintext is the only page with it. No cache or history may keep it.
        context = {
            **self.admin_site.each_context(request),
            "title": _("Store the key now"),
            "done": done,
            "opts": self.opts,
            "api_key": api_key,
            "plaintext": plaintext,
            "base_url": request.build_absolute_uri("/api"),
            "snippets": list(snippets(api_key.kind, request.build_absolute_uri("/api"), plaintext)),
            "app_id_stands_for": APP_ID if api_key.kind == AccessKind.GLOBAL_NAMING_APP else None,
            "key_url": self._url("change", api_key.pk),
        }
        headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
        return TemplateResponse(request, "admin/apikeys/apikey/new_key.html", context, headers=headers)

    def get_urls(self) -> list[URLPattern]:
        pages = [
            path(
                f"<path:object_id>/{change.name}/",
                self.admin_site.admin_view(partial(self.key_change_view, change=change)),
                name=f"apikeys_apikey_{change.name}",
            )
            for change in KEY_CHANGES
        ]
        # These come before the pages of one key, whose paths match any id.
        many = [
            path("export/", self.admin_site.admin_view(self.export_view), name="apikeys_apikey_export"),
            path("import/", self.admin_site.admin_view(self.import_view), name="apikeys_apikey_import"),
            path("bulk/<slug:name>/", self.admin_site.admin_view(self.bulk_portion_view), name="apikeys_apikey_bulk"),
        ]
        return many + pages + super().get_urls()

    def bulk_portion_view(self, request: HttpRequest, name: str) -> HttpResponse:
        return bulk.portion_view(self, request, name)

    def export_view(self, request: HttpRequest) -> HttpResponse:
        return transfer.export_filtered(self, request)

    def import_view(self, request: HttpRequest) -> HttpResponse:
        return transfer.import_view(self, request)

    @admin.action(description=gettext_lazy("Export as CSV"), permissions=["view"])
    def export_csv(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        return transfer.export(self, request, queryset, "csv")

    @admin.action(description=gettext_lazy("Export as JSON"), permissions=["view"])
    def export_json(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        return transfer.export(self, request, queryset, "json")

    @admin.action(description=gettext_lazy("Disable"), permissions=["change"])
    def bulk_disable(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        return bulk.choose_how(self, request, "disable", queryset)

    @admin.action(description=gettext_lazy("Enable"), permissions=["change"])
    def bulk_enable(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        return bulk.choose_how(self, request, "enable", queryset)

    @admin.action(description=gettext_lazy("Revoke"), permissions=["change"])
    def bulk_revoke(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        return bulk.choose_how(self, request, "revoke", queryset)

    @admin.action(description=gettext_lazy("Set the expiry"), permissions=["change"])
    def bulk_expire(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        return bulk.choose_how(self, request, "expire", queryset)

    def key_change_view(self, request: HttpRequest, object_id: str, change: KeyChange) -> HttpResponse:
        api_key: ApiKey | None = self.get_object(request, unquote(object_id))
        if not self.has_change_permission(request):
            raise PermissionDenied
        if api_key is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)  # type: ignore[no-any-return, attr-defined]
        form = change.form(api_key, request.POST if request.method == "POST" else None)
        is_stale = change.needs_password and not reauthentication.is_recent(request)
        if is_stale and request.method != "POST":
            return reauthentication.ask(request)
        if form.is_valid() and is_stale:
            form.add_error(None, reauthentication.reauthentication_error())
        elif form.is_valid():
            return self._apply(request, api_key, change, form.cleaned_data)
        context = {
            **self.admin_site.each_context(request),
            "title": change.title,
            "opts": self.opts,
            "api_key": api_key,
            "change": change,
            "form": form,
            "key_url": self._url("change", api_key.pk),
        }
        return TemplateResponse(request, change.template, context)

    def _apply(self, request: HttpRequest, api_key: ApiKey, change: KeyChange, cleaned: dict[str, Any]) -> HttpResponse:
        user: Any = request.user
        try:
            with transaction.atomic():
                done: Done = change.apply(api_key, cleaned, by=user.get_username())
                self.log_change(request, api_key, done.history)
        except KeyStateError as error:
            self.message_user(request, str(error), messages.ERROR)
            return HttpResponseRedirect(self._url("change", api_key.pk))
        message = history_messages.read(done.history)
        if done.plaintext is not None:
            return self._show_once(request, api_key, done.plaintext, message)
        self.message_user(request, f"{message} {change.after(api_key, cleaned)}".rstrip(), messages.SUCCESS)
        return HttpResponseRedirect(self._url("change", api_key.pk))

    @staticmethod
    def _url(page: str, key_id: str) -> str:
        return reverse(f"admin:apikeys_apikey_{page}", args=[quote(key_id)])

    @admin.display(description=gettext_lazy("kind"))
    def kind_(self, api_key: ApiKey) -> str:
        return api_key.kind.label.replace(" key", "")

    @admin.display(description=gettext_lazy("last four"))
    def last_four_(self, api_key: ApiKey) -> str:
        return api_key.last_four

    @admin.display(description=gettext_lazy("state"))
    def state(self, api_key: ApiKey) -> str:
        return api_key.why_unusable or _("usable")

    @admin.display(description=gettext_lazy("expires"), ordering="expires_at")
    def expires(self, api_key: ApiKey) -> str:
        return moment(api_key.expires_at) if api_key.expires_at else pgettext("end", "never")

    @admin.display(description=gettext_lazy("last used"), ordering="activity__last_used_at")
    def last_used(self, api_key: ApiKey) -> str:
        activity = getattr(api_key, "activity", None)
        return moment(activity.last_used_at if activity else None)

    @admin.display(description=gettext_lazy("last used from"))
    def last_used_from(self, api_key: ApiKey) -> str:
        activity = getattr(api_key, "activity", None)
        return activity.last_used_from or "-" if activity else "-"

    @admin.display(description=gettext_lazy("acknowledged"))
    def acknowledged(self, api_key: ApiKey) -> str:
        if api_key.unacknowledged_servers:
            return _("not by %(names)s") % {"names": ", ".join(api_key.unacknowledged_servers)}
        acknowledged_at = api_key.revocation_acknowledged_at
        return _("by every server process, %(when)s") % {"when": moment(acknowledged_at)} if acknowledged_at else "-"


def is_made(key_id: str) -> bool:
    return bool(ApiKey.objects.filter(pk=key_id).exists())


def moment(when: datetime | None) -> str:
    return f"{timezone.localtime(when):%Y-%m-%d %H:%M}" if when else _("never")
