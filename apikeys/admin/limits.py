"""The admin's pages of limits: how much a key or a team may use, and what is left of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminDecimalFieldWidget

from apikeys.accounting.limits import MAXIMUM_AMOUNT, Limit
from apikeys.accounting.periods import Measure
from apikeys.admin.filters import NearlyUsedUpFilter, ScopedListFilter
from apikeys.admin.long_lists import LongList
from apikeys.admin.scope import TeamScopedAdmin
from apikeys.sign_in import reauthentication

if TYPE_CHECKING:
    from decimal import Decimal

    LimitModelForm = forms.ModelForm[Limit]
else:
    LimitModelForm = forms.ModelForm


class LimitForm(LimitModelForm):
    """Takes points with decimals, which are stored as whole millionths."""

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
            initial = {
                name: Measure(limit.measure).to_unit(value) for name, value in amounts.items() if value is not None
            }
            kwargs["initial"] = initial | (kwargs.get("initial") or {})
        super().__init__(*args, **kwargs)
        if "measure" in self.fields:
            self.fields["measure"].choices = [  # type: ignore[attr-defined]
                (measure.value, measure.unit) for measure in Measure
            ]

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        measure = cleaned.get("measure") or self.instance.measure
        if not measure:
            # It was refused already, and without it nobody knows what the amounts count.
            return cleaned
        for name in ("amount", "soft_amount"):
            if cleaned.get(name) is not None:
                cleaned[name] = count_amount(name, Measure(measure), cleaned[name])
        if self.asks_password and self.instance.pk and cleaned.get("amount", 0) > self.instance.amount:
            raise reauthentication.reauthentication_error()
        return cleaned


class StaleLimitForm(LimitForm):
    """The form of a user who has not entered their password lately: it may lower a limit, not raise one."""

    asks_password = True


def count_amount(name: str, measure: Measure, number: Decimal) -> int:
    """Return a number that people gave as the amount to keep. Raise ValidationError for the field of this name."""
    try:
        amount = measure.from_unit(number)
    except ValueError:
        complaint = _("%(measure)s must be a whole number.") % {"measure": capfirst(measure.label)}
        raise ValidationError({name: complaint}) from None
    if amount > MAXIMUM_AMOUNT:
        raise ValidationError({name: _("The maximum is %(amount)s.") % {"amount": measure.text(MAXIMUM_AMOUNT)}})
    return amount


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
        # A limit never changes what it counts; another limit is made for that.
        usage = ("used", "reserved", "left", "counted_since")
        return () if obj is None else ("team", "key", "unit", "period", "time_zone", *usage)

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
            # A list has two fields that may name the action. Whichever did, the function that runs is this one.
            _function, name, description = actions["delete_selected"]
            actions["delete_selected"] = (
                lambda page, posted, limits: reauthentication.ask(posted),
                name,
                description,
            )
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
        return Measure(limit.measure).unit

    @admin.display(description=_("used"))
    def used(self, limit: Limit) -> str:
        return limit.amount_text(limit.current_usage().used)

    @admin.display(description=_("reserved by open requests"))
    def reserved(self, limit: Limit) -> str:
        return limit.amount_text(limit.current_usage().reserved)

    @admin.display(description=_("left"))
    def left(self, limit: Limit) -> str:
        return limit.amount_text(limit.state()["left"])

    @admin.display(description=_("counted since"))
    def counted_since(self, limit: Limit) -> str:
        since = limit.current_usage().since
        return "-" if since is None else since.astimezone(ZoneInfo(limit.time_zone)).strftime("%Y-%m-%d %H:%M %Z")
