"""The page of endpoints: the inventory of the API with its calls, and a switch for each kind of key."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, override
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldAdminSelectWidget

from apikeys.access.declarations import PUBLIC
from apikeys.access.endpoints import routes
from apikeys.access.policy import kind_may_call
from apikeys.access.rules import EndpointRule
from apikeys.accounting.ledger import Refusal, UsageRecord
from apikeys.admin.scope import CheckedList, HistoryRead, SuperusersOnly, is_superuser
from apikeys.audit import history_messages
from apikeys.keys.kinds import AccessKind
from apikeys.object_ids import first_object_id
from apikeys.sign_in import reauthentication
from apikeys.teams import Team

if TYPE_CHECKING:
    RuleModelForm = forms.ModelForm[EndpointRule]
else:
    RuleModelForm = forms.ModelForm

COUNTED = timedelta(hours=24)
# So many rows of each table are counted, so that the page costs no more on the busiest site.
MAXIMUM_COUNTED = 50_000
SEE_ENDPOINTS = "apikeys.view_apikey"


def declared_kinds() -> dict[str, frozenset[AccessKind]]:
    """Return the kinds of key that each endpoint takes; endpoints that take none are left out."""
    return {route.view.endpoint: route.view.api_key_access for route in routes() if route.view.api_key_access}


@dataclass(frozen=True, slots=True)
class Switch:
    """One kind of key at one endpoint. Only a kind that the endpoint declares can be closed and opened by itself.

    A key that may name an app is taken as a global key where its own kind is not declared.
    """

    kind: AccessKind
    is_declared: bool
    is_taken: bool
    is_open: bool


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One row of the inventory."""

    name: str
    methods: list[str]
    paths: list[str]
    staff: str | None
    is_public: bool
    switches: list[Switch]
    calls: int
    refusals: int


def inventory(calls: dict[str, int], refusals: dict[str, int]) -> list[Endpoint]:
    """Return every endpoint that is routed, with the rules in force, in the order of the URLconf."""
    denied_kinds = EndpointRule.objects.denied_kinds()
    views: dict[str, Any] = {}
    paths: dict[str, list[str]] = {}
    for route in routes():
        views.setdefault(route.view.endpoint, route.view)
        paths.setdefault(route.view.endpoint, []).append(route.path)
    return [
        Endpoint(
            name=name,
            methods=view().methods,
            paths=paths[name],
            staff=view.staff_permission if isinstance(view.staff_permission, str) else None,
            is_public=view.staff_permission is PUBLIC,
            switches=[
                Switch(
                    kind,
                    is_declared=kind in view.api_key_access,
                    is_taken=kind_may_call(kind, view, {}),
                    is_open=kind_may_call(kind, view, denied_kinds),
                )
                for kind in AccessKind
            ],
            calls=calls.get(name, 0),
            refusals=refusals.get(name, 0),
        )
        for name, view in views.items()
    ]


def newest(model: Any, user: Any) -> QuerySet[Any]:
    # Both ways read the last 24 hours by an index: the primary key, or team and time.
    since = timezone.now() - COUNTED
    if user.is_superuser:
        rows = model.objects.filter(pk__gte=first_object_id(since)).order_by("-pk")
    else:
        teams = list(Team.objects.for_user(user).order_by().values_list("pk", flat=True))
        rows = model.objects.filter(team__in=teams, created_at__gte=since).order_by()
    counted: QuerySet[Any] = rows[:MAXIMUM_COUNTED]
    return counted


class SwitchForm(forms.Form):
    """One switch and the position it is to have, so that sending the form twice changes nothing more."""

    endpoint = forms.CharField()
    kind = forms.ChoiceField(choices=AccessKind.choices)
    is_open = forms.TypedChoiceField(choices=[("yes", ""), ("no", "")], coerce=lambda value: value == "yes")

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        if cleaned.get("kind") not in declared_kinds().get(cleaned.get("endpoint", ""), frozenset()):
            raise ValidationError(_("This endpoint never accepts keys of that kind."))
        return cleaned


class EndpointRuleForm(RuleModelForm):
    endpoint = forms.ChoiceField(
        label=capfirst(gettext_lazy("endpoint")),
        widget=UnfoldAdminSelectWidget,
        help_text=gettext_lazy("Each endpoint is followed by the kinds of key that it accepts."),
    )
    denied_kinds = forms.MultipleChoiceField(
        label=capfirst(gettext_lazy("denied kinds")),
        required=False,
        choices=AccessKind.choices,
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        help_text=gettext_lazy(
            "Kinds of key that may no longer call this endpoint. A rule can only restrict access, never grant it."
        ),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.declared = declared_kinds()
        if self.instance.pk:
            kinds = self.declared.get(self.instance.endpoint, frozenset()) | set(self.instance.denied_kinds)
            choices = [(kind, label) for kind, label in AccessKind.choices if kind in kinds]
            self.fields["denied_kinds"].choices = choices  # type: ignore[attr-defined]
        else:
            self.fields["endpoint"].choices = [  # type: ignore[attr-defined]
                (name, f"{name}: {', '.join(sorted(str(kind.label) for kind in kinds))}")
                for name, kinds in sorted(self.declared.items())
            ]

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        if "endpoint" in cleaned:
            taken = self.declared[cleaned["endpoint"]]
            denied = cleaned.get("denied_kinds", [])
            never = [str(kind.label) for kind in AccessKind if kind in denied and kind not in taken]
            if never:
                complaint = _("This endpoint never accepts: %(kinds)s.") % {"kinds": ", ".join(never)}
                raise ValidationError({"denied_kinds": complaint})
        return cleaned


@admin.register(EndpointRule)
class EndpointRuleAdmin(SuperusersOnly, HistoryRead, CheckedList):
    """A rule holds for the whole site. People meet it as a switch on the page of endpoints."""

    form = EndpointRuleForm
    list_display = ("endpoint", "denied", "changed_at")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("endpoint", "denied_kinds", *(("changed_at",) if obj else ()))

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("endpoint", "changed_at") if obj else ()

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        # To change a rule, or to delete it, may open what it closed.
        is_free = obj is None or reauthentication.is_recent(request)
        return form if is_free else reauthentication.requires_reauthentication(form)

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> Any:
        if self.has_delete_permission(request) and not reauthentication.is_recent(request):
            return reauthentication.ask(request)
        return super().delete_view(request, object_id, extra_context)

    def get_actions(self, request: HttpRequest) -> Any:
        actions = super().get_actions(request)
        if not reauthentication.is_recent(request):
            actions.pop("delete_selected", None)
        return actions

    def get_urls(self) -> list[URLPattern]:
        page = self.admin_site.admin_view(self.inventory_view)
        return [path("inventory/", page, name="apikeys_endpointrule_inventory"), *super().get_urls()]

    @admin.display(description=gettext_lazy("denied kinds"))
    def denied(self, rule: EndpointRule) -> str:
        return ", ".join(str(AccessKind(kind).label) for kind in rule.denied_kinds) or "-"

    def inventory_view(self, request: HttpRequest) -> HttpResponse:
        user: Any = request.user
        if not user.has_perm(SEE_ENDPOINTS):
            raise PermissionDenied
        if request.method == "POST":
            return self._switch(request)
        has_calls, has_refusals = user.has_perm("apikeys.view_usagerecord"), user.has_perm("apikeys.view_refusal")
        calls = Counter(newest(UsageRecord, user).values_list("endpoint", flat=True) if has_calls else ())
        kept_refusals = list(newest(Refusal, user).values_list("endpoint", "sample_weight")) if has_refusals else []
        refusals: Counter[str] = Counter()
        for endpoint, sample_weight in kept_refusals:
            refusals[endpoint] += sample_weight
        context = {
            **self.admin_site.each_context(request),
            "title": _("Endpoints"),
            "endpoints": inventory(calls, refusals),
            "kinds": list(AccessKind),
            "has_calls": has_calls,
            "has_refusals": has_refusals,
            "can_switch": is_superuser(request),
            "maximum_counted": MAXIMUM_COUNTED if max(calls.total(), len(kept_refusals)) >= MAXIMUM_COUNTED else None,
        }
        return TemplateResponse(request, "admin/apikeys/endpointrule/inventory.html", context)

    def _switch(self, request: HttpRequest) -> HttpResponse:
        if not is_superuser(request):
            raise PermissionDenied
        form = SwitchForm(request.POST)
        if form.is_valid():
            if form.cleaned_data["is_open"] and not reauthentication.is_recent(request):
                return reauthentication.ask(request)
            self._set(request, **form.cleaned_data)
        else:
            self.message_user(request, _("That switch does not exist. Reload the page."), messages.ERROR)
        return HttpResponseRedirect(reverse("admin:apikeys_endpointrule_inventory"))

    def _set(self, request: HttpRequest, endpoint: str, kind: str, is_open: bool) -> None:
        rule = EndpointRule.objects.set_open(endpoint, kind, is_open=is_open)
        with override("en"):
            done = (history_messages.OPENED if is_open else history_messages.CLOSED)(
                endpoint=endpoint, kind=AccessKind(kind).label
            )
        if rule is not None:
            self.log_change(request, rule, done)
        self.message_user(request, history_messages.read(done), messages.SUCCESS)
