"""Changes of a key besides editing it. Each is confirmed in a form; the key's own methods carry it out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.utils.translation import gettext_lazy as _
from django.utils.translation import override

from apikeys.admin.keys.forms import OVERLAPS, ConfirmationForm, EndForm, NarrowingForm, RevocationForm, RotationForm
from apikeys.audit import history_messages
from apikeys.keys.models import ApiKey, KeyStateError
from apikeys.lifecycle import revocation

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise as StrOrPromise


@dataclass(frozen=True, repr=False)
class Done:
    """The result of a change: a message of `history_messages` for the key's history, and any new plaintext."""

    history: str
    plaintext: str | None = None


class KeyChange:
    """One kind of change: its name in the URL, its texts on the page, its form and its effect."""

    name: ClassVar[str]
    label: ClassVar[StrOrPromise]
    title: ClassVar[StrOrPromise]
    explanation: ClassVar[StrOrPromise]
    icon: ClassVar[str]
    is_final: ClassVar[bool] = False
    template: ClassVar[str] = "admin/apikeys/apikey/confirm_change.html"
    form_class: ClassVar[type[forms.Form]]
    # It is true if the change reveals a secret, or lets a key in again.
    needs_password: ClassVar[bool] = False

    def applies_to(self, api_key: ApiKey) -> bool:
        return api_key.revoked_at is None

    def initial(self, api_key: ApiKey) -> dict[str, Any]:
        return {}

    def form(self, api_key: ApiKey, data: Any = None) -> forms.Form:
        return self.form_class(data, initial=self.initial(api_key))

    def widens(self, api_key: ApiKey, cleaned: dict[str, Any]) -> bool:
        """Return whether the change would let the key do more than now."""
        return False

    def apply(self, api_key: ApiKey, cleaned: dict[str, Any], by: str) -> Done:
        """Make the change. Raise KeyStateError if the key's state does not allow it."""
        raise NotImplementedError

    def after(self, api_key: ApiKey, cleaned: dict[str, Any]) -> str:
        """Act once the change is committed; return a sentence about that for the user, or nothing."""
        return ""


class Rotation(KeyChange):
    name = "rotate"
    label = _("Rotate")
    title = _("Rotate this API key?")
    icon = "autorenew"
    explanation = _(
        "The key gets a new secret, which is shown once. Its name, id, limits and usage stay the same. "
        "Give callers the new secret before the old one expires."
    )
    form_class = RotationForm
    needs_password = True

    def initial(self, api_key: ApiKey) -> dict[str, Any]:
        return {"replacing": api_key.newest_secret_id}

    def apply(self, api_key: ApiKey, cleaned: dict[str, Any], by: str) -> Done:
        overlap = cleaned["overlap"]
        plaintext = api_key.rotate(overlap, replacing=cleaned["replacing"])
        hours = str(int(overlap.total_seconds() // 3600))
        with override("en"):
            return Done(history_messages.ROTATED(when=OVERLAPS[hours]), plaintext)


class Disabling(KeyChange):
    name = "disable"
    label = _("Disable")
    title = _("Disable this API key?")
    icon = "pause_circle"
    explanation = _("The key will be refused until it is enabled again.")
    form_class = EndForm

    def applies_to(self, api_key: ApiKey) -> bool:
        return super().applies_to(api_key) and api_key.disabled_at is None

    def apply(self, api_key: ApiKey, cleaned: dict[str, Any], by: str) -> Done:
        api_key.disable()
        return Done(history_messages.DISABLED(reason=cleaned["reason"]))

    def after(self, api_key: ApiKey, cleaned: dict[str, Any]) -> str:
        return revocation.broadcast_revocation(api_key, terminate_streams=cleaned["terminate_streams"]).summary()


class Enabling(KeyChange):
    name = "enable"
    label = _("Enable")
    title = _("Enable this API key?")
    icon = "play_circle"
    explanation = _("The key will be accepted again.")
    form_class = ConfirmationForm
    needs_password = True

    def applies_to(self, api_key: ApiKey) -> bool:
        return super().applies_to(api_key) and api_key.disabled_at is not None

    def widens(self, api_key: ApiKey, cleaned: dict[str, Any]) -> bool:
        return self.applies_to(api_key)

    def apply(self, api_key: ApiKey, cleaned: dict[str, Any], by: str) -> Done:
        api_key.enable()
        return Done(history_messages.ENABLED())


class Revocation(KeyChange):
    name = "revoke"
    label = _("Revoke")
    title = _("Revoke this API key?")
    icon = "block"
    is_final = True
    explanation = _(
        "The key will be refused permanently. This cannot be undone; the key and its usage stay visible here."
    )
    form_class: ClassVar[type[forms.Form]] = RevocationForm

    def form(self, api_key: ApiKey, data: Any = None) -> forms.Form:
        return RevocationForm(data, name=api_key.name)

    def apply(self, api_key: ApiKey, cleaned: dict[str, Any], by: str) -> Done:
        if api_key.revoked_at:
            raise KeyStateError(f"The key was already revoked, by {api_key.revoked_by}: {api_key.revoked_reason}")
        api_key.revoke(by=by, reason=cleaned["reason"])
        return Done(history_messages.REVOKED(reason=cleaned["reason"]))

    def after(self, api_key: ApiKey, cleaned: dict[str, Any]) -> str:
        return revocation.broadcast_revocation(api_key, terminate_streams=cleaned["terminate_streams"]).summary()


class Narrowing(KeyChange):
    name = "narrow"
    label = _("Narrow")
    title = _("Restrict this API key to what it uses?")
    icon = "compress"
    explanation = _(
        "Below is what the key called in the last 90 days, and from where. Adjust it as needed. Anything "
        "that is not checked or listed will be refused."
    )
    form_class = NarrowingForm
    template = "admin/apikeys/apikey/confirm_narrowing.html"

    def form(self, api_key: ApiKey, data: Any = None) -> forms.Form:
        return NarrowingForm(data, api_key=api_key)

    def apply(self, api_key: ApiKey, cleaned: dict[str, Any], by: str) -> Done:
        endpoints, networks = cleaned["endpoints"], cleaned["networks"]
        api_key.narrow(endpoints=endpoints, networks=networks)
        names = ", ".join(endpoints)
        if not networks:
            return Done(history_messages.NARROWED_EVERYWHERE(endpoints=names))
        return Done(history_messages.NARROWED(endpoints=names, networks=", ".join(networks)))


KEY_CHANGES: list[KeyChange] = [Rotation(), Disabling(), Enabling(), Narrowing(), Revocation()]
