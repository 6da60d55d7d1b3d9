"""The application: Django's handler, and a short way past it for the views of the hot path.

An async API view needs no middleware, no signals, and no thread while it waits. It is called directly, with what it
does need: its body (bounded in bytes and time), its client's disconnect, an end for readers that stall, its headers.
Everything else goes through Django as usual, behind the same bounds. A view that takes files has wider ones: its body
goes to the disk as it comes, and only when its caller is known to be allowed to send it.
"""

import asyncio
from contextlib import ExitStack
from functools import lru_cache
from io import BytesIO
from tempfile import SpooledTemporaryFile
from typing import Any

from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.urls import Resolver404, get_resolver

from apikeys.api.answers import EventStream
from apikeys.api.views import ApiView, AsyncApiView
from apikeys.errors import ApiError, HttpsRequired, InvalidParameter
from apikeys.hot_path.request import AsyncRequest
from fastgpt_site.http.asgi_types import Scope
from fastgpt_site.http.cors import preflight
from fastgpt_site.http.errors import answer_to
from fastgpt_site.http.exchange import ClientGone, Exchange
from fastgpt_site.http.request_body import BodyReader, SmallBodies, read_body
from fastgpt_site.http.responses import OutgoingResponse
from fastgpt_site.http.sync_handler import SyncHandler
from fastgpt_site.http.uploads import UPLOAD_MEMORY_BYTES, Uploads
from fastgpt_site.process import lifespan

# Django takes no more of them, and says so by a traceback.
MAX_QUERY_FIELDS = 1000
IS_HTTPS_ONLY: bool = settings.SECURE_SSL_REDIRECT


class Application(SyncHandler):
    """One process's application. Open requests are counted, so that shutdown can wait for their records."""

    def __init__(self) -> None:
        super().__init__()
        self.open_requests: set[asyncio.Task[Any]] = set()
        self.small_bodies = SmallBodies()
        self.uploads = Uploads()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Begin and end with the server process, as ASGI has it. Requests come by `serve`."""
        assert scope["type"] == "lifespan"  # noqa: S101 - the connection hands over nothing else
        await lifespan.run(receive, send, self.open_requests)

    async def serve(self, exchange: Exchange) -> None:
        task = exchange.task
        assert task is not None  # noqa: S101 - it runs this
        self.open_requests.add(task)
        outgoing = OutgoingResponse(exchange)
        head = exchange.head
        try:
            if head.query.count(b"&") >= MAX_QUERY_FIELDS:
                raise InvalidParameter(f"The query has more than {MAX_QUERY_FIELDS} fields.")
            view_class = api_view_class(head.path)
            if outgoing.is_api and head.method == "OPTIONS":
                await outgoing.send_answer(preflight(head.headers))
            elif issubclass(view_class, AsyncApiView):
                await self.serve_hot(exchange, outgoing, view_class, task)
            elif view_class.takes_file and head.method == "POST":
                await self.serve_upload(exchange, outgoing, view_class)
            else:
                await self.serve_sync(exchange, outgoing, view_class)
        except ClientGone:
            exchange.is_gone = True
        except asyncio.CancelledError:
            exchange.is_gone = True
            raise
        except ApiError as error:
            if exchange.is_begun:
                raise
            await outgoing.send_answer(answer_to(error, exchange.trace))
        finally:
            self.open_requests.discard(task)
            outgoing.end()

    async def serve_hot(
        self, exchange: Exchange, outgoing: OutgoingResponse, view_class: type[AsyncApiView], task: asyncio.Task[Any]
    ) -> None:
        """Answer without Django's handler. The task is cancelled as soon as the client goes away."""
        head, trace = exchange.head, exchange.trace
        trace.endpoint = view_class.endpoint
        if IS_HTTPS_ONLY and not is_secure(exchange):
            raise HttpsRequired
        view = view_class()
        request = AsyncRequest(head.method, meta_of(exchange), trace, view, lambda: scope_of(exchange))
        try:
            # The key is looked up before a body is read, so that nobody without a key fills the memory.
            await view.prepare(request)
            request.body = await read_body(exchange)
            exchange.on_gone = task.cancel
            answer = await view.answer(request)
            if isinstance(answer, EventStream):
                await outgoing.send_stream(answer)
            else:
                await outgoing.send_answer(answer)
        except asyncio.CancelledError:
            # It was cancelled because the client went: the request ends here. A cancellation by the server goes on.
            if not exchange.is_gone or task.uncancel() > 0:
                raise
        except ClientGone:
            raise
        except Exception as error:
            if exchange.is_begun:
                raise
            await outgoing.send_answer(answer_to(error, trace))
        finally:
            exchange.on_gone = exchange.on_second = None

    async def serve_upload(self, exchange: Exchange, outgoing: OutgoingResponse, view_class: type[ApiView]) -> None:
        # The caller is checked before a body is read, so that nobody without a right to it fills the disk.
        scope = scope_of(exchange)
        team_id = await self.check_sender(scope, view_class)
        with ExitStack() as held:
            held.enter_context(self.uploads.reserve(team_id))
            content = held.enter_context(SpooledTemporaryFile(UPLOAD_MEMORY_BYTES))
            await BodyReader(exchange).read_into(content, is_file=True)
            await self.serve_by_django(scope, outgoing, content)

    async def serve_sync(self, exchange: Exchange, outgoing: OutgoingResponse, view_class: type[ApiView]) -> None:
        """Keep a body only for a caller who may send it. One that has come whole already is no burden."""
        scope, body = scope_of(exchange), BodyReader(exchange)
        with BytesIO() as content:
            if await body.has_come():
                await body.read_into(content)
            elif view_class is NoApiView:
                if await self.is_signed_in(scope):
                    await body.read_into(content)
                else:
                    with self.small_bodies.reserve():
                        await body.read_into(content, limit=SmallBodies.BYTES)
            elif not view_class.is_public():
                await self.check_sender(scope, view_class)
                await body.read_into(content)
            # Public endpoints read no body.
            await self.serve_by_django(scope, outgoing, content)


class NoApiView(ApiView):
    """The view that stands for every path outside of the API."""


@lru_cache(maxsize=256)
def api_view_class(path: str) -> type[ApiView]:
    try:
        match = get_resolver().resolve(path)
    except Resolver404:
        return NoApiView
    view_class = getattr(match.func, "view_class", None) or getattr(match.func, "cls", None)
    return view_class if view_class is not None and issubclass(view_class, ApiView) else NoApiView


def meta_of(exchange: Exchange) -> dict[str, str]:
    """Return the part of Django's META that an AsyncRequest has."""
    head = exchange.head
    meta = {"REMOTE_ADDR": exchange.connection.peer or ""}
    if head.authorization is not None:
        meta["HTTP_AUTHORIZATION"] = head.authorization
    if head.forwarded_for:
        meta["HTTP_X_FORWARDED_FOR"] = head.forwarded_for
    return meta


def is_secure(exchange: Exchange) -> bool:
    """Return whether the client came over HTTPS, as the site's proxy says."""
    return ASGIRequest(scope_of(exchange), BytesIO()).is_secure()


def scope_of(exchange: Exchange) -> Scope:
    """Return the request for Django. Only a trusted proxy may say that its client came over HTTPS."""
    scope = exchange.scope
    connection = exchange.connection
    if settings.SECURE_PROXY_SSL_HEADER and not (connection.is_of_proxy and connection.peer):
        scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"x-forwarded-proto"]
    return scope
