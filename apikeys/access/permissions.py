"""May they: the one permission class of the API. It reads what the view declares and decides."""

from typing import Any

from django.http import HttpRequest
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from apikeys.access.declarations import APP, GLOBAL, GLOBAL_NAMING_APP, PUBLIC, ApiCredential
from apikeys.access.policy import KeyPolicy, SiteRules
from apikeys.client_address import address_of, is_in
from apikeys.errors import (
    AddressNotAllowed,
    EndpointNotAllowed,
    InvalidParameter,
    MissingKey,
    StaffNotAllowed,
    WrongKeyKind,
)
from apikeys.keys.kinds import AccessKind

# FastGPT's own sentence, which its users search for.
APP_KEY_NEEDED = "Key is error. You need to use the app key rather than the account key."
GLOBAL_KEY_NEEDED = "An app key can only talk to its own app. This endpoint needs a global key."


class EndpointAccess(BasePermission):
    """Allows a call if the endpoint's declaration, the rule that lowers it and the key's own lists all do."""

    def has_permission(self, request: Request, view: Any) -> bool:
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
    def check_key(http_request: HttpRequest, credential: ApiCredential, view: Any) -> None:
        policy = credential.policy
        if policy.allowed_networks:
            address = address_of(http_request)
            if address is None or not is_in(address, policy.allowed_networks):
                raise AddressNotAllowed
        check_kind(policy.kinds, view.api_key_access)
        if not is_open(policy, view, credential.rules):
            raise EndpointNotAllowed("An administrator has closed this endpoint to this kind of API key.")
        if policy.allowed_endpoints and view.endpoint not in policy.allowed_endpoints:
            raise EndpointNotAllowed(f"This API key may not call {view.endpoint}: it is not in the key's own list.")
        if credential.named_app_id is not None and GLOBAL_NAMING_APP not in view.api_key_access:
            raise InvalidParameter(
                "Only chat endpoints take an app id behind the key. Send the key alone.", param="Authorization"
            )


def is_open(policy: KeyPolicy, view: Any, rules: SiteRules) -> bool:
    """Whether this kind of key may call it: by its declaration, and by the rule that lowered that."""
    denied = rules.denied_kinds.get(view.endpoint, frozenset())
    return policy.kind not in denied and bool(policy.kinds & (view.api_key_access - denied))


def check_kind(kinds: frozenset[AccessKind], accepted: frozenset[AccessKind]) -> None:
    """Raise the refusal that says which kind of key would have worked."""
    if kinds & accepted:
        return
    if not accepted:
        raise EndpointNotAllowed("No API key may call this endpoint.")
    if APP in kinds:
        raise WrongKeyKind(GLOBAL_KEY_NEEDED)
    if accepted <= {APP, GLOBAL_NAMING_APP} and GLOBAL in kinds:
        raise WrongKeyKind(APP_KEY_NEEDED)
    raise EndpointNotAllowed
