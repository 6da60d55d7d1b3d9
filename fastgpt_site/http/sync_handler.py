"""Django's own handler, for everything that is synchronous: the admin, the management API, files.

A request takes a place while its view runs, and a thread and a database connection with it. What is sent, and whoever
takes long to read it, takes none of these.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from io import BytesIO
from typing import IO, Any, TypeVar

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.conf import settings
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.core import signals
from django.core.handlers.asgi import ASGIHandler, ASGIRequest, get_script_prefix
from django.db import connection
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.urls import set_script_prefix

from apikeys.api.views import ApiView
from apikeys.errors import ApiError
from apikeys.hot_path.trace import attach, trace_of
from fastgpt_site.http.asgi_types import Scope
from fastgpt_site.http.errors import as_api_error
from fastgpt_site.http.responses import OutgoingResponse
from fastgpt_site.process import lifespan

Answer = TypeVar("Answer")

# These have places of their own, so that they answer while every other place is taken.
PROBES = {"/healthz": 8, "/readyz": 4, "/metrics": 4}


class SyncHandler(ASGIHandler):
    """Runs synchronous views in threads, so many at a time as there are places."""

    def __init__(self) -> None:
        super().__init__()
        self.sync_room = asyncio.Semaphore(lifespan.MAX_SYNC_REQUESTS)
        self.probe_rooms = {path: asyncio.Semaphore(places) for path, places in PROBES.items()}

    async def check_sender(self, scope: Scope, view_class: type[ApiView]) -> str:
        """Return the team for which the sender may call this. Raise whatever a call without a body would."""
        return await self._ask(view_class.check_caller, self.request_without_body(scope))

    async def is_signed_in(self, scope: Scope) -> bool:
        request = self.request_without_body(scope)
        return settings.SESSION_COOKIE_NAME in request.COOKIES and await self._ask(_is_signed_in, request)

    async def _ask(self, question: Callable[[HttpRequest], Answer], request: HttpRequest) -> Answer:
        """Ask in a thread. Raise ApiError, whatever it raises."""
        try:
            async with self.sync_room, ThreadSensitiveContext():
                return await sync_to_async(question)(request)
        except ApiError:
            raise
        except Exception as error:
            raise as_api_error(error, trace_of(request)) from error

    def request_without_body(self, scope: Scope) -> HttpRequest:
        request = ASGIRequest(without_body(scope), BytesIO())
        attach(request, scope["trace"])
        return request

    async def serve_by_django(self, scope: Scope, outgoing: OutgoingResponse, body: IO[bytes]) -> None:
        """Answer by Django's handler. What it takes is given back before anything is sent: readers may be slow."""
        async with self.probe_rooms.get(scope["path"], self.sync_room), ThreadSensitiveContext():
            response = await self.respond(scope, body)
        await self.send_response(response, outgoing.send)  # type: ignore[arg-type]

    async def respond(self, scope: Scope, body: IO[bytes]) -> HttpResponseBase:
        """Return a response that needs no thread, no database and no file any more."""
        set_script_prefix(get_script_prefix(scope))
        await signals.request_started.asend(sender=self.__class__, scope=scope)
        request, error_response = self.create_request(scope, body)
        response: HttpResponseBase = error_response if request is None else await self.run_get_response(request)
        try:
            if isinstance(response, StreamingHttpResponse) and not response.is_async:
                parts: list[bytes] = await sync_to_async(list)(response.streaming_content)  # type: ignore[call-arg]
                response.streaming_content = each_of(parts)
        finally:
            await sync_to_async(response.close)()
        return response

    def create_request(self, scope: Any, body_file: Any) -> Any:
        request, error_response = super().create_request(scope, body_file)
        if request is not None:
            attach(request, scope["trace"])
        return request, error_response


async def each_of(parts: Sequence[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def _is_signed_in(request: HttpRequest) -> bool:
    try:
        SessionMiddleware(HttpResponse).process_request(request)
        AuthenticationMiddleware(HttpResponse).process_request(request)
        return request.user.is_authenticated
    finally:
        # Django closes it at the end of a request, and this is outside of one.
        connection.close()


def without_body(scope: Scope) -> Scope:
    dropped = (b"content-type", b"content-length", b"transfer-encoding")
    return {**scope, "headers": [(name, value) for name, value in scope["headers"] if name not in dropped]}
