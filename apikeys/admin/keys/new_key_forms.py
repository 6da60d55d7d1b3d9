"""The form of a new key: its kind, its owner, when it expires, and its first limits."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib.admin import VERTICAL
from django.core import signing
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from unfold.widgets import (
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminRadioSelectWidget,
    UnfoldAdminSelectWidget,
)

from apikeys.accounting.limits import MAXIMUM_AMOUNT, Limit
from apikeys.accounting.periods import Measure, Period
from apikeys.admin.keys.forms import KeyForm
from apikeys.admin.limits import count_amount
from apikeys.keys.kinds import AccessKind
from apikeys.keys.models import RIGHTS, ApiKey
from apikeys.object_ids import new_object_id

RESERVATION_SALT = "apikeys.key_forms.reservation"
KINDS = [
    (AccessKind.APP.value, _("App key: talks to one app")),
    (AccessKind.GLOBAL.value, _("Global key: manages what the team owns")),
]
KINDS_EXPLAINED = _(
    "A global key operates the team's resources (upload knowledge-base data, search test, list apps) but cannot "
    "directly call an app's conversation. An app key carries an app's id and can. Use app keys for what belongs to "
    "an app or a chat, global keys for the rest."
)
ENDS = [
    ("30", _("In 30 days")),
    ("90", _("In 90 days")),
    ("365", _("In 365 days")),
    ("date", _("On a date")),
    ("never", _("Never")),
]
# Each of these form fields gives a new key a limit, of this measure and period.
FIRST_LIMITS = {
    "requests_per_minute": (Measure.REQUESTS, Period.MINUTE),
    "tokens_per_minute": (Measure.TOKENS, Period.MINUTE),
    "points": (Measure.MICROPOINTS, None),
}
BUDGET_PERIODS = [(period.value, period.label) for period in (Period.DAY, Period.WEEK, Period.MONTH, Period.TOTAL)]


def reserve_id(user_id: int) -> str:
    """Return a signed id for the next key of this user, which a form carries.

    Since the id is a primary key, and keys are never deleted, the form makes one key, however often and however
    simultaneously it is sent.
    """
    return signing.dumps([user_id, new_object_id()], salt=RESERVATION_SALT)


def reserved_id(reservation: str, user_id: int) -> str | None:
    """Return the id that `reserve_id` gave to this user, or None if it did not."""
    try:
        holder, key_id = signing.loads(reservation, salt=RESERVATION_SALT)
    except signing.BadSignature:
        return None
    return str(key_id) if holder == user_id else None


class NewKeyForm(KeyForm):
    kind = forms.ChoiceField(
        label=_("Kind"),
        choices=KINDS,
        initial=AccessKind.APP.value,
        widget=UnfoldAdminRadioSelectWidget(radio_style=VERTICAL),
        help_text=KINDS_EXPLAINED,
    )
    ends = forms.ChoiceField(
        label=_("Expires"),
        choices=ENDS,
        initial="90",
        widget=UnfoldAdminSelectWidget,
        help_text=_(
            "Alerts are raised 30, 7 and 1 days before. A key that never expires works until somebody "
            "revokes it, even if it has leaked unnoticed: choose that only for a good reason."
        ),
    )
    reservation = forms.CharField(label="", widget=forms.HiddenInput)

    # A script hides these fields until another field has the value that they depend on.
    shown_when = {"app": "kind=app", "can_name_app": "kind=global", "expires_at": "ends=date"}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, condition in self.shown_when.items():
            if name in self.fields:
                self.fields[name].widget.attrs["data-shown-when"] = condition

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        kind, app, ends = (cleaned.get(name) for name in ("kind", "app", "ends"))
        if kind == AccessKind.APP and app is None and "app" not in self.errors:
            self.add_error("app", ValidationError(_("Choose the app that the key talks to.")))
        if kind == AccessKind.GLOBAL and app is not None:
            self.add_error("kind", ValidationError(_("A global key has no app.")))
        if ends == "date":
            self._check_date(cleaned.get("expires_at"))
        elif ends is not None:
            cleaned["expires_at"] = timezone.now() + timedelta(days=int(ends)) if ends != "never" else None
        return cleaned

    def _check_date(self, expires_at: Any) -> None:
        if "expires_at" in self.errors:
            return
        if expires_at is None:
            self.add_error("expires_at", ValidationError(_("Enter a date.")))
        elif expires_at <= timezone.now():
            self.add_error("expires_at", ValidationError(_("It is in the past.")))

    def policy(self) -> dict[str, Any]:
        """Return the arguments of `create_key`."""
        names = {field.name for field in ApiKey._meta.fields}
        return {name: value for name, value in self.cleaned_data.items() if name in names}

    def first_limits(self, api_key: ApiKey) -> list[Limit]:
        return []


class LimitedNewKeyForm(NewKeyForm):
    """The form of users who may add limits too."""

    requests_per_minute = forms.IntegerField(
        label=_("Requests per minute"),
        required=False,
        min_value=1,
        max_value=MAXIMUM_AMOUNT,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text=_("Empty means that only the team's limits apply."),
    )
    tokens_per_minute = forms.IntegerField(
        label=_("Tokens per minute"),
        required=False,
        min_value=1,
        max_value=MAXIMUM_AMOUNT,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text=_("Prompts and answers combined."),
    )
    points = forms.DecimalField(
        label=_("Budget in points"),
        required=False,
        min_value=0,
        max_digits=22,
        decimal_places=6,
        widget=UnfoldAdminDecimalFieldWidget(attrs={"step": "any"}),
        help_text=_("A request that would exceed it is refused. Alerts are raised at 50, 80 and 100%."),
    )
    points_period = forms.ChoiceField(
        label=_("Budget period"),
        choices=BUDGET_PERIODS,
        initial=Period.MONTH.value,
        required=False,
        widget=UnfoldAdminSelectWidget,
        help_text=_("Periods begin at midnight UTC. More limits, and other time zones, are under Limits."),
    )

    def clean_points(self) -> int | None:
        """Return millionths of a point."""
        points = self.cleaned_data["points"]
        try:
            return None if points is None else count_amount("points", Measure.MICROPOINTS, points)
        except ValidationError as error:
            raise ValidationError(error.messages) from error

    def first_limits(self, api_key: ApiKey) -> list[Limit]:
        cleaned = self.cleaned_data
        return [
            Limit(
                team_id=api_key.team_id,
                key=api_key,
                measure=measure,
                period=period or cleaned["points_period"] or Period.MONTH,
                amount=cleaned[name],
            )
            for name, (measure, period) in FIRST_LIMITS.items()
            if cleaned.get(name) is not None
        ]


def like(api_key: ApiKey) -> dict[str, Any]:
    """Return the initial values of a new key's form that copies this key."""
    copied = ("app", "owner", "note", *RIGHTS)
    initial = {name: getattr(api_key, f"{name}_id" if name in ("app", "owner") else name) for name in copied}
    initial |= {
        "team": api_key.team_id,
        "name": _("Copy of %(name)s") % {"name": api_key.name[:80]},
        "kind": (AccessKind.APP if api_key.app_id else AccessKind.GLOBAL).value,
    }
    if api_key.expires_at is not None and api_key.expires_at > timezone.now():
        initial |= {"ends": "date", "expires_at": api_key.expires_at}
    for limit in api_key.limits.all():
        for name, (measure, period) in FIRST_LIMITS.items():
            if limit.measure == measure and limit.period in ([period] if period else dict(BUDGET_PERIODS)):
                initial[name] = Measure(limit.measure).to_unit(limit.amount)
                if name == "points":
                    initial["points_period"] = limit.period
    return initial
