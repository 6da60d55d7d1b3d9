"""What can be done to a key besides editing it: each is confirmed in a form, and carried out by the key itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from django import forms

from apikeys import revocations
from apikeys.key_forms import OVERLAPS, ConfirmationForm, EndForm, RotationForm
from apikeys.models import ApiKey, KeyStateError


@dataclass(frozen=True, repr=False)
class Done:
    """What came of a change: a line for the key's history, and the plaintext if one was made."""

    history: str
    plaintext: str | None = None


class KeyChange:
    """One kind of change: its name in the URL, its words on the page, its form, and what it does."""

    name: ClassVar[str]
    label: ClassVar[str]
    explanation: ClassVar[str]
    form_class: ClassVar[type[forms.Form]]
    # Whether it gives a secret away.
    needs_password: ClassVar[bool] = False

    def applies_to(self, api_key: ApiKey) -> bool:
        return api_key.revoked_at is None

    def initial(self, api_key: ApiKey) -> dict[str, Any]:
        return {}

    def carry_out(self, api_key: ApiKey, answers: dict[str, Any], by: str) -> Done:
        """Raises KeyStateError when the key's state does not allow it."""
        raise NotImplementedError

    def after(self, api_key: ApiKey, answers: dict[str, Any]) -> str:
        """What is done when the change is committed; a sentence about it, or nothing."""
        return ""


class Rotation(KeyChange):
    name = "rotate"
    label = "Rotate"
    explanation = (
        "The key gets a new secret, which is shown once. Its name, limits and usage stay, and so does its id. "
        "Callers must be given the new secret before the old one ends."
    )
    form_class = RotationForm
    needs_password = True

    def initial(self, api_key: ApiKey) -> dict[str, Any]:
        return {"replacing": api_key.newest_secret_id}

    def carry_out(self, api_key: ApiKey, answers: dict[str, Any], by: str) -> Done:
        overlap = answers["overlap"]
        plaintext = api_key.rotate(overlap, replacing=answers["replacing"])
        hours = str(int(overlap.total_seconds() // 3600))
        return Done(f"Rotated. The old secret ends {OVERLAPS[hours]}.", plaintext)


class Disabling(KeyChange):
    name = "disable"
    label = "Disable"
    explanation = "The key will be refused until it is enabled again."
    form_class = EndForm

    def applies_to(self, api_key: ApiKey) -> bool:
        return super().applies_to(api_key) and api_key.disabled_at is None

    def carry_out(self, api_key: ApiKey, answers: dict[str, Any], by: str) -> Done:
        api_key.disable()
        return Done(f"Disabled. Reason: {answers['reason']}")

    def after(self, api_key: ApiKey, answers: dict[str, Any]) -> str:
        return revocations.tell_servers(api_key, cut_streams=answers["cut_streams"]).told()


class Enabling(KeyChange):
    name = "enable"
    label = "Enable"
    explanation = "The key will be accepted again."
    form_class = ConfirmationForm

    def applies_to(self, api_key: ApiKey) -> bool:
        return super().applies_to(api_key) and api_key.disabled_at is not None

    def carry_out(self, api_key: ApiKey, answers: dict[str, Any], by: str) -> Done:
        api_key.enable()
        return Done("Enabled.")


class Revocation(KeyChange):
    name = "revoke"
    label = "Revoke"
    explanation = "The key will be refused for good. This cannot be undone; the key and its usage stay visible here."
    form_class = EndForm

    def carry_out(self, api_key: ApiKey, answers: dict[str, Any], by: str) -> Done:
        if api_key.revoked_at:
            raise KeyStateError(f"The key was revoked already, by {api_key.revoked_by}: {api_key.revoked_reason}")
        api_key.revoke(by=by, reason=answers["reason"])
        return Done(f"Revoked. Reason: {answers['reason']}")

    def after(self, api_key: ApiKey, answers: dict[str, Any]) -> str:
        return revocations.tell_servers(api_key, cut_streams=answers["cut_streams"]).told()


KEY_CHANGES: list[KeyChange] = [Rotation(), Disabling(), Enabling(), Revocation()]
