"""The forms of a key: the one that edits it, and those that confirm that it is ended, rotated or narrowed."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.crypto import salted_hmac
from django.utils.text import capfirst, format_lazy
from django.utils.translation import gettext_lazy as _
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanWidget,
)

from apikeys.access.endpoints import endpoint_names, unrecorded_endpoints
from apikeys.keys.models import POLICY_COLUMNS, ApiKey, validate_network
from apikeys.lifecycle.least_privilege import lies_in, propose, widens
from apikeys.sign_in import reauthentication

if TYPE_CHECKING:
    KeyModelForm = forms.ModelForm[ApiKey]
else:
    KeyModelForm = forms.ModelForm

OVERLAPS = {
    "0": _("at once"),
    "1": _("after 1 hour"),
    "24": _("after 24 hours"),
    "168": _("after 7 days"),
}
# The columns that a key's page edits, and the one that ends all editing. Whether the key is disabled is changed by
# pages of its own and hinders no edit.
VERSIONED = ("note", *(name for name in POLICY_COLUMNS if name != "disabled_at"))


class LinesField(forms.CharField):
    """A list of texts, one a line, whose items the model validates. Empty and repeated lines are dropped."""

    widget = UnfoldAdminTextareaWidget(attrs={"rows": 3})

    def __init__(self, *, base_field: forms.Field, **kwargs: Any) -> None:
        kwargs["help_text"] = format_lazy("{} {}", _("One per line."), kwargs.get("help_text", ""))
        # Model fields with a callable default ask for a hidden copy. It is text, and would be compared as a list.
        kwargs["show_hidden_initial"] = False
        super().__init__(**kwargs)

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value

    def clean(self, value: Any) -> Any:
        return self.items(super().clean(value))

    def has_changed(self, initial: Any, data: Any) -> bool:
        return self.items(data or "") != (initial or [])

    @staticmethod
    def items(text: str) -> list[str]:
        return list(dict.fromkeys(line for line in map(str.strip, text.splitlines()) if line))


class KeyForm(KeyModelForm):
    allowed_endpoints = forms.MultipleChoiceField(
        label=capfirst(_("allowed endpoints")),
        required=False,
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        help_text=_("With none selected, the key may call every endpoint that is open to its kind."),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("note", "allowed_networks", "allowed_models"):
            if name in self.fields:
                self.fields[name].widget.attrs["rows"] = 3
        if "allowed_endpoints" in self.fields:
            names = endpoint_names()
            # Endpoints that are gone are offered too: dropping the last one silently would open all the others.
            gone = [name for name in self.instance.allowed_endpoints if name not in names]
            choices = [(name, name) for name in names] + [
                (name, format_lazy("{} ({})", name, _("no longer exists"))) for name in gone
            ]
            self.fields["allowed_endpoints"].choices = choices  # type: ignore[attr-defined]


class EtagField(forms.CharField):
    """The version of the key that the page showed. Nobody edits it."""

    widget = forms.HiddenInput

    def has_changed(self, initial: Any, data: Any) -> bool:
        return False


class KeyChangeForm(KeyForm):
    """Edits a key that is unchanged since the page was opened.

    A stale form would undo whatever somebody else has narrowed or ended in the meantime.
    """

    etag = EtagField(required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial["etag"] = policy_etag(self.instance)

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        # The lock lasts until the key is saved.
        kept = ApiKey.objects.select_for_update(no_key=True).get(pk=self.instance.pk)
        if {cleaned.get("etag"), self.initial["etag"]} != {policy_etag(kept)}:
            raise ValidationError(
                _("This key has changed since the page was opened, so nothing was saved. Open its page again."),
                code="stale_page",
            )
        return cleaned


def policy_etag(api_key: ApiKey) -> str:
    """Return a signed digest of the policy that a key's page shows."""
    shown = [api_key.pk, *(str(getattr(api_key, column)) for column in VERSIONED)]
    return salted_hmac("apikeys.key_forms.seal", json.dumps(shown), algorithm="sha256").hexdigest()


class LateKeyForm(KeyChangeForm):
    """The form of a user who has not entered their password lately: it may narrow a key, not widen one."""

    def clean_allowed_networks(self) -> list[str]:
        # The model's own check comes after `clean`, which compares them.
        networks: list[str] = self.cleaned_data["allowed_networks"]
        for network in networks:
            validate_network(network)
        return networks

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        # Errors of single fields are shown first.
        if not self.errors and widens(self.instance, cleaned):
            raise reauthentication.reauthentication_error()
        return cleaned


class ConfirmationForm(forms.Form):
    """A form without fields, for changes that need a confirmation alone."""


class ReasonForm(forms.Form):
    reason = forms.CharField(
        label=_("Reason"),
        max_length=500,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
        help_text=_("It is stored with the key. Do not enter the key itself here."),
    )


class EndForm(ReasonForm):
    terminate_streams = forms.BooleanField(
        required=False,
        label=_("Terminate answers in progress"),
        widget=UnfoldBooleanWidget,
        help_text=_("Terminate the answers that a key is receiving right now. What was already produced is charged."),
    )


class RevocationForm(EndForm):
    """Asks for the key's name to be typed, since a revocation cannot be undone."""

    typed_name = forms.CharField(
        label=_("Type the name of the key to confirm"),
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )

    def __init__(self, *args: Any, name: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.name = name

    def clean_typed_name(self) -> str:
        typed: str = self.cleaned_data["typed_name"]
        if typed != self.name.strip():
            raise ValidationError(_("This is not the name of the key."))
        return typed


class RotationForm(forms.Form):
    overlap = forms.ChoiceField(
        label=_("The old secret expires"),
        choices=list(OVERLAPS.items()),
        widget=UnfoldAdminSelectWidget,
        help_text=_(
            "Until then both secrets work, so that callers can switch over. An even older secret that is "
            "still in its own overlap expires at once."
        ),
    )
    # The newest secret when the form was opened. Sent twice, the form finds another one the second time.
    replacing = forms.IntegerField(widget=forms.HiddenInput)

    def clean_overlap(self) -> timedelta:
        return timedelta(hours=int(self.cleaned_data["overlap"]))


class NarrowingForm(forms.Form):
    """Limits a key to endpoints and networks, at most those of now; the ones that it used are proposed."""

    endpoints = forms.MultipleChoiceField(
        label=_("Endpoints"),
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        error_messages={
            "required": _("Choose at least one. To stop the key from doing anything, disable or revoke it.")
        },
    )
    networks = LinesField(
        base_field=forms.CharField(validators=[validate_network]),
        label=_("Networks"),
        required=False,
        help_text=_("In CIDR notation. Empty means anywhere."),
    )

    def __init__(self, data: Any = None, *, api_key: ApiKey) -> None:
        self.api_key = api_key
        self.proposal = propose(api_key)
        initial = {
            "endpoints": self.proposal.endpoints,
            "networks": self.proposal.networks or api_key.allowed_networks,
        }
        super().__init__(data, initial=initial)
        names = api_key.allowed_endpoints or endpoint_names()
        unrecorded = unrecorded_endpoints()
        self.fields["endpoints"].choices = [  # type: ignore[attr-defined]
            (name, self._label(name, is_recorded=name not in unrecorded)) for name in names
        ]

    def _label(self, name: str, *, is_recorded: bool) -> Any:
        if not is_recorded:
            return format_lazy("{} ({})", name, _("its use is not recorded"))
        return name if name in self.proposal.endpoints else format_lazy("{} ({})", name, _("not used"))

    def clean_networks(self) -> list[str]:
        networks: list[str] = self.cleaned_data["networks"]
        for network in networks:
            validate_network(network)
        allowed = self.api_key.allowed_networks
        if allowed and not (networks and all(lies_in(network, allowed) for network in networks)):
            raise ValidationError(
                _("That would widen its access. Currently allowed: %(networks)s"),
                params={"networks": ", ".join(allowed)},
            )
        return networks
