"""Changes of many keys at once. Each request checks again who asks, and which keys they may see."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.forms import Form
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import strip_tags
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminSplitDateTimeWidget

from apikeys.admin.keys.actions import Disabling, Done, Enabling, KeyChange, Revocation
from apikeys.admin.keys.forms import EndForm
from apikeys.admin.keys.new_key_forms import ENDS
from apikeys.audit import history_messages
from apikeys.keys.models import ApiKey, KeyStateError, validate_end
from apikeys.lifecycle import least_privilege, revocation
from apikeys.sign_in import reauthentication

# The model admin of keys, whose module imports this one.
KeyAdmin = Any
# One action takes so many keys, and one request of it a portion.
MAXIMUM_KEYS = 5_000
PORTION = 50


@dataclass(frozen=True, slots=True)
class Line:
    """The result for one key."""

    id: str
    name: str
    result: str
    is_done: bool


class ExpiryForm(forms.Form):
    ends = forms.ChoiceField(label=_("Expires"), choices=ENDS, initial="90", widget=UnfoldAdminSelectWidget)
    expires_at: Any = forms.SplitDateTimeField(
        label=_("On"),
        required=False,
        validators=[validate_end],
        widget=UnfoldAdminSplitDateTimeWidget(attrs={"data-shown-when": "ends=date"}),
    )

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        ends = cleaned.get("ends")
        if ends == "date" and not self.errors:
            if cleaned["expires_at"] is None:
                self.add_error("expires_at", ValidationError(_("Enter a date.")))
        elif ends is not None:
            cleaned["expires_at"] = (
                timezone.now() + timedelta(days=int(ends)) if ends not in ("never", "date") else None
            )
        return cleaned


class Expiry(KeyChange):
    name = "expire"
    label = _("Set the expiry")
    title = _("Set the expiry of these API keys?")
    icon = "event"
    explanation = _("The keys will be refused from then on. A date in the past makes them expire at once.")
    form_class = ExpiryForm

    def widens(self, api_key: ApiKey, cleaned: dict[str, Any]) -> bool:
        return least_privilege.widens(api_key, {"expires_at": cleaned["expires_at"]})

    def apply(self, api_key: ApiKey, cleaned: dict[str, Any], by: str) -> Done:
        expires_at = cleaned["expires_at"]
        api_key.set_end(expires_at)
        if expires_at is None:
            return Done(history_messages.ENDLESS())
        return Done(history_messages.ENDING(moment=f"{expires_at:%Y-%m-%d %H:%M %Z}"))


class BulkRevocation(Revocation):
    """A revocation without the key's name, which nobody types for many keys."""

    form_class = EndForm


BULK_CHANGES: dict[str, KeyChange] = {
    change.name: change for change in (Disabling(), Enabling(), BulkRevocation(), Expiry())
}


def choose_how(keys_admin: KeyAdmin, request: HttpRequest, name: str, queryset: Any) -> HttpResponse | None:
    """Return the page that asks for details of the change, for the keys that were selected in the list."""
    key_ids = list(queryset.order_by("-created_at", "-pk").values_list("pk", flat=True)[: MAXIMUM_KEYS + 1])
    if len(key_ids) > MAXIMUM_KEYS:
        keys_admin.message_user(
            request, gettext("At most %(count)s keys at once.") % {"count": f"{MAXIMUM_KEYS:,}"}, messages.ERROR
        )
        return None
    change = BULK_CHANGES[name]
    return page(keys_admin, request, change, change.form_class(), key_ids)


def page(
    keys_admin: KeyAdmin,
    request: HttpRequest,
    change: KeyChange,
    form: Form,
    key_ids: list[str],
    lines: list[Line] | None = None,
) -> HttpResponse:
    context = {
        **keys_admin.admin_site.each_context(request),
        "title": change.label,
        "opts": keys_admin.opts,
        "change": change,
        "form": form,
        "key_ids": key_ids,
        "is_one_portion": len(key_ids) <= PORTION,
        "portion": PORTION,
        "lines": lines,
        "list_url": reverse("admin:apikeys_apikey_changelist"),
        "portion_url": reverse("admin:apikeys_apikey_bulk", args=[change.name]),
    }
    return TemplateResponse(request, "admin/apikeys/apikey/bulk.html", context)


def portion_view(keys_admin: KeyAdmin, request: HttpRequest, name: str) -> HttpResponse:
    """Apply a change to a portion of keys. Return a line for each, to a script as JSON, otherwise as a page."""
    if not keys_admin.has_change_permission(request):
        raise PermissionDenied
    change = BULK_CHANGES.get(name)
    if change is None:
        raise Http404
    if request.method != "POST":
        return HttpResponseRedirect(reverse("admin:apikeys_apikey_changelist"))
    key_ids = list(dict.fromkeys(request.POST.getlist("key")))
    wants_json = request.headers.get("Accept") == "application/json"
    if not 0 < len(key_ids) <= PORTION:
        complaint = gettext("Choose between 1 and %(count)s keys.") % {"count": PORTION}
        return JsonResponse({"errors": [complaint]}, status=400) if wants_json else HttpResponse(complaint, status=400)
    found = {api_key.pk: api_key for api_key in keys_admin.get_queryset(request).filter(pk__in=key_ids)}
    form = change.form_class(request.POST)
    if form.is_valid() and not reauthentication.is_recent(request):
        applying = [api_key for api_key in found.values() if change.applies_to(api_key)]
        if any(change.widens(api_key, form.cleaned_data) for api_key in applying):
            form.add_error(None, reauthentication.reauthentication_error())
    if not form.is_valid():
        if wants_json:
            # Shown as text, so the link to the page that asks for the password is left out.
            errors = [strip_tags(str(message)) for field in form.errors.values() for message in field]
            return JsonResponse({"errors": errors}, status=400)
        return page(keys_admin, request, change, form, key_ids)
    lines, note = apply(keys_admin, request, change, key_ids, found, form.cleaned_data)
    if wants_json:
        return JsonResponse({"lines": [asdict(line) for line in lines], "note": note})
    keys_admin.message_user(request, note, messages.SUCCESS) if note else None
    return page(keys_admin, request, change, form, [], lines)


def apply(
    keys_admin: KeyAdmin,
    request: HttpRequest,
    change: KeyChange,
    key_ids: list[str],
    found: dict[str, ApiKey],
    cleaned: dict[str, Any],
) -> tuple[list[Line], str]:
    # Each key has a transaction of its own. A portion that is sent again finds the keys that were changed already.
    lines = [
        line_of(keys_admin, request, change, found[key_id], cleaned)
        if key_id in found
        else Line(key_id, key_id, gettext("There is no such key."), False)
        for key_id in key_ids
    ]
    if "terminate_streams" not in cleaned:
        return lines, ""
    is_final = change.is_final
    ended = [
        api_key
        for api_key in found.values()
        if (api_key.revoked_at if is_final else api_key.disabled_at and not api_key.revoked_at)
        and api_key.revocation_acknowledged_at is None
    ]
    if not ended:
        return lines, ""
    return lines, revocation.broadcast_revocations(ended, terminate_streams=cleaned["terminate_streams"]).summary()


def line_of(
    keys_admin: KeyAdmin, request: HttpRequest, change: KeyChange, api_key: ApiKey, cleaned: dict[str, Any]
) -> Line:
    user: Any = request.user
    if not change.applies_to(api_key):
        state = gettext("It was revoked.") if api_key.revoked_at else gettext("No change was needed.")
        return Line(api_key.pk, api_key.name, state, False)
    try:
        with transaction.atomic():
            done = change.apply(api_key, cleaned, by=user.get_username())
            keys_admin.log_change(request, api_key, done.history)
    except KeyStateError as error:
        return Line(api_key.pk, api_key.name, str(error), False)
    return Line(api_key.pk, api_key.name, history_messages.read(done.history), True)
