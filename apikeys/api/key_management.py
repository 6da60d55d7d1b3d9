"""`support/openapi/...`: signed-in staff make, list, change and delete keys as FastGPT's own console does.

Never with a key: a stolen one must not make others. What staff may do here is what they may do in the admin.
"""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import msgspec
from django.core.exceptions import ValidationError
from django.db import transaction
from rest_framework.request import Request
from rest_framework.response import Response

from apikeys.access.declarations import team_id_of
from apikeys.accounting.limits import MAXIMUM_AMOUNT, Counter, Limit
from apikeys.accounting.periods import Measure, Period
from apikeys.accounting.units import MICROPOINTS
from apikeys.api.bodies import decode
from apikeys.api.views import ApiView, success
from apikeys.audit import recording
from apikeys.errors import AppNotFound, InvalidParameter, KeyNotFound, PasswordNeeded, StaffNotAllowed
from apikeys.keys.models import ApiKey, validate_end
from apikeys.lifecycle import revocation
from apikeys.lifecycle.least_privilege import widens
from apikeys.object_ids import is_object_id
from apikeys.sign_in import reauthentication
from apikeys.statistics import sums
from apikeys.teams import Team

# The newest of a team. There is no more than one page in FastGPT's list.
MAXIMUM_KEYS = 1_000
UNLIMITED = -1

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
# Of a key's fields, those that a request may set; everything else in a body is ignored.
COLUMNS = {"name": "name", "app": "appId"}


class GivenLimit(msgspec.Struct):
    """Absent leaves it as it is; for a new key: without end, without limit."""

    expiredTime: Moment | msgspec.UnsetType | None = msgspec.UNSET
    maxUsagePoints: Decimal | msgspec.UnsetType | None = msgspec.UNSET

    @property
    def amount(self) -> int | None:
        """In millionths of a point; None for no limit."""
        points = self.maxUsagePoints
        if points is None or isinstance(points, msgspec.UnsetType):
            return None
        # Neither what is no number nor what is too large for any context may be calculated with.
        is_amount = points.is_finite() and UNLIMITED <= points <= MAXIMUM_AMOUNT
        if is_amount and points == UNLIMITED:
            return None
        exact = points * MICROPOINTS if is_amount else Decimal(UNLIMITED)
        if not 0 <= exact <= MAXIMUM_AMOUNT or exact != exact.to_integral_value() or exact / MICROPOINTS != points:
            raise InvalidParameter(
                "limit.maxUsagePoints: -1 for no limit, or points with at most six decimals.",
                param="limit.maxUsagePoints",
            )
        return int(exact)

    @property
    def end(self) -> datetime | None:
        """None for no end."""
        if self.expiredTime is None or isinstance(self.expiredTime, msgspec.UnsetType):
            return None
        try:
            validate_end(self.expiredTime)
        except ValidationError as error:
            raise InvalidParameter(
                f"limit.expiredTime: {' '.join(error.messages)}", param="limit.expiredTime"
            ) from None
        return self.expiredTime


class NewKey(msgspec.Struct):
    name: Name
    appId: str | None = None
    limit: GivenLimit | None = None


class ChangedKey(msgspec.Struct):
    id: str = msgspec.field(name="_id")
    name: Name | None = None
    appId: str | None = None
    limit: GivenLimit | None = None


class NamedKey(msgspec.Struct):
    id: str = msgspec.field(name="_id")


NEW_KEY = msgspec.json.Decoder(NewKey)
CHANGED_KEY = msgspec.json.Decoder(ChangedKey)
NAMED_KEY = msgspec.json.Decoder(NamedKey)


class KeyView(ApiView):
    """Base of the four."""

    api_key_access = frozenset()

    def find(self, request: Request, key_id: str) -> ApiKey:
        """A key of the team that is not revoked. Foreign, absent and deleted ones look alike."""
        rows = ApiKey.objects.for_team(team_id_of(request)).filter(revoked_at=None)
        api_key = rows.filter(pk=key_id).first() if is_object_id(key_id) else None
        if api_key is None:
            raise KeyNotFound
        found: ApiKey = api_key
        return found


class KeyCreateView(KeyView):
    """`POST support/openapi/create`: a new key of the user's own. Its plaintext is the answer, this one time."""

    endpoint = "openapi.create"
    staff_permission = "apikeys.add_apikey"

    def post(self, request: Request) -> Response:
        wanted = decode(request._request.body, NEW_KEY)
        limit = wanted.limit or GivenLimit()
        amount, end = limit.amount, limit.end
        team = Team.objects.get(pk=team_id_of(request))
        if amount is not None:
            check_right(request, "apikeys.add_limit")
        check_password(request)
        user: Any = request.user
        try:
            with transaction.atomic():
                api_key, plaintext = ApiKey.objects.create_key(
                    team=team,
                    owner=user,
                    name=storable_name(wanted.name),
                    app=find_app(team, wanted.appId) if wanted.appId else None,
                    expires_at=end,
                )
                if amount is not None:
                    add_points_limit(api_key, amount)
        except ValidationError as error:
            raise refusal_of(error) from None
        response = success(plaintext)
        response["Cache-Control"] = "no-store"
        return response


class KeyListView(KeyView):
    """`GET|POST support/openapi/list`: the team's keys that are not deleted, newest first; of one app by `appId`."""

    endpoint = "openapi.list"
    staff_permission = "apikeys.view_apikey"

    def get(self, request: Request) -> Response:
        rows = ApiKey.objects.with_state().for_team(team_id_of(request)).filter(revoked_at=None)
        app_id = request.query_params.get("appId")
        if app_id:
            rows = rows.filter(app=app_id) if is_object_id(app_id) else rows.none()
        api_keys: list[ApiKey] = list(rows.order_by("-created_at", "-pk")[:MAXIMUM_KEYS])
        key_ids = [api_key.pk for api_key in api_keys]
        used = sums.points_used(key_ids) if request.user.has_perm("apikeys.view_usagerecord") else None
        allowed = points_allowed(key_ids) if request.user.has_perm("apikeys.view_limit") else None
        return success([listed(api_key, used, allowed) for api_key in api_keys])

    post = get


class KeyUpdateView(KeyView):
    """`POST|PUT support/openapi/update`: another name, end or limit. What a body does not name stays."""

    endpoint = "openapi.update"
    staff_permission = "apikeys.change_apikey"

    def post(self, request: Request) -> Response:
        wanted = decode(request._request.body, CHANGED_KEY)
        limit = wanted.limit or GivenLimit()
        amount, end = limit.amount, limit.end
        api_key = self.find(request, wanted.id)
        if wanted.appId and wanted.appId != api_key.app_id:
            raise InvalidParameter("The app of a key never changes. Create another key.", param="appId")
        columns: dict[str, Any] = {}
        if wanted.name is not None:
            columns["name"] = storable_name(wanted.name)
        if limit.expiredTime is not msgspec.UNSET:
            columns["expires_at"] = end
        if widens(api_key, columns):
            check_password(request)
        with transaction.atomic():
            # Locked, so that nobody revokes it or changes its limits meanwhile.
            kept = ApiKey.objects.select_for_update(no_key=True).filter(pk=api_key.pk, revoked_at=None)
            if kept.first() is None:
                raise KeyNotFound
            if limit.maxUsagePoints is not msgspec.UNSET:
                change_points_limit(request, api_key, amount)
            if columns:
                recording.update(ApiKey.objects.filter(pk=api_key.pk), **columns)
        return success(None)

    put = post


class KeyDeleteView(KeyView):
    """`DELETE|POST support/openapi/delete`: the key is revoked, and no longer listed here. It stays in the admin."""

    endpoint = "openapi.delete"
    staff_permission = "apikeys.change_apikey"

    def delete(self, request: Request) -> Response:
        return self._delete(request, request.query_params.get("id") or request.query_params.get("_id") or "")

    def post(self, request: Request) -> Response:
        return self._delete(request, decode(request._request.body, NAMED_KEY).id)

    def _delete(self, request: Request, key_id: str) -> Response:
        api_key = self.find(request, key_id)
        user: Any = request.user
        api_key.revoke(by=user.get_username(), reason="Deleted over the API.")
        acknowledgements = revocation.broadcast_revocation(api_key, terminate_streams=False)
        return success({"acknowledgedBy": acknowledgements.acknowledged, "notAcknowledgedBy": acknowledgements.missing})


def check_password(request: Request) -> None:
    """As the admin does before it makes or widens a key, or raises a limit."""
    if not reauthentication.is_recent(request._request):
        raise PasswordNeeded


def check_right(request: Request, permission: str) -> None:
    """Of what a call does besides what its endpoint is for."""
    if not request.user.has_perm(permission):
        raise StaffNotAllowed(
            f"Your account does not have the permission {permission}, which limits in points require."
        )


def find_app(team: Team, app_id: str) -> Any:
    # The team's own relation: this package imports nothing of `chat`.
    apps: Any = team.apps
    app = apps.filter(pk=app_id, archived_at=None).first() if is_object_id(app_id) else None
    if app is None:
        raise AppNotFound
    return app


def storable_name(name: str) -> str:
    name = name.strip()
    if not name or not name.isprintable():
        raise InvalidParameter("name: give a name without control characters.", param="name")
    return name


def refusal_of(error: ValidationError) -> InvalidParameter:
    field, messages = next(iter(error.message_dict.items()))
    param = COLUMNS.get(field, field)
    return InvalidParameter(f"{param}: {' '.join(messages)}", param=param)


# FastGPT knows one limit of a key besides its end: points in all.


def points_limits(key_ids: Iterable[str]) -> Any:
    return Limit.objects.filter(key__in=key_ids, measure=Measure.MICROPOINTS, period=Period.TOTAL)


def add_points_limit(api_key: ApiKey, amount: int) -> None:
    limit = Limit(team_id=api_key.team_id, key=api_key, measure=Measure.MICROPOINTS, period=Period.TOTAL, amount=amount)
    limit.save(force_insert=True)


def points_allowed(key_ids: list[str]) -> dict[str, int]:
    """Of each key that has a limit, in millionths. Of several the lowest counts."""
    allowed: dict[str, int] = {}
    for limit in points_limits(key_ids).order_by("-amount"):
        allowed[limit.key_id] = limit.amount
    return allowed


def change_points_limit(request: Request, api_key: ApiKey, amount: int | None) -> None:
    """None takes it away. The rights are those of the admin's pages, and lowering needs no password, like there."""
    first, *others = points_limits([api_key.pk]).order_by("amount", "pk") or [None]
    if others:
        # In the order in which requests lock them.
        list(Counter.objects.select_for_update().filter(limit__in=[first, *others]).order_by("pk"))
    if amount == (first and first.amount):
        return
    if amount is None:
        check_right(request, "apikeys.delete_limit")
        check_password(request)
        for limit in (first, *others):
            limit.delete()
        return
    if first is None:
        check_right(request, "apikeys.add_limit")
        add_points_limit(api_key, amount)
        return
    check_right(request, "apikeys.change_limit")
    if amount > first.amount:
        check_password(request)
    if others:
        check_right(request, "apikeys.delete_limit")
        for other in others:
            other.delete()
    first.amount = amount
    if first.soft_amount is not None and first.soft_amount > amount:
        # It would never be reached.
        first.soft_amount = None
    first.save(update_fields=["amount", "soft_amount"])


def listed(api_key: ApiKey, used: dict[str, int] | None, allowed: dict[str, int] | None) -> dict[str, Any]:
    """As FastGPT lists it. None for what the user may not see, which is null then."""
    activity = getattr(api_key, "activity", None)
    maximum = None if allowed is None else allowed.get(api_key.pk)
    return {
        "_id": api_key.pk,
        "name": api_key.name,
        "apiKey": f"******{api_key.last_four}",
        "appId": api_key.app_id,
        "createTime": api_key.created_at,
        "lastUsedTime": activity.last_used_at if activity else None,
        "usagePoints": None if used is None else used.get(api_key.pk, 0) / MICROPOINTS,
        "limit": {
            "expiredTime": api_key.expires_at,
            "maxUsagePoints": maximum / MICROPOINTS if maximum is not None else None if allowed is None else UNLIMITED,
        },
    }
