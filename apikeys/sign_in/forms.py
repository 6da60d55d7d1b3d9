"""The forms in which staff enter a password. `throttle` limits how often one may be tried."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib.auth.forms import AuthenticationForm, PasswordChangeForm
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext
from unfold.forms import AdminOwnPasswordChangeForm
from unfold.forms import AuthenticationForm as UnfoldAuthenticationForm
from unfold.widgets import UnfoldAdminPasswordWidget

from apikeys.client_address import address_of
from apikeys.sign_in.throttle import Attempt

if TYPE_CHECKING:
    AnyAuthenticationForm = AuthenticationForm
    AnyPasswordChangeForm = PasswordChangeForm
else:
    AnyAuthenticationForm = UnfoldAuthenticationForm
    AnyPasswordChangeForm = AdminOwnPasswordChangeForm


class SignInForm(AnyAuthenticationForm):
    def clean(self) -> dict[str, Any]:
        name = self.cleaned_data.get("username")
        if name is None or self.request is None or "password" not in self.cleaned_data:
            return self.cleaned_data
        attempt = count_attempt(name, self.request)
        cleaned = super().clean()
        attempt.succeed()
        return cleaned


def count_attempt(name: str, request: HttpRequest) -> Attempt:
    """Count one more attempt. Raise ValidationError after too many: then no password is checked."""
    attempt = Attempt(name, address_of(request))
    seconds = attempt.count()
    if seconds:
        message = ngettext(
            "Too many attempts to sign in. Wait %(seconds)d second, then try again.",
            "Too many attempts to sign in. Wait %(seconds)d seconds, then try again.",
            seconds,
        )
        raise ValidationError(message, code="throttled", params={"seconds": seconds})
    return attempt


class PasswordForm(forms.Form):
    """Reauthenticates the signed-in user by their password."""

    password = forms.CharField(
        label=_("Password"),
        strip=False,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "current-password", "autofocus": True}),
    )

    def __init__(self, request: HttpRequest) -> None:
        super().__init__(request.POST if request.method == "POST" else None)
        self.request = request

    def clean_password(self) -> str:
        user: Any = self.request.user
        password: str = self.cleaned_data["password"]
        attempt = count_attempt(user.get_username(), self.request)
        if not user.check_password(password):
            raise ValidationError(_("This is not your password."), code="wrong")
        attempt.succeed()
        return password


class OwnPasswordForm(AnyPasswordChangeForm):
    def __init__(self, request: HttpRequest, user: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(user, *args, **kwargs)
        self.request = request

    def clean_old_password(self) -> str:
        attempt = count_attempt(self.user.get_username(), self.request)
        password: str = super().clean_old_password()
        attempt.succeed()
        return password
