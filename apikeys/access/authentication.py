"""Authentication of callers: the holder of a key, or signed-in staff. `permissions` decides what they may do."""

from dataclasses import dataclass
from typing import Any, ClassVar

from django.http import HttpRequest
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request

from apikeys.access import lookup
from apikeys.access.declarations import PUBLIC, ApiCredential
from apikeys.access.policy import KeyPolicy, SiteRules
from apikeys.errors import CsrfFailed, InvalidKey, MalformedKey, MissingKey
from apikeys.hot_path.listener import listener
from apikeys.hot_path.request import AsyncRequest
from apikeys.hot_path.trace import trace_of
from apikeys.keys.crypto import Credential, parse_credential


@dataclass(frozen=True, slots=True)
class KeyOwner:
    """`request.user` of a call with a key. Not the Django user: what the owner may do never widens the key."""

    is_authenticated: ClassVar = True
    is_anonymous: ClassVar = False
    is_active: ClassVar = True
    is_staff: ClassVar = False
    is_superuser: ClassVar = False

    pk: int
    username: str

    def has_perm(self, permission: str, obj: Any = None) -> bool:
        return False


def credential_of(request: HttpRequest | AsyncRequest) -> Credential | None:
    """Return the credential that the Authorization header carries; None without a header.

    Raise MalformedKey, or InvalidKey for one word that is no key of any system this site knows.
    """
    # Two headers arrive joined by a comma, which no credential contains.
    header = request.META.get("HTTP_AUTHORIZATION")
    if header is None:
        return None
    scheme, _, rest = header.strip().partition(" ")
    word = rest.strip()
    if scheme.lower() != "bearer" or not word or " " in word or "," in word:
        raise MalformedKey
    credential = parse_credential(word)
    if credential is None:
        raise InvalidKey
    return credential


class ApiKeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer <key>` or `<key>-<appId>`. A bad header is refused; it never falls back to a session."""

    def authenticate(self, request: Request | AsyncRequest) -> tuple[KeyOwner, ApiCredential] | None:
        view = request.parser_context["view"]
        if view.staff_permission is PUBLIC:
            return None
        http_request: HttpRequest | AsyncRequest = request._request
        found = getattr(http_request, "api_credential", None)
        if found is None:
            credential = credential_of(http_request)
            if credential is None:
                return None
            generation = listener.generation
            rules = lookup.site_rules_from_thread()
            policy = lookup.find_policy_from_thread(credential.key, rules)
            found = _make_credential(http_request, credential, policy, rules, generation)
        found.policy.check_usable()
        return KeyOwner(found.policy.owner_id, found.policy.owner_name), found

    @staticmethod
    def prepare_at_once(request: AsyncRequest) -> ApiCredential | None:
        """Do what `prepare` does, without waiting. Return None where the database has to be asked."""
        credential = credential_of(request)
        if credential is None:
            raise MissingKey
        generation = listener.generation
        rules = lookup.cached_site_rules()
        policy = None if rules is None else lookup.find_cached_policy(credential.key, rules)
        if rules is None or policy is None:
            return None
        found = request.api_credential = _make_credential(request, credential, policy, rules, generation)
        return found

    @staticmethod
    async def prepare(request: AsyncRequest) -> ApiCredential:
        """Look the key up without a thread, so that `authenticate` has nothing left to wait for.

        Only views that take nothing but keys may call it. Raise an AuthenticationError, or ServiceUnavailable.
        """
        credential = credential_of(request)
        if credential is None:
            raise MissingKey
        generation = listener.generation
        rules = await lookup.site_rules()
        policy = await lookup.find_policy(credential.key, rules)
        found = request.api_credential = _make_credential(request, credential, policy, rules, generation)
        return found

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


def _make_credential(
    request: HttpRequest | AsyncRequest, credential: Credential, policy: KeyPolicy, rules: SiteRules, generation: int
) -> ApiCredential:
    trace_of(request).policy = policy
    return ApiCredential(policy, credential.app_id, rules, generation)


class StaffSessionAuthentication(SessionAuthentication):
    """Staff signed in to the admin, at endpoints that name a permission for them. CSRF is checked as usual."""

    def authenticate(self, request: Request | AsyncRequest) -> tuple[Any, None] | None:
        view = request.parser_context["view"]
        if not isinstance(view.staff_permission, str):
            return None
        user = getattr(request._request, "user", None)
        if user is None or not (user.is_active and user.is_staff):
            return None
        try:
            # Django's own request: DRF's would look for a parser of the body, to find the token in a form.
            self.enforce_csrf(request._request)  # type: ignore[arg-type]
        except PermissionDenied:
            raise CsrfFailed from None
        return user, None
