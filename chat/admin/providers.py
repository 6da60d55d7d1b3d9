"""The admin of providers and their prices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.http import HttpRequest
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _
from unfold.admin import TabularInline as UnfoldTabularInline
from unfold.widgets import (
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminPasswordWidget,
    UnfoldBooleanSwitchWidget,
)

from apikeys.accounting import units
from apikeys.admin.filters import ScopedListFilter
from apikeys.admin.scope import (
    TeamScopedAdmin,
)
from apikeys.audit import recording
from chat.models import App, Price, Provider

if TYPE_CHECKING:
    AppModelForm = forms.ModelForm[App]
    ProviderModelForm = forms.ModelForm[Provider]
    PriceModelForm = forms.ModelForm[Price]
    PriceTabularInline = admin.TabularInline[Price, Provider]
else:
    PriceModelForm = forms.ModelForm
    PriceTabularInline = UnfoldTabularInline
    AppModelForm = ProviderModelForm = forms.ModelForm


class ProviderForm(ProviderModelForm):
    secret = forms.CharField(
        label=_("Secret"),
        required=False,
        max_length=2000,
        # It travels in an HTTP header.
        validators=[RegexValidator(r"\A[\x21-\x7e]*\Z", _("Only printable ASCII characters without spaces."))],
        widget=UnfoldAdminPasswordWidget(render_value=False, attrs={"autocomplete": "new-password"}),
        help_text=_(
            "The provider's own key. It is stored encrypted and never shown again. Leave it empty to keep "
            "the stored one. Changing the base URL clears it, unless a new one is entered here."
        ),
    )
    clear_secret = forms.BooleanField(
        label=_("Clear the secret"),
        required=False,
        widget=UnfoldBooleanSwitchWidget,
        help_text=_("Delete the stored secret."),
    )

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        if cleaned.get("secret") and cleaned.get("clear_secret"):
            raise ValidationError({"clear_secret": _("Enter a new secret or clear the old one, not both.")})
        return cleaned

    def validate_unique(self) -> None:
        # A provider that exists has its team, but not in the form: Django would leave out what is unique in the team.
        super().validate_unique()
        if "team" not in self.fields:
            try:
                self.instance.validate_constraints()
            except ValidationError as error:
                self.add_error(None, error)


class PointsField(forms.DecimalField):
    """Points with six decimals, kept as whole millionths."""

    def __init__(self, **kwargs: Any) -> None:
        fixed = {"min_value": 0, "max_digits": 12, "decimal_places": 6, "widget": UnfoldAdminDecimalFieldWidget}
        super().__init__(**{**kwargs, **fixed})

    def prepare_value(self, value: Any) -> Any:
        return units.points(value) if isinstance(value, int) else value

    def has_changed(self, initial: Any, data: Any) -> bool:
        return super().has_changed(self.prepare_value(initial), data)

    def clean(self, value: Any) -> Any:
        points = super().clean(value)
        return None if points is None else units.micropoints(points)


class PriceForm(PriceModelForm):
    prompt_micropoints = PointsField(label=_("points per 1,000 prompt tokens"), initial=0)
    completion_micropoints = PointsField(label=_("points per 1,000 completion tokens"), initial=0)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Unfold's tables of inlines have headings, and no labels.
        for field in self.fields.values():
            field.widget.attrs["aria-label"] = capfirst(field.label)


class PriceInline(PriceTabularInline):
    model = Price
    form = PriceForm
    extra = 1
    fields = ("model", "prompt_micropoints", "completion_micropoints")

    # A price is part of its provider.

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("chat.view_provider") or request.user.has_perm("chat.change_provider")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("chat.change_provider") or request.user.has_perm("chat.add_provider")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("chat.change_provider")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("chat.change_provider")


@admin.register(Provider)
class ProviderAdmin(TeamScopedAdmin):
    form = ProviderForm
    list_display = ("name", "team", "base_url", "has_secret")
    list_filter = (("team", ScopedListFilter),)
    list_select_related = ("team",)
    search_fields = ("name", "=id", "base_url")
    inlines = [PriceInline]

    def get_fieldsets(self, request: HttpRequest, obj: Provider | None = None) -> Any:
        identity = ["team", "name", "base_url"]
        secret = ["secret"]
        if obj is not None:
            identity = ["id", *identity]
            secret = ["has_secret"]
            secret += ["secret", "clear_secret"] if self.has_change_permission(request, obj) else []
        limits = ("connect_seconds", "first_byte_seconds", "between_chunks_seconds", "total_seconds")
        return [(None, {"fields": identity}), (_("Secret"), {"fields": secret}), (_("Time limits"), {"fields": limits})]

    def get_readonly_fields(self, request: HttpRequest, obj: Provider | None = None) -> tuple[str, ...]:
        return ("id", "team", "has_secret") if obj else ()

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return not lookup.startswith("encrypted_secret") and super().lookup_allowed(lookup, value, request)  # type: ignore[arg-type]

    def save_model(self, request: HttpRequest, obj: Provider, form: Any, change: bool) -> None:
        cleaned = form.cleaned_data
        # Only edited columns are written, so that a secret stored in the meantime is not written over.
        edited = [name for name in form.changed_data if name not in ("secret", "clear_secret")]
        if cleaned["secret"] or cleaned.get("clear_secret"):
            obj.set_secret(cleaned["secret"])
            edited.append("encrypted_secret")
        had_secret = change and Provider.objects.filter(pk=obj.pk).exclude(encrypted_secret=None).exists()
        if not change:
            obj.save(force_insert=True)
        else:
            obj.save(update_fields=edited)
            # The database clears the secret of another URL.
            obj.refresh_from_db(fields=["encrypted_secret"])
        if "encrypted_secret" in edited or had_secret != obj.has_secret:
            recording.record(
                obj, {"secret": (recording.MASK if had_secret else "", recording.MASK if obj.has_secret else "")}
            )
        if had_secret and not obj.has_secret and "base_url" in edited:
            self.message_user(request, _("The base URL changed, so the secret was cleared."), messages.WARNING)

    @admin.display(boolean=True, description=_("has a secret"))
    def has_secret(self, provider: Provider) -> bool:
        return provider.has_secret
