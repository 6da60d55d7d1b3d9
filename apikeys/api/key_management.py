"""`support/openapi/...`: signed-in staff make, list, change and delete keys as FastGPT's own console does.

Never with a key: a stolen one must not make others. What staff may do here is what they may do in the admin.
"""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import msgspec
from django.core.exceptions import ValidationError
from django.db import transaction
from rest_framework.request import Request
from rest_framework.response import Response

from apikeys.access.declarations import team_id_of
from apikeys.accounting import units
from apikeys.accounting.limits import MAXIMUM_AMOUNT
from apikeys.accounting.points_limit import add_points_limit, plan_change, points_allowed
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
# A request may set these fields of a key; everything else in a body is ignored.
COLUMNS = {"name": "name", "app": "appId"}


class GivenLimit(msgspec.Struct):
    """The limit in a body. An absent value stays as it is; a new key is then without end or limit."""

    expiredTime: Moment | msgspec.UnsetType | None = msgspec.UNSET
    maxUsagePoints: Decimal | msgspec.UnsetType | None = msgspec.UNSET

    @property
    def amount(self) -> int | None:
        # The body has points, the ledger millionths.
        points = self.maxUsagePoints
        if points is None or isinstance(points, msgspec.UnsetType):
            return None
        # An invalid number cannot be compared, and one of a million digits must not become an integer.
        is_in_range = points.is_finite() and UNLIMITED <= points <= MAXIMUM_AMOUNT
        if is_in_range and points == UNLIMITED:
            return None
        try:
            amount = units.micropoints(points) if is_in_range else UNLIMITED
        except ValueError:
            amount = UNLIMITED
        if not 0 <= amount <= MAXIMUM_AMOUNT:
            raise InvalidParameter(
                "limit.maxUsagePoints: -1 for no limit, or points with at most six decimals.",
                param="limit.maxUsagePoints",
            )
        return amount

    @property
    def end(self) -> datetime | None:
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
    """The base of the four views."""

    api_key_access = frozenset()

    def find(self, request: Request, key_id: str) -> ApiKey:
        # Foreign, absent and deleted keys look alike.
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
        body = decode(request._request.body, NEW_KEY)
        limit = body.limit or GivenLimit()
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
                    name=storable_name(body.name),
                    app=find_app(team, body.appId) if body.appId else None,
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
        return success([represent_key(api_key, used, allowed) for api_key in api_keys])

    post = get


class KeyUpdateView(KeyView):
    """`POST|PUT support/openapi/update`: another name, end or limit. What a body does not name stays."""

    endpoint = "openapi.update"
    staff_permission = "apikeys.change_apikey"

    def post(self, request: Request) -> Response:
        body = decode(request._request.body, CHANGED_KEY)
        limit = body.limit or GivenLimit()
        amount, end = limit.amount, limit.end
        api_key = self.find(request, body.id)
        if body.appId and body.appId != api_key.app_id:
            raise InvalidParameter("The app of a key never changes. Create another key.", param="appId")
        columns: dict[str, Any] = {}
        if body.name is not None:
            columns["name"] = storable_name(body.name)
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
                change = plan_change(api_key, amount)
                for permission in change.permissions:
                    check_right(request, permission)
                if change.needs_password:
                    check_password(request)
                change.apply()
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
    """Raise PasswordNeeded as the admin does before it makes or widens a key, or raises a limit."""
    if not reauthentication.is_recent(request._request):
        raise PasswordNeeded


def check_right(request: Request, permission: str) -> None:
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


def represent_key(api_key: ApiKey, used: dict[str, int] | None, allowed: dict[str, int] | None) -> dict[str, Any]:
    # Null stands for what the user may not see.
    activity = getattr(api_key, "activity", None)
    largest: float | None = None
    if allowed is not None:
        amount = allowed.get(api_key.pk)
        largest = UNLIMITED if amount is None else float(units.points(amount))
    return {
        "_id": api_key.pk,
        "name": api_key.name,
        "apiKey": f"******{api_key.last_four}",
        "appId": api_key.app_id,
        "createTime": api_key.created_at,
        "lastUsedTime": activity.last_used_at if activity else None,
        "usagePoints": None if used is None else float(units.points(used.get(api_key.pk, 0))),
        "limit": {
            "expiredTime": api_key.expires_at,
            "maxUsagePoints": largest,
        },
    }
