"""The forms of a key: the one that makes it, the one that changes it, and those that confirm what ends or renews it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib.admin.widgets import AdminTextareaWidget
from django.core import signing

from apikeys import fresh_password
from apikeys.endpoints import endpoint_names
from apikeys.models import ApiKey
from apikeys.object_ids import new_object_id

if TYPE_CHECKING:
    KeyModelForm = forms.ModelForm[ApiKey]
else:
    KeyModelForm = forms.ModelForm

RESERVATION_SALT = "apikeys.key_forms.reservation"
OVERLAPS = {"0": "at once", "1": "after 1 hour", "24": "after 24 hours", "168": "after 7 days"}


def reserve_id(user_id: int) -> str:
    """The id that the next key of this user will have, signed.

    A form carries it. That the id is a primary key, and that keys are never removed, makes the form good for one
    key, however often and however simultaneously it is sent.
    """
    return signing.dumps([user_id, new_object_id()], salt=RESERVATION_SALT)


def reserved_id(reservation: str, user_id: int) -> str | None:
    """The id that `reserve_id` gave to this user; None when it did not."""
    try:
        holder, key_id = signing.loads(reservation, salt=RESERVATION_SALT)
    except signing.BadSignature:
        return None
    return str(key_id) if holder == user_id else None


class LinesField(forms.CharField):
    """A list of texts, one a line, whose items the model validates. Empty lines and repetitions are dropped."""

    widget = AdminTextareaWidget(attrs={"rows": 3})

    def __init__(self, *, base_field: forms.Field, **kwargs: Any) -> None:
        kwargs["help_text"] = f"One a line. {kwargs.get('help_text', '')}"
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
    """What may be changed of a key, once made."""

    allowed_endpoints = forms.MultipleChoiceField(
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text="None means all that this kind of key may call.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "allowed_endpoints" in self.fields:
            names = endpoint_names()
            # Also those that are gone: to drop the last one silently would open all the others.
            gone = [name for name in self.instance.allowed_endpoints if name not in names]
            choices = [(name, name) for name in names] + [(name, f"{name} (no longer exists)") for name in gone]
            self.fields["allowed_endpoints"].choices = choices  # type: ignore[attr-defined]


class NewKeyForm(KeyForm):
    reservation = forms.CharField(widget=forms.HiddenInput)


class StaleNewKeyForm(NewKeyForm):
    """The same, sent by somebody who has not entered their password lately."""

    def clean(self) -> dict[str, Any]:
        super().clean()
        raise fresh_password.stale()


class ConfirmationForm(forms.Form):
    """Nothing to say but yes."""


class ReasonForm(forms.Form):
    reason = forms.CharField(
        max_length=500,
        widget=AdminTextareaWidget(attrs={"rows": 3}),
        help_text="It is kept with the key. Do not write the key itself here.",
    )


class EndForm(ReasonForm):
    cut_streams = forms.BooleanField(
        required=False,
        label="Cut what is being answered",
        help_text="End the answers that this key is receiving at this moment. What was produced of them is charged.",
    )


class RotationForm(forms.Form):
    overlap = forms.ChoiceField(
        label="The old secret ends",
        choices=list(OVERLAPS.items()),
        help_text="Until then both secrets work, so that callers can change over. "
        "A still older one that was in its own overlap ends at once.",
    )
    # The newest secret when the form was opened: sent twice, the form finds another one the second time.
    replacing = forms.IntegerField(widget=forms.HiddenInput)

    def clean_overlap(self) -> timedelta:
        return timedelta(hours=int(self.cleaned_data["overlap"]))
