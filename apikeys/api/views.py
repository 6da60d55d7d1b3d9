"""What every API view is: it declares its policy, and says yes or no in the contract's shape."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, ClassVar, NoReturn

import msgspec
from django.conf import settings
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.db import connection
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apikeys.access.authentication import ApiKeyAuthentication
from apikeys.access.declarations import APP, GLOBAL, PUBLIC, ApiCredential, Public, team_id_of
from apikeys.access.lookup import KeyPolicy
from apikeys.access.permissions import is_open
from apikeys.accounting.admission import Asked, limit_headers, reserve_from_thread
from apikeys.accounting.limits import MICROPOINTS, Limit, Measure, Period
from apikeys.accounting.recording import Usage, usage_gate
from apikeys.client_address import address_of
from apikeys.errors import ApiError, HttpsRequired, MethodNotAllowed, PathNotFound
from apikeys.hot_path.snapshots import listener
from apikeys.hot_path.trace import trace_of
from apikeys.keys.models import AccessKind, ApiKey

# Of one key for one request, when its policy or another changes all the while.
LOOKUPS = 5


class AlwaysJson(BaseContentNegotiation):
    """JSON whatever Accept says: clients send text/event-stream or */* and mean this."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser | None:
        return next(iter(parsers), None)

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        renderer = next(iter(renderers))
        return renderer, renderer.media_type or ""


class ApiView(APIView):
    """Base of the synchronous endpoints. A subclass declares who may call it; the route check insists."""

    endpoint: ClassVar[str]
    api_key_access: ClassVar[frozenset[AccessKind]]
    staff_permission: ClassVar[str | Public | None]

    content_negotiation_class = AlwaysJson
    # False where what a request asks for is known only from its body.
    asks_limits_first: ClassVar[bool] = True
    # True where a body is a form with a file: its bounds are those of files.
    takes_file: ClassVar[bool] = False

    @classmethod
    def check_caller(cls, request: HttpRequest) -> str:
        """The team for which who asks may call this, which the entry point wants to know before it takes a file.

        Raises what a call would be refused with. The limits are asked by the call itself.
        """
        if settings.SECURE_SSL_REDIRECT and not request.is_secure():
            raise HttpsRequired
        trace_of(request).endpoint = cls.endpoint
        view = cls()
        try:
            # Nothing of the middleware but what tells staff by their session.
            SessionMiddleware(HttpResponse).process_request(request)
            AuthenticationMiddleware(HttpResponse).process_request(request)
            view.request = view.initialize_request(request)
            view.perform_authentication(view.request)
            view.check_permissions(view.request)
            return team_id_of(view.request)
        finally:
            # It is outside of what Django counts as a request, and would keep it.
            connection.close()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        trace = trace_of(request._request)
        trace.endpoint = self.endpoint
        # Before `super` asks for permission, so that the log names whoever is refused.
        auth = request.auth
        if not isinstance(auth, ApiCredential) and request.user.is_authenticated:
            trace.user_id = request.user.pk
        super().initial(request, *args, **kwargs)
        if isinstance(auth, ApiCredential) and auth.policy.has_limits and self.asks_limits_first:
            self._reserve(request._request, auth)

    def http_method_not_allowed(self, request: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise MethodNotAllowed(f"This endpoint answers {', '.join(self.methods)}, not {request.method}.")

    @property
    def methods(self) -> list[str]:
        return [method for method in self.allowed_methods if method != "OPTIONS"]

    def finalize_response(self, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        final = super().finalize_response(request, response, *args, **kwargs)
        usage: Usage | None = getattr(self, "usage", None)
        # What was admitted by limits has its room already.
        has_room = usage is not None
        auth = getattr(request, "auth", None) if response.status_code < 400 else None
        if usage is None and isinstance(auth, ApiCredential):
            usage = self._usage(request._request, auth)
        if usage is not None:
            trace = trace_of(request._request)
            ended = {"status": response.status_code, "duration_ms": trace.elapsed_ms}
            trace.usage = msgspec.structs.replace(usage, **ended)
            try:
                usage_gate.submit_from_thread(trace.usage, reserved=has_room)
            except ApiError as error:
                # What is not recorded is not answered.
                final = super().finalize_response(request, self.handle_exception(error), *args, **kwargs)
        if response.status_code == 405:
            final["Allow"] = ", ".join(self.allowed_methods)
        return final

    def _reserve(self, request: HttpRequest, credential: ApiCredential) -> None:
        """Ask the limits; what they let in is recorded, whatever becomes of it."""
        usage = self._usage(request, credential)
        policy = credential.policy
        asked = Asked(id=usage.id, team_id=policy.team_id, key_id=policy.key_id, endpoint=self.endpoint)
        trace = trace_of(request)
        verdict = reserve_from_thread(asked, lambda: usage)
        trace.asked, trace.verdict = asked, verdict
        trace.headers += limit_headers(verdict)
        verdict.check(policy)
        self.usage = usage

    def _usage(self, request: HttpRequest, credential: ApiCredential) -> Usage:
        trace, address = trace_of(request), address_of(request)
        return Usage(
            id=trace.request_id,
            team_id=credential.policy.team_id,
            key_id=credential.policy.key_id,
            endpoint=self.endpoint,
            status=503,
            duration_ms=trace.elapsed_ms,
            client_address=None if address is None else str(address),
        )


class AsyncApiView(ApiView):
    """Base of the endpoints on the hot path: the same decisions by the same objects, and no thread touched.

    A subclass's handlers are coroutines. It asks the limits and records its usage itself.
    """

    asks_limits_first = False

    async def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:  # type: ignore[override]
        self.args, self.kwargs, self.headers = args, kwargs, {}
        drf_request = self.initialize_request(request, *args, **kwargs)
        self.request = drf_request
        response: HttpResponseBase
        try:
            await self.prepare(request)
            self.initial(drf_request, *args, **kwargs)
            response = await self.handler_of(request)(drf_request, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - the exception handler answers every one of them
            response = self.handle_exception(error)
            if response.status_code == 405:
                response["Allow"] = ", ".join(self.allowed_methods)
        return response

    @classmethod
    async def prepare(cls, request: HttpRequest) -> None:
        """Look the key up, unless what is known of it still holds. The entry point asks before it reads a body.

        Bodies take their time, so it is asked once more when one has come: a key may have been revoked meanwhile.

        Raises what `ApiKeyAuthentication` raises for a header that is missing, malformed or of no key.
        """
        known: ApiCredential | None = getattr(request, "api_credential", None)
        trace_of(request).endpoint = cls.endpoint
        # Nothing is told of changes while the listener is silent, and a change may come while it is looked up.
        is_stale = known is None or not listener.is_alive
        for _ in range(LOOKUPS):
            if not is_stale and known is not None and known.generation == listener.generation:
                return
            known = await ApiKeyAuthentication.prepare(request)
            is_stale = False

    def handler_of(self, request: HttpRequest) -> Callable[..., Awaitable[HttpResponseBase]]:
        name = (request.method or "").lower()
        is_known = name in self.http_method_names
        handler: Callable[..., Awaitable[HttpResponseBase]] = getattr(
            self, name if is_known else "http_method_not_allowed", self.http_method_not_allowed
        )
        return handler


def success(data: Any) -> Response:
    """FastGPT's envelope of an answer that went well."""
    return Response({"code": 200, "statusText": "", "message": "", "data": data})


class KeySelfView(ApiView):
    """`GET v1/key`: what a key is, what it may call and when it ends, told to its holder."""

    endpoint = "key.self"
    api_key_access = frozenset({APP, GLOBAL})
    staff_permission = None

    def get(self, request: Request) -> Response:
        from apikeys.access.endpoints import routes

        credential: ApiCredential = request.auth  # type: ignore[assignment]
        policy = credential.policy
        api_key = ApiKey.objects.for_team(policy.team_id).select_related("team").get(pk=policy.key_id)
        of_team = Limit.objects.for_team(policy.team_id)
        limits = of_team.filter(Q(key=None) | Q(key=policy.key_id)).select_related("counter")
        callable_endpoints = {
            route.view.endpoint
            for route in routes()
            if is_open(policy, route.view, credential.rules)
            and (not policy.allowed_endpoints or route.view.endpoint in policy.allowed_endpoints)
        }
        return success(
            {
                "id": policy.key_id,
                "name": policy.name,
                "lastFour": policy.last_four,
                "kind": policy.kind.value,
                "teamId": policy.team_id,
                "team": api_key.team.name,
                "appId": policy.app_id,
                "canNameApp": policy.can_name_app,
                "owner": policy.owner_name,
                "createdAt": api_key.created_at,
                "expiresAt": policy.expires_at,
                "secretExpiresAt": policy.secret_expires_at,
                "allowedNetworks": [str(network) for network in policy.allowed_networks],
                "allowedModels": sorted(policy.allowed_models),
                "allowedEndpoints": sorted(policy.allowed_endpoints),
                "endpoints": sorted(callable_endpoints),
                "limits": [limit_report(limit) for limit in limits],
                "limit": fastgpt_limit(policy, limits),
            }
        )


def fastgpt_limit(policy: KeyPolicy, limits: Iterable[Limit]) -> dict[str, Any]:
    """The two limits that FastGPT knows, in its own words: the key's end, and its points in all (-1: no limit)."""
    of_points = [
        limit.amount
        for limit in limits
        if limit.key_id is not None and (limit.measure, limit.period) == (Measure.MICROPOINTS, Period.TOTAL)
    ]
    return {
        "expiredTime": policy.expires_at,
        "maxUsagePoints": min(of_points) / MICROPOINTS if of_points else -1,
    }


def limit_report(limit: Limit) -> dict[str, Any]:
    return {"id": limit.pk, "scope": "team" if limit.key_id is None else "key", **limit.state()}


class BaseUrlView(ApiView):
    """The BaseURL itself, which is no endpoint."""

    endpoint = "base_url"
    api_key_access = frozenset()
    staff_permission = PUBLIC

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        trace_of(request._request).endpoint = self.endpoint
        raise PathNotFound(
            "This is the BaseURL, the root of all endpoints and no endpoint itself. "
            "For a chat, POST to v1/chat/completions under it. The endpoints are listed in docs/api.md."
        )


class UnknownPathView(ApiView):
    """Every path under an API root that is not routed. Also the answer to FastGPT's key in a URL."""

    endpoint = "unknown_path"
    api_key_access = frozenset()
    staff_permission = PUBLIC

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        trace_of(request._request).endpoint = self.endpoint
        if request.path.rstrip("/").endswith("support/openapi/health"):
            raise PathNotFound(
                "A key does not belong in a URL. Ask GET v1/key, with the key in the Authorization header."
            )
        raise PathNotFound
