"""Reauthentication: some actions need a password entered lately, so that an unattended browser makes no keys.

The session keeps the time of that, never the password.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.auth.views import PasswordChangeView
from django.core.exceptions import ValidationError
from django.forms import BaseForm
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters

from apikeys.sign_in.forms import OwnPasswordForm, PasswordForm

RECENT_SECONDS = 15 * 60
ENTERED_AT = "password_entered_at"


def is_recent(request: HttpRequest) -> bool:
    entered_at = request.session.get(ENTERED_AT)
    return isinstance(entered_at, int) and 0 <= time.time() - entered_at < RECENT_SECONDS


def remember(request: HttpRequest, **kwargs: Any) -> None:
    # Django sends `user_logged_in` here too, with more arguments.
    request.session[ENTERED_AT] = int(time.time())


def ask(request: HttpRequest) -> HttpResponseRedirect:
    """Redirect to the page that asks for the password, which leads back to this one."""
    return HttpResponseRedirect(page(request.get_full_path()))


def page(following: str = "") -> str:
    url = reverse("confirm_password")
    return f"{url}?{urlencode({'next': following})}" if following else url


def reauthentication_error() -> ValidationError:
    # A form with this error is shown again, so nothing that was filled in is lost.
    message = format_html(
        '{} <a href="{}" target="_blank" rel="noopener" class="underline">{}</a>',
        _("You entered your password more than 15 minutes ago, so this was not done."),
        page(),
        _("Enter your password in another tab, then submit this form again."),
    )
    return ValidationError(message, code="stale_password")


def requires_reauthentication(form: type[BaseForm], *fields: str) -> Any:
    """Return the form, changed so that it is never valid: whoever sends it has to reauthenticate first.

    With `fields`, that is asked only of somebody who changed one of them.
    """

    class LateForm(form):  # type: ignore[valid-type, misc]
        def clean(self) -> dict[str, Any]:
            cleaned: dict[str, Any] = super().clean() or self.cleaned_data
            if not fields or set(fields) & set(self.changed_data):
                raise reauthentication_error()
            return cleaned

    return LateForm


@sensitive_post_parameters("password")
@never_cache
def confirm_password(request: HttpRequest) -> HttpResponse:
    following = request.GET.get("next", "")
    if not url_has_allowed_host_and_scheme(following, {request.get_host()}, request.is_secure()):
        following = ""
    form = PasswordForm(request)
    if form.is_valid():
        remember(request)
        if not following:
            messages.success(request, _("Thank you. Go back to the form and submit it again."))
        return HttpResponseRedirect(following or reverse("admin:index"))
    context = {
        **admin.site.each_context(request),
        "title": _("Enter your password"),
        "form": form,
        "minutes": RECENT_SECONDS // 60,
    }
    return TemplateResponse(request, "admin/confirm_password.html", context)


@sensitive_post_parameters()
def change_password(request: HttpRequest) -> HttpResponse:
    # `OwnPasswordForm` throttles attempts at the old password like those at the sign-in.
    page: Any = PasswordChangeView.as_view(
        form_class=partial(OwnPasswordForm, request),
        success_url=reverse("admin:password_change_done"),
        extra_context=admin.site.each_context(request),
    )
    return page(request)  # type: ignore[no-any-return]
