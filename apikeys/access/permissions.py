"""The one permission class of the API: it decides by the declaration of the view."""

from collections.abc import Collection, Mapping
from typing import Any

from django.http import HttpRequest
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from apikeys.access.declarations import APP, GLOBAL, GLOBAL_NAMING_APP, PUBLIC, ApiCredential
from apikeys.access.policy import KeyPolicy, kind_may_call, may_call
from apikeys.client_address import address_of, is_in
from apikeys.errors import (
    AccessError,
    AddressNotAllowed,
    EndpointNotAllowed,
    InvalidParameter,
    MissingKey,
    StaffNotAllowed,
    WrongKeyKind,
)
from apikeys.hot_path.request import AsyncRequest
from apikeys.keys.kinds import AccessKind

# FastGPT's own sentence, which its users search for.
# The first two sentences are FastGPT's.
APP_KEY_NEEDED = (
    "Key is error. You need to use the app key rather than the account key. "
    "An administrator can also let this key name the app that it talks to."
)
GLOBAL_KEY_NEEDED = "An app key can only talk to its own app. This endpoint needs a global key."


class EndpointAccess(BasePermission):
    """Allows a call if the endpoint's declaration, the rule that lowers it and the key's own lists all do."""

    def has_permission(self, request: Request | AsyncRequest, view: Any) -> bool:
        if view.staff_permission is PUBLIC:
            return True
        if isinstance(request.auth, ApiCredential):
            self.check_key(request._request, request.auth, view)
        elif not request.user.is_authenticated:
            raise MissingKey
        elif not request.user.has_perm(view.staff_permission):
            raise StaffNotAllowed
        return True

    @staticmethod
    def check_key(request: HttpRequest | AsyncRequest, credential: ApiCredential, view: Any) -> None:
        policy = credential.policy
        if policy.allowed_networks:
            address = address_of(request)
            if address is None or not is_in(address, policy.allowed_networks):
                raise AddressNotAllowed
        if not may_call(policy, view, credential.rules.denied_kinds):
            raise refusal_of(policy, view, credential.rules.denied_kinds)
        if credential.named_app_id is not None and GLOBAL_NAMING_APP not in view.api_key_access:
            raise InvalidParameter(
                "Only chat endpoints take an app id behind the key. Send the key alone.", param="Authorization"
            )


def refusal_of(policy: KeyPolicy, view: Any, denied_kinds: Mapping[str, Collection[str]]) -> AccessError:
    if not policy.kinds & view.api_key_access:
        return wrong_kind(policy.kinds, view.api_key_access)
    if not kind_may_call(policy.kind, view, denied_kinds):
        return EndpointNotAllowed("An administrator has closed this endpoint to this kind of API key.")
    return EndpointNotAllowed(f"This API key may not call {view.endpoint}: it is not in the key's own list.")


def wrong_kind(kinds: frozenset[AccessKind], accepted: frozenset[AccessKind]) -> AccessError:
    if not accepted:
        return EndpointNotAllowed("No API key may call this endpoint.")
    if APP in kinds:
        return WrongKeyKind(GLOBAL_KEY_NEEDED)
    if accepted <= {APP, GLOBAL_NAMING_APP} and GLOBAL in kinds:
        return WrongKeyKind(APP_KEY_NEEDED)
    return EndpointNotAllowed()
