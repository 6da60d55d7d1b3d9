"""One change to many keys: asked once on a page, carried out in portions, each with a line for every key."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminSplitDateTimeWidget

from apikeys.admin.keys.actions import Disabling, Done, Enabling, KeyChange, Revocation
from apikeys.admin.keys.forms import EndForm
from apikeys.admin.keys.new_key_forms import ENDS
from apikeys.audit import history_messages
from apikeys.keys.models import ApiKey, validate_end
from apikeys.lifecycle import widening

# As many keys as one action takes, and as one request of it.
MAXIMUM_KEYS = 5_000
PORTION = 50


@dataclass(frozen=True, slots=True)
class Line:
    """What became of one key."""

    id: str
    name: str
    result: str
    is_done: bool


class ExpiryForm(forms.Form):
    ends = forms.ChoiceField(label=_("Ends"), choices=ENDS, initial="90", widget=UnfoldAdminSelectWidget)
    expires_at: Any = forms.SplitDateTimeField(
        label=_("On"),
        required=False,
        validators=[validate_end],
        widget=UnfoldAdminSplitDateTimeWidget(attrs={"data-shown-when": "ends=date"}),
    )

    def clean(self) -> dict[str, Any]:
        answers: dict[str, Any] = super().clean() or {}
        ends = answers.get("ends")
        if ends == "date" and not self.errors:
            if answers["expires_at"] is None:
                self.add_error("expires_at", ValidationError(_("Say on which date.")))
        elif ends is not None:
            answers["expires_at"] = (
                timezone.now() + timedelta(days=int(ends)) if ends not in ("never", "date") else None
            )
        return answers


class Expiry(KeyChange):
    name = "expire"
    label = _("Set the end")
    title = _("Set the end of these API keys?")
    icon = "event"
    explanation = _("The keys will be refused from then on. A date that has passed ends them at once.")
    form_class = ExpiryForm

    def widens(self, api_key: ApiKey, answers: dict[str, Any]) -> bool:
        return widening.widens(api_key, {"expires_at": answers["expires_at"]})

    def carry_out(self, api_key: ApiKey, answers: dict[str, Any], by: str) -> Done:
        expires_at = answers["expires_at"]
        api_key.set_end(expires_at)
        if expires_at is None:
            return Done(history_messages.ENDLESS())
        return Done(history_messages.ENDING(moment=f"{expires_at:%Y-%m-%d %H:%M %Z}"))


class BulkRevocation(Revocation):
    """Of many keys nobody types the names."""

    form_class = EndForm


BULK_CHANGES: dict[str, KeyChange] = {
    change.name: change for change in (Disabling(), Enabling(), BulkRevocation(), Expiry())
}
