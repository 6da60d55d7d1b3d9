"""The ASGI application: Django's handler, and a short way past it for the views of the hot path.

An async API view needs no middleware, no signals, and no thread while it waits. It is called directly, with what it
does need: its body (bounded in bytes and time), its client's disconnect, an end for readers that stall, its headers.
Everything else goes through Django as usual, behind the same bounds. A view that takes files has wider ones: its body
goes to the disk as it comes, and only when its caller is known to be allowed to send it.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from io import BytesIO
from tempfile import SpooledTemporaryFile
from typing import IO, Any

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.urls import Resolver404, get_resolver

from apikeys.api.streams import EventStream
from apikeys.api.views import ApiView, AsyncApiView
from apikeys.client_address import client_address, is_in, trusted_proxies
from apikeys.errors import ApiError, BodyTooLarge, BodyTooSlow, HttpsRequired, TooManyUploads
from apikeys.hot_path.trace import Trace, attach
from fastgpt_site.http.errors import respond
from fastgpt_site.http.responses import Answer, preflight
from fastgpt_site.observability import metrics
from fastgpt_site.process import lifespan

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

# A refused body is read on for a while, so that the client gets to read the answer before the connection ends.
DRAIN_BYTES = 16 * 1024 * 1024
DRAIN_SECONDS = 5.0
# Of uploads: how many one process takes at the same time, and how many of one team; what of one stays in memory; how
# many times longer than another body it may take, and how many bytes must have come for each second of that.
MAX_UPLOADS = 16
MAX_UPLOADS_OF_TEAM = 2
UPLOAD_MEMORY_BYTES = 256 * 1024
UPLOAD_PATIENCE = 20
UPLOAD_BYTES_A_SECOND = 16 * 1024


class ClientGone(Exception):
    """The client closed the connection before it had sent its body."""


class Uploads:
    """The files that this process is taking. Nobody waits for room: a client is told at once to come again."""

    def __init__(self) -> None:
        self.by_team: Counter[str] = Counter()

    @contextmanager
    def held(self, team_id: str) -> Iterator[None]:
        """Room for one. Raises TooManyUploads."""
        if self.by_team.total() >= MAX_UPLOADS or self.by_team[team_id] >= MAX_UPLOADS_OF_TEAM:
            raise TooManyUploads
        self.by_team[team_id] += 1
        try:
            yield
        finally:
            self.by_team -= Counter([team_id])


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
                await self.answer(scope, receive, send)
            finally:
                self.open_requests.discard(task)
        else:
            await send({"type": "websocket.close"})

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["trace"] = trace = Trace()
        answer = Answer(scope, send, trace)
        drop_forged_scheme(scope)
        try:
            view_class, view = api_view(scope["path"])
            if answer.is_api and scope["method"] == "OPTIONS":
                await send_whole(answer, preflight(scope))
            elif issubclass(view_class, AsyncApiView):
                await self.answer_hot(scope, receive, answer, view_class, view)
            elif view_class.takes_file and scope["method"] == "POST":
                await self.answer_upload(scope, receive, answer, view_class)
            else:
                with BytesIO() as body:
                    await read_body(receive, body)
                    await self.answer_with(scope, receive, answer, body)
        except ApiError as error:
            # Of the body only: what a view raises is answered by its own exception handler.
            answer.close_connection = True
            await send_whole(answer, respond(error, trace))
        except ClientGone:
            answer.is_gone = True
        except asyncio.CancelledError:
            answer.is_gone = True
            raise
        finally:
            answer.end()

    async def answer_hot(
        self, scope: Scope, receive: Receive, answer: Answer, view_class: type[AsyncApiView], view: Any
    ) -> None:
        """The short way: who asks is known before a body is read, so that nobody without a key fills the memory."""
        body = BytesIO()
        request = ASGIRequest(scope, body)
        attach(request, answer.trace)
        try:
            if settings.SECURE_SSL_REDIRECT and not request.is_secure():
                raise HttpsRequired
            await view_class.prepare(request)
        except ApiError as error:
            await drain(receive)
            await send_whole(answer, respond(error, answer.trace))
            return
        await read_body(receive, body)
        await answer_until_gone(request, view, receive, answer)

    async def answer_upload(self, scope: Scope, receive: Receive, answer: Answer, view_class: type[ApiView]) -> None:
        """Who asks is known before a body is read, so that nobody without a right to it fills the disk."""
        request = ASGIRequest(without_body(scope), BytesIO())
        attach(request, answer.trace)
        with ExitStack() as held:
            try:
                async with self.sync_room, ThreadSensitiveContext():
                    team_id = await sync_to_async(view_class.check_caller)(request)
                held.enter_context(self.uploads.held(team_id))
            except Exception as error:  # noqa: BLE001 - answered as any view's own
                await drain(receive)
                await send_whole(answer, respond(error, answer.trace))
                return
            body = held.enter_context(SpooledTemporaryFile(UPLOAD_MEMORY_BYTES))
            await read_body(receive, body, is_file=True)
            await self.answer_with(scope, receive, answer, body)

    async def answer_with(self, scope: Scope, receive: Receive, answer: Answer, body: IO[bytes]) -> None:
        async with self.sync_room:
            await super().__call__(scope, BodyRead(body, receive), answer.send)  # type: ignore[arg-type]

    async def read_body(self, receive: Any) -> Any:
        """Django's hook. The body has been read already."""
        return receive.body

    def create_request(self, scope: Any, body_file: Any) -> Any:
        request, error_response = super().create_request(scope, body_file)
        if request is not None:
            attach(request, scope["trace"])
        return request, error_response


class NoApiView(ApiView):
    """Stands for all that is no view of the API."""


class BodyRead:
    """A `receive` for Django whose body has been read; what comes after it is still to be heard."""

    def __init__(self, body: IO[bytes], receive: Receive) -> None:
        self.body, self.receive = body, receive

    async def __call__(self) -> dict[str, Any]:
        return await self.receive()


@lru_cache(maxsize=256)
def api_view(path: str) -> tuple[type[ApiView], Callable[..., Any]]:
    """The API's view that this path leads to, and how to call it."""
    try:
        match = get_resolver().resolve(path)
    except Resolver404:
        return NoApiView, NoApiView.as_view()
    view_class = getattr(match.func, "view_class", None) or getattr(match.func, "cls", None)
    if view_class is None or not issubclass(view_class, ApiView):
        return NoApiView, NoApiView.as_view()
    return view_class, lambda request: match.func(request, *match.args, **match.kwargs)


def without_body(scope: Scope) -> Scope:
    """The same request as if it had no body, for whoever would look into it."""
    told = (b"content-type", b"content-length", b"transfer-encoding")
    return {**scope, "headers": [(name, value) for name, value in scope["headers"] if name not in told]}


def drop_forged_scheme(scope: Scope) -> None:
    """Only a trusted proxy may say that its client came over HTTPS."""
    if not settings.SECURE_PROXY_SSL_HEADER:
        return
    peer = client_address(scope["client"][0], "") if scope.get("client") else None
    if peer is None or not is_in(peer, trusted_proxies()):
        scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"x-forwarded-proto"]


async def read_body(receive: Receive, body: IO[bytes], *, is_file: bool = False) -> None:
    """The whole body, into a file that is then at its beginning. Raises BodyTooLarge, BodyTooSlow or ClientGone."""
    limit, seconds = settings.API_MAX_BODY_BYTES, settings.API_BODY_SECONDS
    if is_file:
        limit += settings.DATASET_MAX_FILE_BYTES
    began, size = asyncio.get_running_loop().time(), 0
    try:
        async with asyncio.timeout(seconds) as end:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > limit:
                    break
                # A file goes to the disk, which may let one wait; other bodies stay in memory.
                await asyncio.to_thread(body.write, chunk) if is_file else body.write(chunk)
                if not message.get("more_body", False):
                    body.seek(0)
                    return
                if is_file:
                    end.reschedule(began + min(seconds * UPLOAD_PATIENCE, seconds + size / UPLOAD_BYTES_A_SECOND))
    except TimeoutError:
        raise BodyTooSlow from None
    await drain(receive, limit)
    raise BodyTooLarge(f"The body is larger than {limit} bytes.")


async def drain(receive: Receive, limit: int = 0) -> None:
    """Read and drop the rest of a body, within bounds."""
    dropped = 0
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            while dropped < max(DRAIN_BYTES, limit):
                message = await receive()
                dropped += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return


async def answer_until_gone(request: ASGIRequest, view: Any, receive: Receive, answer: Answer) -> None:
    """Run the view and send what it answers; cancel both as soon as the client goes away."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine always runs in one

    def leave() -> None:
        answer.is_gone = True
        task.cancel()

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            continue
        leave()

    watcher = asyncio.create_task(watch())
    answer.when_connection_is_lost(leave)
    answer.trace.abort = answer.abort
    try:
        response = await view(request)
        if isinstance(response, EventStream):
            await send_stream(answer, response)
        else:
            await send_whole(answer, response)
    except asyncio.CancelledError:
        # Ours, because the client went: the request ends here. Any other, the server's own end, goes on.
        if not answer.is_gone or task.uncancel() > 0:
            raise
    finally:
        watcher.cancel()
        answer.forget_connection()


def head(response: HttpResponseBase) -> dict[str, Any]:
    headers = [(name.lower().encode("ascii"), value.encode("latin1")) for name, value in response.items()]
    return {"type": "http.response.start", "status": response.status_code, "headers": headers}


async def send_whole(answer: Answer, response: HttpResponse) -> None:
    content = response.content
    start = head(response)
    start["headers"].append((b"content-length", b"%d" % len(content)))
    await answer.send(start)
    await answer.send({"type": "http.response.body", "body": content, "more_body": False})


async def send_stream(answer: Answer, response: EventStream) -> None:
    """Send each piece as it comes. A comment breaks every silence; a reader that takes nothing is given up."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine always runs in one
    loop = asyncio.get_running_loop()
    began = last_sent = loop.time()
    is_sending = False

    async def send(piece: bytes, more: bool = True) -> None:
        nonlocal is_sending, last_sent
        is_sending, last_sent = True, loop.time()
        await answer.send({"type": "http.response.body", "body": piece, "more_body": more})
        is_sending, last_sent = False, loop.time()

    async def keep_awake() -> None:
        while True:
            # Asleep for no longer than either limit: a send may begin to stall in the meantime.
            limit = min(settings.STREAM_STALL_SECONDS, response.silence_seconds)
            await asyncio.sleep(max(last_sent + limit - loop.time(), 0.05 if not is_sending else 0.5))
            quiet = loop.time() - last_sent
            if is_sending and quiet >= settings.STREAM_STALL_SECONDS:
                break
            # The flow ends a stream that is too old by itself, unless its reader holds it back.
            if loop.time() - began > settings.STREAM_MAX_SECONDS + settings.STREAM_STALL_SECONDS:
                break
            if not is_sending and quiet >= response.silence_seconds:
                try:
                    async with asyncio.timeout(settings.STREAM_STALL_SECONDS):
                        await send(response.comment)
                except TimeoutError:
                    break
        answer.abort()
        task.cancel()

    companion = asyncio.create_task(keep_awake())
    try:
        with metrics.OPEN_STREAMS.track_inprogress():
            async with response.pieces() as pieces:
                await answer.send(head(response))
                async for piece in pieces:
                    await send(piece)
                await send(b"", more=False)
    finally:
        companion.cancel()
