"""The bases of all API views: each declares its policy, and responds and refuses in the contract's shape."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, ClassVar, NoReturn

from django.conf import settings
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.db import connection
from django.http import HttpRequest, HttpResponse
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apikeys.access.authentication import ApiKeyAuthentication
from apikeys.access.declarations import PUBLIC, ApiCredential, Public, team_id_of
from apikeys.access.policy import KeyPolicy
from apikeys.accounting.metered import Caller, MeteredCall
from apikeys.api.answers import Answer, EventStream
from apikeys.api.limit_headers import limit_headers
from apikeys.errors import ApiError, HttpsRequired, MethodNotAllowed
from apikeys.hot_path.listener import listener
from apikeys.hot_path.request import AsyncRequest
from apikeys.hot_path.trace import trace_of
from apikeys.keys.kinds import AccessKind

# One request looks its key up so often at most, when its policy or another changes all the while.
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
    # It is false where a key asks about itself: such a call is never refused for limits, counts nowhere and leaves no
    # record. It must be cheap.
    is_metered: ClassVar[bool] = True
    # It is false where only its body says what a request asks for.
    asks_limits_first: ClassVar[bool] = True
    # It is true where a body is a form with a file: its bounds are those of files.
    takes_file: ClassVar[bool] = False
    # The site's setting for the largest body.
    max_body_setting: ClassVar[str] = "API_MAX_BODY_BYTES"
    # A call that the limits let in is recorded whatever its response is. Other calls are recorded if they succeed.
    call: MeteredCall | None = None

    @classmethod
    def is_public(cls) -> bool:
        """Return whether anybody may call this, without a credential. Such endpoints read no body."""
        return cls.staff_permission is PUBLIC

    @classmethod
    def check_caller(cls, request: HttpRequest) -> str:
        """Return the team for which the caller may call this: the entry point asks before it takes a file.

        Raise what a call would be refused with. The limits are asked by the call itself.
        """
        if settings.SECURE_SSL_REDIRECT and not request.is_secure():
            raise HttpsRequired
        trace_of(request).endpoint = cls.endpoint
        view = cls()
        try:
            # Only these two of all middleware are needed, to know staff by their session.
            SessionMiddleware(HttpResponse).process_request(request)
            AuthenticationMiddleware(HttpResponse).process_request(request)
            view.request = view.initialize_request(request)
            view.perform_authentication(view.request)
            view.check_permissions(view.request)
            return team_id_of(view.request)
        finally:
            # Django closes it at the end of a request, and this is outside of one.
            connection.close()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        trace = trace_of(request._request)
        trace.endpoint = self.endpoint
        # Before `super` asks for permission, so that the log names whoever is refused.
        auth = request.auth
        if not isinstance(auth, ApiCredential) and request.user.is_authenticated:
            trace.user_id = request.user.pk
        super().initial(request, *args, **kwargs)
        if isinstance(auth, ApiCredential) and auth.policy.has_limits and self.is_metered and self.asks_limits_first:
            self._reserve(request._request, auth.policy)

    def http_method_not_allowed(self, request: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise MethodNotAllowed(request.method, self.methods, self.allowed_methods)

    @property
    def methods(self) -> list[str]:
        return [method for method in self.allowed_methods if method != "OPTIONS"]

    def finalize_response(self, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        final = super().finalize_response(request, response, *args, **kwargs)
        call = self.call
        auth = getattr(request, "auth", None) if response.status_code < 400 else None
        if call is None and self.is_metered and isinstance(auth, ApiCredential):
            call = self._metered_call(request._request, auth.policy)
        if call is not None:
            try:
                call.record_from_thread(response.status_code)
            except ApiError as error:
                # A call that cannot be recorded gets no answer.
                final = super().finalize_response(request, self.handle_exception(error), *args, **kwargs)
        return final

    def _metered_call(self, request: HttpRequest, policy: KeyPolicy) -> MeteredCall:
        trace = trace_of(request)
        return MeteredCall(caller=Caller(trace, policy, self.endpoint), started=trace.started)

    def _reserve(self, request: HttpRequest, policy: KeyPolicy) -> None:
        call, trace = self._metered_call(request, policy), trace_of(request)
        try:
            call.reserve_from_thread()
        finally:
            if trace.decision is not None:
                trace.headers += limit_headers(trace.decision)
        self.call = call


class AsyncApiView(ApiView):
    """Base of the endpoints on the hot path: the same decisions by the same objects, and no thread touched.

    The entry point calls `prepare` and then `answer`, with a request of its own kind. A subclass's handlers are
    coroutines, and return an Answer or an EventStream. It asks the limits and records its usage itself.
    """

    asks_limits_first = False

    @classmethod
    def prepare_at_once(cls, request: AsyncRequest) -> None:
        """Look the key up in memory, before there is a task. Raise what `prepare` raises, where memory says enough."""
        ApiKeyAuthentication.prepare_at_once(request)

    @classmethod
    async def prepare(cls, request: AsyncRequest) -> None:
        """Look the key up, unless what is known of it still holds. The entry point asks before it reads a body.

        Bodies take their time, so it is asked once more when one has come: a key may have been revoked meanwhile.
        Raise what `ApiKeyAuthentication` raises for a header that is missing, malformed or of no key.
        """
        known = request.api_credential
        # A silent listener announces no change, and a change may come while the key is looked up.
        is_stale = known is None or not listener.is_alive
        for _ in range(LOOKUPS):
            if not is_stale and known is not None and known.generation == listener.generation:
                return
            known = await ApiKeyAuthentication.prepare(request)
            is_stale = False

    async def answer(self, request: AsyncRequest) -> Answer | EventStream:
        """Decide on a request whose body has come, and answer it. Raise ApiError."""
        await self.prepare(request)
        self.check(request)
        return await self.handler_of(request)(request)

    def check(self, request: AsyncRequest) -> None:
        """Decide who calls, and whether they may. Raise ApiError."""
        for authentication in self.get_authenticators():
            found = authentication.authenticate(request)  # type: ignore[arg-type]
            if found is not None:
                request.user, request.auth = found
                break
        if request.auth is None:
            request.trace.user_id = request.user.pk
        self.check_permissions(request)  # type: ignore[arg-type]

    def handler_of(self, request: AsyncRequest) -> Callable[[AsyncRequest], Awaitable[Answer | EventStream]]:
        name = request.method.lower()
        is_known = name in self.http_method_names
        handler: Callable[[AsyncRequest], Awaitable[Answer | EventStream]] = getattr(
            self, name if is_known else "http_method_not_allowed", self.http_method_not_allowed
        )
        return handler


def success(data: Any) -> Response:
    return Response({"code": 200, "statusText": "", "message": "", "data": data})
