"""The application: Django's handler, and a short way past it for the views of the hot path.

An async API view needs no middleware, no signals, and no thread while it waits. It is called directly, with what it
does need: its body (bounded in bytes and time), its client's disconnect, an end for readers that stall, its headers.
Everything else goes through Django as usual, behind the same bounds. A view that takes files or images has wider ones.
What is large of a body goes to the disk as it comes, and only when its caller is known to be allowed to send it.
"""

import asyncio
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.urls import Resolver404, get_resolver

from apikeys.api.answers import EventStream
from apikeys.api.views import ApiView, AsyncApiView
from apikeys.errors import ApiError, HttpsRequired, InvalidParameter
from apikeys.hot_path.request import AsyncRequest
from fastgpt_site.http.asgi_types import Scope
from fastgpt_site.http.body_room import BodyRoom, HeldRoom
from fastgpt_site.http.cors import preflight
from fastgpt_site.http.errors import answer_to
from fastgpt_site.http.exchange import ClientGone, Exchange
from fastgpt_site.http.request_body import BodyReader, SmallBodies, bounds_of, make_file
from fastgpt_site.http.responses import OutgoingResponse
from fastgpt_site.http.sync_handler import SyncHandler
from fastgpt_site.http.uploads import Uploads
from fastgpt_site.process import lifespan

# Django takes no more of them, and says so by a traceback.
MAX_QUERY_FIELDS = 1000
IS_HTTPS_ONLY: bool = settings.SECURE_SSL_REDIRECT
# The name and value of the header by which a proxy says that its client came over HTTPS.
SECURE_HEADER = settings.SECURE_PROXY_SSL_HEADER and (b"x-forwarded-proto", b"https")


@dataclass(slots=True)
class Call:
    """A request on its way through the application, and the response to it."""

    exchange: Exchange
    outgoing: OutgoingResponse
    view_class: type[ApiView]
    # Set for views of the hot path alone.
    request: AsyncRequest | None = None
    # Set while a large body is held, until it has been answered.
    held: HeldRoom | None = None


class Application(SyncHandler):
    """One process's application. Open requests are counted, so that shutdown can wait for their records.

    Each request is given to `start`. If that has not answered it, a task takes what it returned to `serve`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.open_requests: set[asyncio.Task[Any]] = set()
        self.small_bodies = SmallBodies()
        self.body_room = BodyRoom(settings.MAX_OPEN_BODY_BYTES)
        self.uploads = Uploads()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Begin and end with the server process, as ASGI has it. Requests do not come this way."""
        assert scope["type"] == "lifespan"  # noqa: S101 - the connection hands over nothing else
        await lifespan.run(receive, send, self.open_requests)

    def start(self, exchange: Exchange) -> Call | None:
        """Refuse a request of the hot path at once, where memory says enough, and return None. Otherwise return it.

        Without a task, whoever tries keys costs as little as can be.
        """
        head, trace = exchange.head, exchange.trace
        call = Call(exchange, OutgoingResponse(exchange), api_view_class(head.path))
        is_preflight = head.method == "OPTIONS" and call.outgoing.is_api
        if is_preflight or not issubclass(call.view_class, AsyncApiView):
            return call
        trace.endpoint = call.view_class.endpoint
        make_scope = lambda: scope_of(exchange)  # noqa: E731
        call.request = AsyncRequest(head.method, meta_of(exchange), trace, call.view_class, make_scope)
        if exchange.can_be_answered_at_once and (is_secure(exchange) or not IS_HTTPS_ONLY):
            try:
                call.view_class.prepare_at_once(call.request)
            except ApiError as error:
                call.outgoing.answer_at_once(answer_to(error, trace))
                call.outgoing.end()
                return None
        return call

    async def serve(self, call: Call, task: asyncio.Task[Any]) -> None:
        """Answer a request in a task of its own."""
        self.open_requests.add(task)
        exchange, outgoing, head = call.exchange, call.outgoing, call.exchange.head
        try:
            if head.query.count(b"&") >= MAX_QUERY_FIELDS:
                raise InvalidParameter(f"The query has more than {MAX_QUERY_FIELDS} fields.")
            if call.request is not None:
                await self.serve_hot(call, call.request, task)
            elif outgoing.is_api and head.method == "OPTIONS":
                await outgoing.send_answer(preflight(head.headers))
            elif call.view_class.takes_file and head.method == "POST":
                await self.serve_upload(call)
            else:
                await self.serve_sync(call)
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

    async def serve_hot(self, call: Call, request: AsyncRequest, task: asyncio.Task[Any]) -> None:
        """Answer without Django's handler. The task is cancelled as soon as the client goes away."""
        exchange, outgoing, trace = call.exchange, call.outgoing, call.exchange.trace
        if IS_HTTPS_ONLY and not is_secure(exchange):
            raise HttpsRequired
        view = request.view
        try:
            # The key is looked up before a body is read, so that nobody without a key fills the memory.
            await view.prepare(request)
            request.body = await self.read_hot(call, request)
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
            if call.held is not None:
                call.held.release()

    async def read_hot(self, call: Call, request: AsyncRequest) -> bytes:
        exchange, bounds = call.exchange, bounds_of(call.view_class)
        if exchange.has_whole_body and not (exchange.is_gone or exchange.head.coding):
            # Most bodies have come with the head.
            body = exchange.take_body()
            bounds.check(len(body))
            return body
        # A key that opens something else fills no memory either.
        request.view.check(request)
        call.held = HeldRoom(self.body_room, None if request.auth is None else request.auth.policy.team_id)
        return await BodyReader(exchange).read(bounds, call.held)

    async def serve_upload(self, call: Call) -> None:
        # The caller is checked before a body is read, so that nobody without a right to it fills the disk.
        exchange = call.exchange
        scope = scope_of(exchange)
        team_id = await self.check_sender(scope, call.view_class)
        with self.uploads.reserve(team_id), make_file() as content:
            size = await BodyReader(exchange).read_into(content, bounds_of(call.view_class))
            await self.serve_by_django(without_coding(scope, size), call.outgoing, content)

    async def serve_sync(self, call: Call) -> None:
        """Keep a body only for a caller who may send it. One that has come whole already is no burden."""
        scope, body, view_class = scope_of(call.exchange), BodyReader(call.exchange), call.view_class
        bounds, size = bounds_of(view_class), 0
        with make_file() as content, HeldRoom(self.body_room) as held:
            if await body.has_come():
                size = await body.read_into(content, bounds)
            elif view_class is NoApiView:
                if await self.is_signed_in(scope):
                    size = await body.read_into(content, bounds)
                else:
                    with self.small_bodies.reserve():
                        size = await body.read_into(content, SmallBodies.BOUNDS)
            elif not view_class.is_public():
                held.team_id = await self.check_sender(scope, view_class)
                size = await body.read_into(content, bounds, held)
            # Public endpoints read no body.
            await self.serve_by_django(without_coding(scope, size), call.outgoing, content)


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
    """Return whether the client came over HTTPS, as a trusted proxy says: what Django's `is_secure` returns."""
    if not (SECURE_HEADER and exchange.connection.is_of_proxy and exchange.connection.peer):
        return False
    value = next((value for name, value in exchange.head.headers if name == SECURE_HEADER[0]), b"")
    return value.partition(b",")[0].strip() == SECURE_HEADER[1]


def scope_of(exchange: Exchange) -> Scope:
    """Return the request for Django. Only a trusted proxy may say that its client came over HTTPS."""
    scope = exchange.scope
    connection = exchange.connection
    if settings.SECURE_PROXY_SSL_HEADER and not (connection.is_of_proxy and connection.peer):
        scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"x-forwarded-proto"]
    return scope


def without_coding(scope: Scope, size: int) -> Scope:
    """Return the request for Django, which knows nothing of a Content-Encoding, with the size of the decoded body."""
    if all(name != b"content-encoding" for name, _ in scope["headers"]):
        return scope
    replaced = (b"content-encoding", b"content-length", b"transfer-encoding")
    headers = [header for header in scope["headers"] if header[0] not in replaced]
    return {**scope, "headers": [*headers, (b"content-length", b"%d" % size)]}
