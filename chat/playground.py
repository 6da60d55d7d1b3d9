"""Conversations of staff with an app of their teams, in the admin: in their session, and charged to no key."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import msgspec
from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.sessions.backends.db import SessionStore
from django.core.exceptions import DisallowedHost
from django.core.handlers.asgi import ASGIRequest
from django.db import InterfaceError, OperationalError, connection
from django.http import HttpRequest

from apikeys.access.authentication import StaffSessionAuthentication
from apikeys.accounting.ledger import Outcome
from apikeys.accounting.metered import Caller
from apikeys.api.answers import EventStream
from apikeys.api.views import AsyncApiView
from apikeys.errors import ApiError, AppNotFound, InvalidParameter, RateLimited, ServiceUnavailable, SignInNeeded
from apikeys.hot_path import in_flight
from apikeys.hot_path.in_flight import InFlight
from apikeys.hot_path.request import AsyncRequest
from apikeys.hot_path.trace import attach
from chat.api.completions import start_stream
from chat.completions import request as payloads
from chat.completions.app_snapshots import AppSnapshot, find_app
from chat.completions.completion import Completion
from chat.completions.request import CompletionRequest, StreamOptions
from chat.models import App

logger = logging.getLogger(__name__)

TRY_APPS = ("chat.view_app", "chat.try_app")
# One user may have so many answers under way at the same time in one server process.
MAXIMUM_ANSWERS = 4


def apps_to_try(user: Any) -> Any:
    apps = App.objects.for_user(user).filter(archived_at=None)
    return apps if user.has_perms(TRY_APPS) else apps.none()


@dataclass(slots=True)
class PlaygroundCompletion(Completion):
    """One that no key is charged for: it has no limits, and the log has what it came to."""

    def hand_over(self, outcome: Outcome, status: int) -> None:
        if self.has_room:
            self._log(outcome, status)
            self.drop_room()

    async def _settle(self, error: BaseException) -> None:
        if isinstance(error, ApiError) and error.failure is not None:
            # Staff may read what the provider said; callers with a key get no more than the contract says.
            error.message = f"{error.message} {error.failure}"
        await Completion._settle(self, error)

    def _log(self, outcome: Outcome, status: int) -> None:
        charge = self.compute_charge(outcome)
        fields = {
            "request_id": self.caller.request_id,
            "user_id": self.caller.trace.user_id,
            "team_id": self.app.team_id,
            "app_id": self.app.app_id,
            "model": self.app.model,
            "prompt_tokens": charge.prompt_tokens,
            "completion_tokens": charge.completion_tokens,
            "token_source": self.token_source.value,
            "status": status,
            "outcome": outcome.value,
        }
        logger.info("an app was tried", extra={"fields": fields})


class PlaygroundView(AsyncApiView):
    """`POST admin/chat/app/try/answer/`: one question to one app, always streamed and with `detail`.

    As on the hot path, it waits for the provider without a thread and without a database connection.
    """

    endpoint = "app.try"
    api_key_access = frozenset()
    staff_permission = "chat.try_app"
    authentication_classes = [StaffSessionAuthentication]
    http_method_names = ["post"]

    @classmethod
    def prepare_at_once(cls, request: AsyncRequest) -> None:
        """Do nothing: a session is not in memory."""

    @classmethod
    async def prepare(cls, request: AsyncRequest) -> None:
        if request.http_request is None:
            http_request = ASGIRequest(request.make_scope(), BytesIO())
            attach(http_request, request.trace)
            try:
                http_request.get_host()
            except DisallowedHost:
                raise InvalidParameter("The request names a host that is not served here.") from None
            http_request.user = await asyncio.to_thread(_authenticate, http_request)
            request.http_request = http_request

    async def post(self, request: AsyncRequest) -> EventStream:
        user: Any = request.user
        body = _without_chat(payloads.parse_request(request.body))
        payloads.check_messages(body)
        if in_flight.count_of_user(user.pk) >= MAXIMUM_ANSWERS:
            raise RateLimited(f"You may have {MAXIMUM_ANSWERS} answers in progress at the same time.", 1)
        caller = Caller(request.trace, None, self.endpoint)
        # From here on a termination of the app's calls ends it, so that what is looked up below cannot be older.
        flight = InFlight(None, caller.trace.reader, user_id=user.pk)
        flight.app_id = body.appId
        is_streaming = False
        try:
            app = await _find_app(user, body.appId or "")
            completion = PlaygroundCompletion(body, app, caller=caller, flight=flight)
            await completion.prepare()
            response = await start_stream(completion, caller.trace)
            is_streaming = True
        finally:
            if not is_streaming:
                flight.close()
        return response


def _without_chat(body: CompletionRequest) -> CompletionRequest:
    # The playground reads and keeps no conversation.
    return msgspec.structs.replace(
        body,
        chatId=None,
        responseChatItemId=None,
        stream=True,
        detail=True,
        stream_options=StreamOptions(include_usage=True),
    )


async def _find_app(user: Any, app_id: str) -> AppSnapshot:
    team_id = await asyncio.to_thread(_find_team, user, app_id)
    app = await find_app(app_id, team_id) if team_id is not None else None
    if app is None:
        raise AppNotFound
    return app


def _find_team(user: Any, app_id: str) -> str | None:
    # It runs in a thread, and leaves no connection behind.
    with _connection():
        team_id: str | None = apps_to_try(user).filter(pk=app_id).values_list("team_id", flat=True).first()
        return team_id


def _authenticate(request: HttpRequest) -> Any:
    """Return the member of staff whose session this is, with their permissions at hand. It runs in a thread."""
    with _connection():
        request.session = SessionStore(request.COOKIES.get(settings.SESSION_COOKIE_NAME))
        user: Any = get_user(request)
        if not (user.is_active and user.is_staff):
            raise SignInNeeded
        user.get_all_permissions()
        return user


@contextmanager
def _connection() -> Iterator[None]:
    """Close this thread's connection of Django at the end. A database that cannot be reached is a 503."""
    try:
        yield
    except (OperationalError, InterfaceError):
        raise ServiceUnavailable from None
    finally:
        connection.close()
