"""The admin's pages of limits: how much a key or a team may use, and what is left of it."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.text import capfirst
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminDecimalFieldWidget

from apikeys.accounting.limits import MAXIMUM_AMOUNT, Limit
from apikeys.accounting.periods import Measure
from apikeys.accounting.units import MICROPOINTS
from apikeys.admin.filters import NearlyUsedUpFilter, ScopedListFilter
from apikeys.admin.long_lists import LongList
from apikeys.admin.scope import TeamScopedAdmin
from apikeys.sign_in import reauthentication

if TYPE_CHECKING:
    LimitModelForm = forms.ModelForm[Limit]
else:
    LimitModelForm = forms.ModelForm


class LimitForm(LimitModelForm):
    """Points are given as people count them, with decimals; inside they are whole millionths."""

    asks_password = False

    amount = forms.DecimalField(
        label=capfirst(_("amount")),
        min_value=0,
        max_digits=22,
        decimal_places=6,
        widget=UnfoldAdminDecimalFieldWidget,
        help_text=_(
            "A request that would exceed it is refused. 0 refuses every request. Points may have up to six decimals."
        ),
    )
    soft_amount = forms.DecimalField(
        label=capfirst(_("soft amount")),
        required=False,
        min_value=0,
        max_digits=22,
        decimal_places=6,
        widget=UnfoldAdminDecimalFieldWidget,
        help_text=_(
            "For budgets only: reaching it raises an alert but refuses nothing. Alerts at 50, 80 and 100 "
            "percent of the amount are raised in any case."
        ),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        limit = kwargs.get("instance")
        if limit is not None:
            amounts = {"amount": limit.amount, "soft_amount": limit.soft_amount}
            told = {name: shown(limit.measure, value) for name, value in amounts.items() if value is not None}
            kwargs["initial"] = told | (kwargs.get("initial") or {})
        super().__init__(*args, **kwargs)
        if "measure" in self.fields:
            self.fields["measure"].choices = [  # type: ignore[attr-defined]
                (value, gettext("points") if value == Measure.MICROPOINTS else label)
                for value, label in Measure.choices
            ]

    def clean(self) -> dict[str, Any]:
        answers: dict[str, Any] = super().clean() or {}
        measure = answers.get("measure") or self.instance.measure
        for name in ("amount", "soft_amount"):
            if answers.get(name) is not None:
                answers[name] = exact_amount(name, measure, answers[name])
        if self.asks_password and self.instance.pk and answers.get("amount", 0) > self.instance.amount:
            raise reauthentication.reauthentication_error()
        return answers


class StaleLimitForm(LimitForm):
    """The same, sent by somebody who has not entered their password lately: it may lower a limit, not raise one."""

    asks_password = True


def exact_amount(name: str, measure: str, amount: Decimal) -> int:
    """An amount as it is kept. Raises ValidationError for the field of this name."""
    exact = amount * MICROPOINTS if measure == Measure.MICROPOINTS else amount
    if exact != exact.to_integral_value():
        raise ValidationError(
            {name: _("%(measure)s must be a whole number.") % {"measure": capfirst(Measure(measure).label)}}
        )
    if exact > MAXIMUM_AMOUNT:
        raise ValidationError(
            {name: _("The maximum is %(amount)s.") % {"amount": f"{shown(measure, MAXIMUM_AMOUNT):,}"}}
        )
    return int(exact)


def shown(measure: str, amount: int) -> Decimal | int:
    """An amount as people see it: points, not millionths of them."""
    return Decimal(amount) / MICROPOINTS if measure == Measure.MICROPOINTS else amount


@admin.register(Limit)
class LimitAdmin(LongList, TeamScopedAdmin):
    form = LimitForm
    list_display = ("name", "team", "key", "used", "reserved", "left")
    list_filter = (("team", ScopedListFilter), "measure", "period", NearlyUsedUpFilter)
    list_select_related = ("team", "key", "counter")
    search_fields = ("team__name", "key__name", "=key__id")

    def get_fields(self, request: HttpRequest, obj: Limit | None = None) -> Any:
        if obj is None:
            return ("team", "key", "measure", "period", "amount", "soft_amount", "time_zone")
        identity = ("team", "key", "unit", "period", "amount", "soft_amount", "time_zone")
        return (*identity, "used", "reserved", "left", "counted_since")

    def get_readonly_fields(self, request: HttpRequest, obj: Limit | None = None) -> tuple[str, ...]:
        # What a limit counts stays; for something else there is another limit.
        told = ("used", "reserved", "left", "counted_since")
        return () if obj is None else ("team", "key", "unit", "period", "time_zone", *told)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = LimitForm if reauthentication.is_recent(request) else StaleLimitForm
        return super().get_form(request, obj, change, **{"form": form, **kwargs})

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> Any:
        if self.has_delete_permission(request) and not reauthentication.is_recent(request):
            return reauthentication.ask(request)
        return super().delete_view(request, object_id, extra_context)

    def get_actions(self, request: HttpRequest) -> Any:
        actions: dict[str, Any] = super().get_actions(request)
        if "delete_selected" in actions and not reauthentication.is_recent(request):
            # Whichever of a form's fields named the action: what runs is taken from here.
            _function, name, description = actions["delete_selected"]
            actions["delete_selected"] = (lambda page, asked, limits: reauthentication.ask(asked), name, description)
        return actions

    def get_field_queryset(self, db: str | None, db_field: Any, request: HttpRequest) -> QuerySet[Any]:
        rows = super().get_field_queryset(db, db_field, request)
        return rows.filter(revoked_at=None) if db_field.name == "key" else rows

    def save_model(self, request: HttpRequest, obj: Limit, form: Any, change: bool) -> None:
        if change:
            obj.save(update_fields=form.changed_data)
        else:
            obj.save(force_insert=True)

    @admin.display(description=_("limit"))
    def name(self, limit: Limit) -> str:
        return str(limit)

    @admin.display(description=_("measure"))
    def unit(self, limit: Limit) -> str:
        return gettext("points") if limit.measure == Measure.MICROPOINTS else limit.get_measure_display()

    @admin.display(description=_("used"))
    def used(self, limit: Limit) -> str:
        return f"{shown(limit.measure, limit.current_usage().used):,}"

    @admin.display(description=_("reserved by open requests"))
    def reserved(self, limit: Limit) -> str:
        return f"{shown(limit.measure, limit.current_usage().reserved):,}"

    @admin.display(description=_("left"))
    def left(self, limit: Limit) -> str:
        return f"{shown(limit.measure, limit.state()['left']):,}"

    @admin.display(description=_("counted since"))
    def counted_since(self, limit: Limit) -> str:
        since = limit.current_usage().since
        return "-" if since is None else since.astimezone(ZoneInfo(limit.time_zone)).strftime("%Y-%m-%d %H:%M %Z")
