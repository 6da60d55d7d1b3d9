"""The ASGI application: Django's handler, and a short way past it for the views of the hot path.

An async API view needs no middleware, no signals, and no thread while it waits. It is called directly, with what it
does need: its body (bounded in bytes and time), its client's disconnect, an end for readers that stall, its headers.
Everything else goes through Django as usual, behind the same bounds. A view that takes files has wider ones: its body
goes to the disk as it comes, and only when its caller is known to be allowed to send it.
"""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from functools import lru_cache
from io import BytesIO
from tempfile import SpooledTemporaryFile
from typing import Any

from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.urls import Resolver404, get_resolver

from apikeys.api.views import ApiView, AsyncApiView
from apikeys.client_address import client_address, is_in, trusted_proxies
from apikeys.errors import ApiError, HttpsRequired, InvalidParameter
from apikeys.hot_path.trace import Trace, attach
from fastgpt_site.http.asgi_types import Receive, Scope, Send
from fastgpt_site.http.cors import preflight
from fastgpt_site.http.errors import respond
from fastgpt_site.http.request_body import BodyReader, ClientGone, SmallBodies
from fastgpt_site.http.responses import OutgoingResponse, send_whole, serve_until_gone
from fastgpt_site.http.sync_handler import SyncHandler
from fastgpt_site.http.uploads import UPLOAD_MEMORY_BYTES, Uploads
from fastgpt_site.process import lifespan

# Django takes no more of them, and says so by a traceback.
MAX_QUERY_FIELDS = 1000


class Application(SyncHandler):
    """One process's application. Open requests are counted, so that shutdown can wait for their records."""

    def __init__(self) -> None:
        super().__init__()
        self.open_requests: set[asyncio.Task[Any]] = set()
        self.small_bodies = SmallBodies()
        self.uploads = Uploads()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await lifespan.run(receive, send, self.open_requests)
            return
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine always runs in one
        self.open_requests.add(task)
        try:
            await self.serve(scope, receive, send)
        finally:
            self.open_requests.discard(task)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["trace"] = trace = Trace()
        outgoing = OutgoingResponse(scope, send, trace)
        drop_forged_scheme(scope)
        body = BodyReader(scope, receive)
        try:
            if scope["query_string"].count(b"&") >= MAX_QUERY_FIELDS:
                raise InvalidParameter(f"The query has more than {MAX_QUERY_FIELDS} fields.")
            view_class, view = api_view(scope["path"])
            if outgoing.is_api and scope["method"] == "OPTIONS":
                await send_whole(outgoing, preflight(scope))
            elif issubclass(view_class, AsyncApiView):
                await self.serve_hot(scope, body, receive, outgoing, view_class, view)
            elif view_class.takes_file and scope["method"] == "POST":
                await self.serve_upload(scope, body, outgoing, view_class)
            else:
                await self.serve_sync(scope, body, outgoing, view_class)
        except ApiError as error:
            # Only the body and its sender raise these: what a view raises is answered by its own exception handler.
            await send_whole(outgoing, respond(error, trace))
        except ClientGone:
            outgoing.is_gone = True
        except asyncio.CancelledError:
            outgoing.is_gone = True
            raise
        finally:
            outgoing.end()

    async def serve_hot(
        self,
        scope: Scope,
        body: BodyReader,
        receive: Receive,
        outgoing: OutgoingResponse,
        view_class: type[AsyncApiView],
        view: Any,
    ) -> None:
        # The key is looked up before a body is read, so that nobody without a key fills the memory.
        content = BytesIO()
        request = ASGIRequest(scope, content)
        attach(request, outgoing.trace)
        if settings.SECURE_SSL_REDIRECT and not request.is_secure():
            raise HttpsRequired
        await view_class.prepare(request)
        await body.read_into(content)
        await serve_until_gone(request, view, receive, outgoing)

    async def serve_upload(
        self, scope: Scope, body: BodyReader, outgoing: OutgoingResponse, view_class: type[ApiView]
    ) -> None:
        # The caller is checked before a body is read, so that nobody without a right to it fills the disk.
        team_id = await self.check_sender(scope, outgoing, view_class)
        with ExitStack() as held:
            held.enter_context(self.uploads.reserve(team_id))
            content = held.enter_context(SpooledTemporaryFile(UPLOAD_MEMORY_BYTES))
            await body.read_into(content, is_file=True)
            await self.serve_by_django(scope, outgoing, content)

    async def serve_sync(
        self, scope: Scope, body: BodyReader, outgoing: OutgoingResponse, view_class: type[ApiView]
    ) -> None:
        """Keep a body only for a caller who may send it. One that has come whole already is no burden."""
        with BytesIO() as content:
            if await body.has_come():
                await body.read_into(content)
            elif view_class is NoApiView:
                if await self.is_signed_in(scope, outgoing):
                    await body.read_into(content)
                else:
                    with self.small_bodies.reserve():
                        await body.read_into(content, limit=SmallBodies.BYTES)
            elif not view_class.is_public():
                await self.check_sender(scope, outgoing, view_class)
                await body.read_into(content)
            # Public endpoints read no body.
            await self.serve_by_django(scope, outgoing, content)


class NoApiView(ApiView):
    """The view that stands for every path outside of the API."""


@lru_cache(maxsize=256)
def api_view(path: str) -> tuple[type[ApiView], Callable[..., Any]]:
    try:
        match = get_resolver().resolve(path)
    except Resolver404:
        return NoApiView, NoApiView.as_view()
    view_class = getattr(match.func, "view_class", None) or getattr(match.func, "cls", None)
    if view_class is None or not issubclass(view_class, ApiView):
        return NoApiView, NoApiView.as_view()
    return view_class, lambda request: match.func(request, *match.args, **match.kwargs)


def drop_forged_scheme(scope: Scope) -> None:
    # By this header only a trusted proxy may say that its client came over HTTPS.
    if not settings.SECURE_PROXY_SSL_HEADER:
        return
    peer = client_address(scope["client"][0], "") if scope.get("client") else None
    if peer is None or not is_in(peer, trusted_proxies()):
        scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"x-forwarded-proto"]
