"""The admin of providers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from unfold.widgets import (
    UnfoldAdminPasswordWidget,
    UnfoldAdminTextareaWidget,
    UnfoldBooleanSwitchWidget,
)

from apikeys.admin.filters import ScopedListFilter
from apikeys.admin.scope import (
    TeamScopedAdmin,
)
from apikeys.audit import recording
from chat.catalog import FRAMING_HEADERS, HEADER_NAME, Provider

if TYPE_CHECKING:
    ProviderModelForm = forms.ModelForm[Provider]
else:
    ProviderModelForm = forms.ModelForm

# They are written by these fields of the form, which are no columns.
SECRETS = ("secret", "clear_secret", "headers", "clear_headers")
# Columns of what is encrypted, and how the audit calls them.
SEALED = {"encrypted_secret": "secret", "encrypted_headers": "headers"}
CLEARED = {
    "encrypted_secret": _("The base URL changed, so the secret was cleared."),
    "encrypted_headers": _("The base URL changed, so the other headers were cleared."),
}


class UnshownTextarea(UnfoldAdminTextareaWidget):  # type: ignore[misc]  # Unfold has no types
    """A text area that comes back empty with a form that has an error."""

    def format_value(self, value: Any) -> str:
        return ""


class HeadersField(forms.CharField):
    """Headers, one in each line, such as `X-Project: 7`. Their values are secrets: they are never shown again."""

    widget = UnshownTextarea

    def clean(self, value: Any) -> Any:
        headers: dict[str, str] = {}
        for line in super().clean(value).splitlines():
            name, colon, text = (part.strip() for part in line.partition(":"))
            if not line.strip():
                continue
            if not (colon and re.fullmatch(HEADER_NAME, name) and re.fullmatch(r"[\x20-\x7e]+", text)):
                raise ValidationError(_("Write a name, a colon and a value in each line, in printable ASCII."))
            if name.lower() in FRAMING_HEADERS:
                raise ValidationError(_("The server writes the header %(name)s itself."), params={"name": name})
            if name.lower() in {known.lower() for known in headers}:
                raise ValidationError(_("The header %(name)s stands there twice."), params={"name": name})
            headers[name] = text
        return headers


class ProviderForm(ProviderModelForm):
    secret = forms.CharField(
        label=_("Secret"),
        required=False,
        max_length=2000,
        # It travels in an HTTP header.
        validators=[RegexValidator(r"\A[\x21-\x7e]*\Z", _("Only printable ASCII characters without spaces."))],
        widget=UnfoldAdminPasswordWidget(render_value=False, attrs={"autocomplete": "new-password"}),
        help_text=_(
            "The provider's own key. It is stored encrypted and never shown again. Leave it empty to keep "
            "the stored one. Changing the base URL clears it, unless a new one is entered here."
        ),
    )
    clear_secret = forms.BooleanField(
        label=_("Clear the secret"),
        required=False,
        widget=UnfoldBooleanSwitchWidget,
        help_text=_("Delete the stored secret."),
    )

    headers = HeadersField(
        label=_("Other headers"),
        required=False,
        max_length=4000,
        help_text=_(
            "Sent with every call, one in each line, such as X-Project: 7. They are stored encrypted and never shown "
            "again. Leave it empty to keep the stored ones. Changing the base URL clears them."
        ),
    )
    clear_headers = forms.BooleanField(
        label=_("Clear the other headers"),
        required=False,
        widget=UnfoldBooleanSwitchWidget,
        help_text=_("Delete the stored headers."),
    )

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        if cleaned.get("secret") and cleaned.get("clear_secret"):
            raise ValidationError({"clear_secret": _("Enter a new secret or clear the old one, not both.")})
        if cleaned.get("headers") and cleaned.get("clear_headers"):
            raise ValidationError({"clear_headers": _("Enter new headers or clear the old ones, not both.")})
        return cleaned

    def validate_unique(self) -> None:
        # A provider that exists has its team, but not in the form: Django would leave out what is unique in the team.
        super().validate_unique()
        if "team" not in self.fields:
            try:
                self.instance.validate_constraints()
            except ValidationError as error:
                self.add_error(None, error)


@admin.register(Provider)
class ProviderAdmin(TeamScopedAdmin):
    form = ProviderForm
    list_display = ("name", "team", "base_url", "has_secret")
    list_filter = (("team", ScopedListFilter),)
    list_select_related = ("team",)
    search_fields = ("name", "=id", "base_url")

    def get_fieldsets(self, request: HttpRequest, obj: Provider | None = None) -> Any:
        identity = ["team", "name", "base_url", "query"]
        secret = ["auth_header", "secret", "headers"]
        if obj is not None:
            identity = ["id", *identity]
            secret = ["auth_header", "has_secret"]
            secret += ["secret", "clear_secret"] if self.has_change_permission(request, obj) else []
            secret += ["has_headers"]
            secret += ["headers", "clear_headers"] if self.has_change_permission(request, obj) else []
        limits = ("connect_seconds", "first_byte_seconds", "between_chunks_seconds", "total_seconds")
        return [(None, {"fields": identity}), (_("Secret"), {"fields": secret}), (_("Time limits"), {"fields": limits})]

    def get_readonly_fields(self, request: HttpRequest, obj: Provider | None = None) -> tuple[str, ...]:
        return ("id", "team", "has_secret", "has_headers") if obj else ()

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return not lookup.startswith("encrypted_") and super().lookup_allowed(lookup, value, request)  # type: ignore[arg-type]

    def save_model(self, request: HttpRequest, obj: Provider, form: Any, change: bool) -> None:
        # Only edited columns are written, so that a secret stored in the meantime is not written over.
        edited = [name for name in form.changed_data if name not in SECRETS] + set_secrets(obj, form.cleaned_data)
        stored = Provider.objects.filter(pk=obj.pk)
        before = {name: change and stored.exclude(**{name: None}).exists() for name in SEALED}
        if not change:
            obj.save(force_insert=True)
        else:
            obj.save(update_fields=edited)
            # The database clears what is not for another URL.
            obj.refresh_from_db(fields=SEALED)
        for column, name in SEALED.items():
            is_there = getattr(obj, column) is not None
            if column in edited or before[column] != is_there:
                masks = (recording.MASK if before[column] else "", recording.MASK if is_there else "")
                recording.record(obj, {name: masks})
            if before[column] and not is_there and "base_url" in edited:
                self.message_user(request, CLEARED[column], messages.WARNING)

    @admin.display(boolean=True, description=_("has a secret"))
    def has_secret(self, provider: Provider) -> bool:
        return provider.has_secret

    @admin.display(boolean=True, description=_("has other headers"))
    def has_headers(self, provider: Provider) -> bool:
        return provider.has_headers


def set_secrets(provider: Provider, cleaned: dict[str, Any]) -> list[str]:
    """Take the form's secret and headers, where it has any; return the columns that they change."""
    edited = []
    if cleaned["secret"] or cleaned.get("clear_secret"):
        provider.set_secret(cleaned["secret"])
        edited.append("encrypted_secret")
    if cleaned["headers"] or cleaned.get("clear_headers"):
        provider.set_headers(cleaned["headers"])
        edited.append("encrypted_headers")
    return edited
