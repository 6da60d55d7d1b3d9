"""Staff talk to an app of their teams from the admin: in their session, with no key, and charged to none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.sessions.backends.db import SessionStore
from django.core.exceptions import DisallowedHost
from django.db import InterfaceError, OperationalError, connection
from django.http import HttpRequest
from rest_framework.request import Request

from apikeys.access.authentication import StaffSessionAuthentication
from apikeys.api.streams import EventStream
from apikeys.api.views import AsyncApiView
from apikeys.client_address import address_of
from apikeys.errors import AppNotFound, InvalidParameter, RateLimited, ServiceUnavailable, SignInNeeded
from apikeys.hot_path import in_flight
from apikeys.hot_path.in_flight import InFlight
from apikeys.hot_path.trace import trace_of
from chat.api.completions import open_stream
from chat.completions import request as payloads
from chat.completions.app_snapshots import AppSnapshot, find_app
from chat.completions.completion import Caller, Completion
from chat.completions.request import CompletionRequest, StreamOptions
from chat.models import App

TRY_APPS = ("chat.view_app", "chat.try_app")
# Of one user at the same time, in one server process.
MAXIMUM_TRIALS = 4


def apps_to_try(user: Any) -> Any:
    """The apps that this user may talk to here: of their teams and not archived."""
    apps = App.objects.for_user(user).filter(archived_at=None)
    return apps if user.has_perms(TRY_APPS) else apps.none()


class PlaygroundView(AsyncApiView):
    """`POST admin/chat/app/try/answer/`: one question to one app, always streamed and with `detail`.

    It has the hot path's manner: it waits for the provider without a thread and without a database connection.
    """

    endpoint = "app.try"
    api_key_access = frozenset()
    staff_permission = "chat.try_app"
    authentication_classes = [StaffSessionAuthentication]
    http_method_names = ["post"]

    @classmethod
    async def prepare(cls, request: HttpRequest) -> None:
        trace_of(request).endpoint = cls.endpoint
        if not hasattr(request, "session"):
            try:
                request.get_host()
            except DisallowedHost:
                raise InvalidParameter("The request names a host that is not served here.") from None
            request.user = await asyncio.to_thread(_find_staff, request)

    async def post(self, request: Request) -> EventStream:
        http_request = request._request
        user: Any = request.user
        body = _trial(payloads.parse_request(http_request.body))
        if in_flight.count_of_user(user.pk) >= MAXIMUM_TRIALS:
            raise RateLimited(f"You may have {MAXIMUM_TRIALS} answers in progress at the same time.", 1)
        trace, address = trace_of(http_request), address_of(http_request)
        # From here on an app's cut ends it, so that what is looked up below cannot be older than the cut.
        flight = InFlight(None, trace.abort, user_id=user.pk)
        flight.app_id = body.appId
        is_streaming = False
        try:
            app = await _find(user, body.appId or "")
            caller = Caller(trace, None, self.endpoint, None if address is None else str(address))
            completion = Completion(body, app, caller, flight)
            await completion.prepare()
            response = await open_stream(completion, trace)
            is_streaming = True
        finally:
            if not is_streaming:
                flight.close()
        return response


def _trial(body: CompletionRequest) -> CompletionRequest:
    """Without a chat: a trial reads and keeps no conversation."""
    return msgspec.structs.replace(
        body,
        chatId=None,
        responseChatItemId=None,
        stream=True,
        detail=True,
        stream_options=StreamOptions(include_usage=True),
    )


async def _find(user: Any, app_id: str) -> AppSnapshot:
    team_id = await asyncio.to_thread(_team_of, user, app_id)
    app = await find_app(app_id, team_id) if team_id is not None else None
    if app is None:
        raise AppNotFound
    return app


def _team_of(user: Any, app_id: str) -> str | None:
    """The team of an app that this user may try. In a thread, and leaves no connection behind."""
    with _connection():
        team_id: str | None = apps_to_try(user).filter(pk=app_id).values_list("team_id", flat=True).first()
        return team_id


def _find_staff(request: HttpRequest) -> Any:
    """The member of staff whose session this is, with their permissions at hand. In a thread, likewise."""
    with _connection():
        request.session = SessionStore(request.COOKIES.get(settings.SESSION_COOKIE_NAME))
        user: Any = get_user(request)
        if not (user.is_active and user.is_staff):
            raise SignInNeeded
        user.get_all_permissions()
        return user


@contextmanager
def _connection() -> Iterator[None]:
    """Django's connection of this thread, closed at the end; a database that cannot be reached is a 503."""
    try:
        yield
    except (OperationalError, InterfaceError):
        raise ServiceUnavailable from None
    finally:
        connection.close()
