"""The admin's pages of alerts and webhooks. Only the response that makes a webhook's secret shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.admin import TabularInline as UnfoldTabularInline

from apikeys.admin.filters import ScopedListFilter, YesFilter
from apikeys.admin.scope import ReadOnlyAdmin, TeamScopedAdmin
from apikeys.alerts import messages as notices
from apikeys.alerts.deliveries import Delivery, undelivered_alerts
from apikeys.alerts.models import Alert
from apikeys.alerts.webhooks import Webhook
from apikeys.audit import history_messages, recording
from apikeys.sign_in import reauthentication

if TYPE_CHECKING:
    DeliveryTabularInline = admin.TabularInline[Delivery, Alert]
else:
    DeliveryTabularInline = UnfoldTabularInline


class DeliveryInline(DeliveryTabularInline):
    model = Delivery
    fields = readonly_fields = ("channel", "attempts", "delivered_at", "given_up_at", "error")
    extra = 0

    @admin.display(description=_("last error"))
    def error(self, delivery: Delivery) -> str:
        return history_messages.read(delivery.last_error) or "-"

    # Whoever may see an alert may see its deliveries.

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("apikeys.view_alert")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class GivenUpFilter(YesFilter):
    title, parameter_name, label = _("deliveries"), "given_up", _("Given up")

    def rows(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return undelivered_alerts(queryset)


@admin.register(Alert)
class AlertAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "headline", "team", "delivered_at")
    list_filter = (("team", ScopedListFilter), "kind", ("delivered_at", admin.EmptyFieldListFilter), GivenUpFilter)
    list_select_related = ("team", "key")
    search_fields = ("=key__id", "key__name", "team__name")
    fields = ("headline", "kind", "team", "key", "details", "created_at", "delivered_at")
    inlines = [DeliveryInline]
    show_full_result_count = False

    @admin.display(description=_("what happened"))
    def headline(self, alert: Alert) -> str:
        return notices.headline(alert)


class ReplacementForm(forms.Form):
    """Holds the time when the secret to be replaced was made, so that one form replaces it once."""

    replacing = forms.DateTimeField(widget=forms.HiddenInput)


@admin.register(Webhook)
class WebhookAdmin(TeamScopedAdmin):
    list_display = ("team", "url", "disabled_at", "last_success_at", "last_failure_at")
    list_filter = (("team", ScopedListFilter),)
    list_select_related = ("team",)
    search_fields = ("team__name", "url")

    def get_fields(self, request: HttpRequest, obj: Webhook | None = None) -> Any:
        facts = ("secret_made_at", "last_success_at", "last_failure_at", "failure")
        return ("team", "url", "disabled_at", *(facts if obj else ()))

    def get_form(self, request: HttpRequest, obj: Webhook | None = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        if reauthentication.is_recent(request):
            return form
        # A new webhook, and one with another URL, gets a new secret, which is shown.
        return reauthentication.requires_reauthentication(form, *(("url",) if obj else ()))

    def get_readonly_fields(self, request: HttpRequest, obj: Webhook | None = None) -> tuple[str, ...]:
        # A webhook of one team is not given to another.
        return ("team", "secret_made_at", "last_success_at", "last_failure_at", "failure") if obj else ()

    @admin.display(description=_("last failure"))
    def failure(self, webhook: Webhook) -> str:
        return history_messages.read(webhook.last_failure) or "-"

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return not lookup.startswith("encrypted_secret") and super().lookup_allowed(lookup, value, request)  # type: ignore[arg-type]

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], **kwargs: Any) -> Any:  # type: ignore[override]
        webhook: Webhook | None = kwargs.get("obj")
        # The response to a new webhook shows its secret, so these buttons would lead nowhere.
        context |= {"show_save_and_add_another": False, "show_save_and_continue": webhook is not None}
        if webhook is not None and self.has_change_permission(request, webhook):
            context["new_secret_url"] = self._url("new_secret", webhook)
        return super().render_change_form(request, context, **kwargs)

    def save_model(self, request: HttpRequest, obj: Webhook, form: Any, change: bool) -> None:
        # Only edited columns are saved, since deliveries write to the same row.
        edited = list(form.changed_data)
        if not change or "url" in edited:
            # The secret stays within this one request, from here to its response.
            request.new_secret = obj.make_secret()  # type: ignore[attr-defined]
            edited += ["encrypted_secret", "secret_made_at"]
        if change:
            obj.save(update_fields=edited)
        else:
            obj.save(force_insert=True)

    def response_add(self, request: HttpRequest, obj: Webhook, post_url_continue: Any = None) -> HttpResponse:
        return self._show_once(request, obj, request.new_secret, gettext("Created."))  # type: ignore[attr-defined]

    def response_change(self, request: HttpRequest, obj: Webhook) -> HttpResponse:
        secret: str | None = getattr(request, "new_secret", None)
        if secret is None:
            return super().response_change(request, obj)
        return self._show_once(request, obj, secret, gettext("The URL changed, so a new secret was generated."))

    def get_urls(self) -> list[URLPattern]:
        page = path(
            "<path:object_id>/new_secret/",
            self.admin_site.admin_view(self.new_secret_view),
            name="apikeys_webhook_new_secret",
        )
        return [page, *super().get_urls()]

    def new_secret_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        webhook: Webhook | None = self.get_object(request, unquote(object_id))
        if not self.has_change_permission(request):
            raise PermissionDenied
        if webhook is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)  # type: ignore[no-any-return, attr-defined]
        if not reauthentication.is_recent(request):
            return reauthentication.ask(request)
        form = ReplacementForm(
            request.POST if request.method == "POST" else None,
            initial={"replacing": webhook.secret_made_at.isoformat()},
        )
        if form.is_valid():
            return self._replace_secret(request, webhook, form.cleaned_data["replacing"])
        context = {
            **self.admin_site.each_context(request),
            "title": _("Generate a new secret?"),
            "opts": self.opts,
            "webhook": webhook,
            "form": form,
            "webhook_url": self._url("change", webhook),
        }
        return TemplateResponse(request, "admin/apikeys/webhook/new_secret.html", context)

    def _replace_secret(self, request: HttpRequest, webhook: Webhook, replacing: Any) -> HttpResponse:
        secret = webhook.make_secret()
        # One statement checks and writes: this form, sent twice, or a change of the URL may have been quicker.
        is_replaced = recording.update(
            Webhook.objects.filter(pk=webhook.pk, url=webhook.url, secret_made_at=replacing),
            encrypted_secret=webhook.encrypted_secret,
            secret_made_at=webhook.secret_made_at,
        )
        if not is_replaced:
            self.message_user(
                request,
                _("The secret was replaced in the meantime and has been shown once. If it is lost, replace it again."),
                messages.ERROR,
            )
            return HttpResponseRedirect(self._url("change", webhook))
        self.log_change(request, webhook, history_messages.NEW_WEBHOOK_SECRET())
        return self._show_once(request, webhook, secret, gettext("Replaced."))

    def _show_once(self, request: HttpRequest, webhook: Webhook, secret: str, done: Any) -> HttpResponse:
        # The response to the POST that made the secret is the only page with it. No cache or history may keep it.
        context = {
            **self.admin_site.each_context(request),
            "title": _("Store the secret now"),
            "done": done,
            "opts": self.opts,
            "webhook": webhook,
            "secret": secret,
            "webhook_url": self._url("change", webhook),
        }
        headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
        return TemplateResponse(request, "admin/apikeys/webhook/shown_once.html", context, headers=headers)

    @staticmethod
    def _url(page: str, webhook: Webhook) -> str:
        return reverse(f"admin:apikeys_webhook_{page}", args=[quote(webhook.pk)])
