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
from typing import IO, Any

from django.conf import settings
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.urls import Resolver404, get_resolver

from apikeys.api.views import ApiView, AsyncApiView
from apikeys.client_address import client_address, is_in, trusted_proxies
from apikeys.errors import ApiError, HttpsRequired
from apikeys.hot_path.trace import Trace, attach
from fastgpt_site.http.asgi_types import Receive, Scope, Send
from fastgpt_site.http.cors import preflight
from fastgpt_site.http.errors import respond
from fastgpt_site.http.request_body import BodyRead, ClientGone, drain, read_body, without_body
from fastgpt_site.http.responses import OutgoingResponse, send_whole, serve_until_gone
from fastgpt_site.http.uploads import UPLOAD_MEMORY_BYTES, Uploads, team_of_sender
from fastgpt_site.process import lifespan


class Application(ASGIHandler):
    """One process's application. Open requests are counted, so that shutdown can wait for their records."""

    def __init__(self) -> None:
        super().__init__()
        self.open_requests: set[asyncio.Task[Any]] = set()
        self.sync_room = asyncio.Semaphore(lifespan.MAX_SYNC_REQUESTS)
        self.uploads = Uploads()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await lifespan.run(receive, send, self.open_requests)
        elif scope["type"] == "http":
            task = asyncio.current_task()
            assert task is not None  # noqa: S101 - a coroutine always runs in one
            self.open_requests.add(task)
            try:
                await self.serve(scope, receive, send)
            finally:
                self.open_requests.discard(task)
        else:
            await send({"type": "websocket.close"})

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["trace"] = trace = Trace()
        outgoing = OutgoingResponse(scope, send, trace)
        drop_forged_scheme(scope)
        try:
            view_class, view = api_view(scope["path"])
            if outgoing.is_api and scope["method"] == "OPTIONS":
                await send_whole(outgoing, preflight(scope))
            elif issubclass(view_class, AsyncApiView):
                await self.serve_hot(scope, receive, outgoing, view_class, view)
            elif view_class.takes_file and scope["method"] == "POST":
                await self.serve_upload(scope, receive, outgoing, view_class)
            else:
                with BytesIO() as body:
                    await read_body(receive, body)
                    await self.serve_by_django(scope, receive, outgoing, body)
        except ApiError as error:
            # Only the body raises these: what a view raises is answered by its own exception handler.
            outgoing.close_connection = True
            await send_whole(outgoing, respond(error, trace))
        except ClientGone:
            outgoing.is_gone = True
        except asyncio.CancelledError:
            outgoing.is_gone = True
            raise
        finally:
            outgoing.end()

    async def serve_hot(
        self, scope: Scope, receive: Receive, outgoing: OutgoingResponse, view_class: type[AsyncApiView], view: Any
    ) -> None:
        """Look the key up before a body is read, so that nobody without a key fills the memory."""
        body = BytesIO()
        request = ASGIRequest(scope, body)
        attach(request, outgoing.trace)
        try:
            if settings.SECURE_SSL_REDIRECT and not request.is_secure():
                raise HttpsRequired
            await view_class.prepare(request)
        except ApiError as error:
            await drain(receive)
            await send_whole(outgoing, respond(error, outgoing.trace))
            return
        await read_body(receive, body)
        await serve_until_gone(request, view, receive, outgoing)

    async def serve_upload(
        self, scope: Scope, receive: Receive, outgoing: OutgoingResponse, view_class: type[ApiView]
    ) -> None:
        """Ask who calls before a body is read, so that nobody without a right to it fills the disk."""
        request = ASGIRequest(without_body(scope), BytesIO())
        attach(request, outgoing.trace)
        with ExitStack() as held:
            try:
                async with self.sync_room:
                    team_id = await team_of_sender(view_class, request)
                held.enter_context(self.uploads.reserve(team_id))
            except Exception as error:  # noqa: BLE001 - answered as any view's own
                await drain(receive)
                await send_whole(outgoing, respond(error, outgoing.trace))
                return
            body = held.enter_context(SpooledTemporaryFile(UPLOAD_MEMORY_BYTES))
            await read_body(receive, body, is_file=True)
            await self.serve_by_django(scope, receive, outgoing, body)

    async def serve_by_django(
        self, scope: Scope, receive: Receive, outgoing: OutgoingResponse, body: IO[bytes]
    ) -> None:
        async with self.sync_room:
            await super().__call__(scope, BodyRead(body, receive), outgoing.send)  # type: ignore[arg-type]

    async def read_body(self, receive: Any) -> Any:
        """Return the body, which has been read already. Django calls this."""
        return receive.body

    def create_request(self, scope: Any, body_file: Any) -> Any:
        request, error_response = super().create_request(scope, body_file)
        if request is not None:
            attach(request, scope["trace"])
        return request, error_response


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
    """Drop the header by which only a trusted proxy may say that its client came over HTTPS."""
    if not settings.SECURE_PROXY_SSL_HEADER:
        return
    peer = client_address(scope["client"][0], "") if scope.get("client") else None
    if peer is None or not is_in(peer, trusted_proxies()):
        scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"x-forwarded-proto"]
