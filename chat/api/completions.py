"""`POST v1/chat/completions`: a question to an app, answered whole or as a stream."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any, Protocol

import msgspec

from apikeys.access.declarations import APP, GLOBAL_NAMING_APP, ApiCredential
from apikeys.accounting.metered import Caller, count_refused
from apikeys.api.answers import Answer, EventStream
from apikeys.api.limit_headers import limit_headers
from apikeys.api.views import AsyncApiView
from apikeys.errors import ApiError, BodyTooLarge, InternalError, InvalidParameter
from apikeys.hot_path.in_flight import InFlight
from apikeys.hot_path.listener import listener
from apikeys.hot_path.request import AsyncRequest
from apikeys.hot_path.trace import Trace
from chat.completions import openai_objects
from chat.completions import request as payloads
from chat.completions.app_selection import select_app
from chat.completions.app_snapshots import AppSnapshot
from chat.completions.choices import ChoicePiece, Piece
from chat.completions.completion import Completion
from chat.completions.fastgpt_steps import response_data
from chat.completions.request import CompletionRequest
from chat.completions.stream_format import StreamFormat

logger = logging.getLogger(__name__)

# Headers wait for the provider's first byte, so that a failure has its true status; but not longer than this.
HEADER_PATIENCE_SECONDS = 10.0
# They are decoded one at a time: each takes all of the interpreter for some milliseconds.
large_bodies = ThreadPoolExecutor(1, "large-bodies")


class StreamForm(Protocol):
    """A streamed completion as bytes. `pieces` is never empty: what it leaves out, a comment stands for."""

    def opening(self) -> bytes: ...
    def steps(self) -> bytes: ...
    def pieces(self, pieces: Sequence[Piece | ChoicePiece]) -> bytes: ...
    def end(self) -> bytes: ...
    def error(self, error: ApiError) -> bytes: ...


class CompletionsView(AsyncApiView):
    endpoint = "chat.completions"
    api_key_access = frozenset({APP, GLOBAL_NAMING_APP})
    staff_permission = None
    max_body_setting = "COMPLETIONS_MAX_BODY_BYTES"

    # An endpoint whose completions have another form says so in these four.
    parse_request: Callable[[bytes], CompletionRequest] = staticmethod(payloads.parse_request)
    completion_class: type[Completion] = Completion
    stream_form: Callable[[Completion], StreamForm] = StreamFormat

    @staticmethod
    def build_body(completion: Completion) -> dict[str, Any]:
        return build_body(completion)

    async def parse_large(self, request: AsyncRequest) -> CompletionRequest:
        """Decode a body in a thread, and drop it, so that what is large of it stays in memory once."""
        raw, request.body = request.body, b""
        return await asyncio.get_running_loop().run_in_executor(large_bodies, self.parse_request, raw)

    async def post(self, request: AsyncRequest) -> Answer | EventStream:
        credential: ApiCredential = request.auth  # type: ignore[assignment]
        trace = request.trace
        caller = Caller(trace, credential.policy, self.endpoint)
        size = len(request.body)
        try:
            is_quick = size <= payloads.QUICK_BYTES
            body = self.parse_request(request.body) if is_quick else await self.parse_large(request)
        except (InvalidParameter, BodyTooLarge) as error:
            await count_refused(caller, size, error)
            raise
        flight = InFlight(credential.policy.key_id, trace.reader)
        is_streaming = False
        try:
            app = await self.select_app(credential, body, flight)
            completion = self.completion_class(body, app, caller=caller, flight=flight)
            await completion.prepare()
            response = await self.respond(completion, trace)
            is_streaming = isinstance(response, EventStream)
        finally:
            if not is_streaming:
                flight.close()
        return response

    @staticmethod
    async def select_app(credential: ApiCredential, body: CompletionRequest, flight: InFlight) -> AppSnapshot:
        # The app is looked up as it is now: had it changed meanwhile, a termination could have missed this request.
        while True:
            generation = listener.generation
            app = await select_app(credential, app_id=body.appId, model=body.model)
            flight.app_id = app.app_id
            # A silent listener tells of no change; what it has was just read from the database then.
            if generation == listener.generation:
                return app

    async def respond(self, completion: Completion, trace: Trace) -> Answer | EventStream:
        try:
            if completion.request.stream:
                return await start_stream(completion, trace, self.stream_form)
            await completion.answer()
        finally:
            if trace.decision is not None:
                trace.headers += limit_headers(trace.decision)
        return Answer(msgspec.json.encode(self.build_body(completion)))


def build_body(completion: Completion) -> dict[str, Any]:
    body = openai_objects.completion(
        id=completion.id,
        created=completion.created,
        model=completion.app.model,
        message=completion.message,
        finish_reason=completion.finish_reason,
        usage=completion.usage,
    )
    if completion.choices is not None:
        body["choices"] = completion.choices.bodies()
    if completion.request.detail:
        body |= {"responseData": response_data(completion), "newVariables": completion.variables}
    return body


async def start_stream(
    completion: Completion, trace: Trace, stream_form: Callable[[Completion], StreamForm] = StreamFormat
) -> EventStream:
    """Return the stream with its first piece, or with a comment when that is long in coming. Raise ApiError before."""
    pieces = completion.stream()
    first = asyncio.ensure_future(anext(pieces, None))
    try:
        await asyncio.wait({first}, timeout=HEADER_PATIENCE_SECONDS)
        if first.done() and first.exception() is not None:
            await first
        source = stream_events(completion, trace, stream_form(completion), first, pieces)
        return EventStream(await anext(source), source)
    except asyncio.CancelledError:
        await cancel_and_wait(first)
        await pieces.aclose()
        raise


async def cancel_and_wait(future: asyncio.Future[Any]) -> None:
    # A generator that still runs cannot be closed.
    if not future.done():
        future.cancel()
        await asyncio.wait({future})


async def stream_events(
    completion: Completion,
    trace: Trace,
    form: StreamForm,
    first: asyncio.Future[Sequence[Piece | ChoicePiece] | None],
    pieces: AsyncGenerator[Sequence[Piece | ChoicePiece], None],
) -> AsyncGenerator[bytes, None]:
    # An error from here on is an event too, the last one.
    async with aclosing(pieces):
        try:
            if not first.done():
                yield EventStream.COMMENT + form.steps()
            opening = await first
            yield form.opening() + form.pieces(opening or [])
            async for more in pieces:
                yield form.pieces(more)
            yield form.end()
        except ApiError as error:
            trace.error_code = error.error_code
            yield form.error(error)
        except Exception:
            logger.exception("request %s failed in its stream", trace.request_id)
            trace.error_code = InternalError.error_code
            yield form.error(InternalError(trace.request_id))
        finally:
            completion.flight.close()
            await cancel_and_wait(first)
