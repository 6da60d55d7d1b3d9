"""Responses on their way out: each carries its request id and CORS headers, and is logged and counted at its end."""

import asyncio
from typing import Any

from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpResponse
from django.http.response import HttpResponseBase

from apikeys.access.endpoints import is_api_path
from apikeys.accounting import refusals
from apikeys.api.streams import EventStream
from apikeys.hot_path.trace import Trace
from fastgpt_site.http import access_log
from fastgpt_site.http.asgi_types import Message, Receive, Scope, Send
from fastgpt_site.http.cors import cors_headers
from fastgpt_site.observability import metrics


class OutgoingResponse:
    """One response on its way out. `send` stands in for the server's own."""

    def __init__(self, scope: Scope, send: Send, trace: Trace) -> None:
        self.scope = scope
        self.trace = trace
        self.is_api = is_api_path(scope["path"])
        self.is_gone = False
        self.status: int | None = None
        self._send = send

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], *self._own_headers()]
        await self._send(message)

    def abort(self) -> None:
        self.is_gone = True
        self.scope["abort"]()

    def _own_headers(self) -> list[tuple[bytes, bytes]]:
        headers = [(b"x-request-id", self.trace.request_id.encode()), *self.trace.headers]
        if self.is_api and settings.CORS_ALLOWED_ORIGINS:
            headers += cors_headers(self.scope)
        return headers

    def end(self) -> None:
        client = access_log.client_of(self.scope)
        access_log.write(self.scope, self.trace, self.status, client, is_api=self.is_api, is_gone=self.is_gone)
        if self.is_api and self.trace.refusal is not None:
            refusals.keep(self.trace, client)
        metrics.observe(self.trace, self.scope["path"], self.status, is_api=self.is_api)


async def serve_until_gone(request: ASGIRequest, view: Any, receive: Receive, outgoing: OutgoingResponse) -> None:
    """Run the view and send its response; cancel both as soon as the client goes away."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine always runs in one

    def leave() -> None:
        outgoing.is_gone = True
        task.cancel()

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            continue
        leave()

    watcher = asyncio.create_task(watch())
    outgoing.trace.abort = outgoing.abort
    try:
        response = await view(request)
        if isinstance(response, EventStream):
            await send_stream(outgoing, response)
        else:
            await send_whole(outgoing, response)
    except asyncio.CancelledError:
        # The watcher cancels when the client goes: the request ends here. A cancellation by the server goes on.
        if not outgoing.is_gone or task.uncancel() > 0:
            raise
    finally:
        watcher.cancel()


def head(response: HttpResponseBase) -> Message:
    headers = [(name.lower().encode("ascii"), value.encode("latin1")) for name, value in response.items()]
    return {"type": "http.response.start", "status": response.status_code, "headers": headers}


async def send_whole(outgoing: OutgoingResponse, response: HttpResponse) -> None:
    content = response.content
    start = head(response)
    start["headers"].append((b"content-length", b"%d" % len(content)))
    await outgoing.send(start)
    await outgoing.send({"type": "http.response.body", "body": content, "more_body": False})


async def send_stream(outgoing: OutgoingResponse, response: EventStream) -> None:
    """Send each piece as it comes, and a comment into every silence. The connection gives up readers that stall."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine always runs in one
    loop = asyncio.get_running_loop()
    began = last_sent = loop.time()
    is_sending = False

    async def send(piece: bytes, more: bool = True) -> None:
        nonlocal is_sending, last_sent
        is_sending = True
        await outgoing.send({"type": "http.response.body", "body": piece, "more_body": more})
        is_sending, last_sent = False, loop.time()

    async def keep_awake() -> None:
        # The flow ends a stream that is too old by itself, unless its reader holds it back.
        while loop.time() - began <= settings.STREAM_MAX_SECONDS + settings.STREAM_STALL_SECONDS:
            quiet = loop.time() - last_sent
            if not is_sending and quiet >= response.silence_seconds:
                await send(response.comment)
            else:
                await asyncio.sleep(max(response.silence_seconds - quiet, 0.5))
        outgoing.abort()
        task.cancel()

    companion = asyncio.create_task(keep_awake())
    try:
        with metrics.OPEN_STREAMS.track_inprogress():
            async with response.pieces() as pieces:
                await outgoing.send(head(response))
                async for piece in pieces:
                    await send(piece)
                await send(b"", more=False)
    finally:
        companion.cancel()
