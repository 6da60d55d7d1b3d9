"""One call to a model's providers: whole or streamed, within their time limits, every failure one of a few errors.

An answer is read by what it is, whatever its Content-Type says and whatever was asked for: one object of JSON, or a
stream of events.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from django.conf import settings

from apikeys.errors import ApiError, UpstreamError, UpstreamTimeout
from apikeys.outbound import client
from apikeys.outbound.connections import Response
from apikeys.outbound.error_answers import Failure, error_of, failure_in, failure_of, read_refusal
from apikeys.outbound.json_bodies import BYTE_ORDER_MARK, is_json
from chat.completions.provider_answers import (
    FAILED,
    FINISH_REASONS,
    LONGEST_DONE,
    ProviderAnswer,
    decode_answer,
    is_done,
)
from chat.completions.sse import Decoder
from chat.routing import circuits, habits
from chat.routing.entries import CatalogEntry, Route
from chat.routing.failover import Attempt, ask_routes, describe, is_the_caller_s

logger = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 8 * 1024 * 1024
# So much is decoded at once: a stream whose reader stalls holds that, and what it decodes to is many times as large.
MAX_PIECE_BYTES = 16 * 1024
# A connection whose answer ends so soon after its last event can be used again.
TAIL_SECONDS = 0.1
# A model may have to be asked once more for each of its two habits.
MAX_TRIES = 3


async def complete(
    entry: CatalogEntry, payload: dict[str, Any], attempts: list[Attempt] | None
) -> list[ProviderAnswer]:
    """Return a whole answer; the chunks of one that came as a stream. Raise ApiError.

    `attempts`, which is there where the model has several routes, is told of each that was tried.
    """
    route, answers = await ask_routes(entry, payload, attempts, _complete)
    if attempts is not None:
        circuits.succeed(route.id)
    return answers


async def _complete(route: Route, payload: dict[str, Any]) -> list[ProviderAnswer]:
    with translate_failures(route):
        deadline = asyncio.get_running_loop().time() + route.service.total_seconds
        response = await _post(route, payload, deadline, MAX_ANSWER_BYTES)
        body = response.body()
        if is_json(body):
            return [_check_whole(route, decode_answer(body))]
        # The last event may lack the empty line that ends it.
        events = Decoder().feed(body + b"\n\n")
        answers = [_check(route, decode_answer(data)) for data in events if not is_done(data)]
    if not answers:
        raise _failure(route, f"HTTP {response.status} {response.content_type} without an answer in it")
    if not any(is_done(data) for data in events) and not any(answer.is_finished for answer in answers):
        raise _failure(route, "an answer that broke off")
    return answers


async def stream(
    entry: CatalogEntry, payload: dict[str, Any], attempts: list[Attempt] | None
) -> AsyncGenerator[list[ProviderAnswer], None]:
    """Yield the chunks of an answer, as many at once as have come; a whole answer as one. Raise ApiError.

    It ends when the provider has sent that it is done; an answer that merely stops is an error. As in `complete`, the
    next route is tried where one fails, but not once anything of an answer has come.
    """
    route, answer = await ask_routes(entry, payload, attempts, _open)
    try:
        with translate_failures(route):
            chunks = answer.chunks
            while True:
                if chunks:
                    yield chunks
                answer.check()
                if answer.has_ended:
                    break
                chunks = await answer.read()
        if attempts is not None:
            circuits.succeed(route.id)
    except ApiError as error:
        if attempts is not None:
            attempts[-1] = describe(route, answer.started, error)
            if is_the_caller_s(error) or answer.has_run_out:
                circuits.succeed(route.id)
            else:
                circuits.fail(route.id, str(error.failure))
        raise
    finally:
        answer.close()


class StreamedAnswer:
    """A provider's answer as it comes in."""

    __slots__ = (
        *("_deadline", "_decoder", "_failed", "_has_finished", "_response", "_size"),
        *("chunks", "has_ended", "has_run_out", "route", "started"),
    )

    def __init__(self, route: Route, response: Response, deadline: float) -> None:
        self.route = route
        self.started = time.monotonic()
        # Those that have come with the first.
        self.chunks: list[ProviderAnswer] = []
        self.has_ended = False
        # Whether it took longer than an answer may take.
        self.has_run_out = False
        self._response = response
        self._deadline = deadline
        self._decoder = Decoder()
        self._size = 0
        self._has_finished = False
        self._failed: ProviderAnswer | None = None

    async def begin(self, deadline: float) -> None:
        """Read until the first chunk is here. Raise ApiError where it says of a failure."""
        piece = await _read_lead(self._response, deadline)
        if is_json(piece):
            self.chunks = [await _read_whole(self.route, self._response, piece, self._deadline)]
            self.has_ended = True
            return
        while True:
            self.chunks = self._feed(piece)
            if self.chunks or self.has_ended:
                return
            self.check()
            piece = await self._response.read(MAX_PIECE_BYTES, deadline)

    async def read(self) -> list[ProviderAnswer]:
        """Return the chunks of what comes next."""
        now = asyncio.get_running_loop().time()
        if now >= self._deadline:
            # Said here, since a time limit never interrupts a read that has its bytes at hand.
            self.has_run_out = True
            raise TimeoutError
        deadline = min(now + self.route.between_chunks_seconds, self._deadline)
        return self._feed(await self._response.read(MAX_PIECE_BYTES, deadline))

    def check(self) -> None:
        """Raise ApiError if the answer has said of a failure."""
        if self._failed is not None:
            _check(self.route, self._failed)

    def close(self) -> None:
        self._response.release()

    def _feed(self, piece: bytes) -> list[ProviderAnswer]:
        if not piece:
            self._end()
            return []
        self._size += len(piece)
        if self._size > MAX_ANSWER_BYTES * 16:
            raise _failure(self.route, "an endless answer")
        is_done_said = False
        chunks: list[ProviderAnswer] = []
        for data in self._decoder.feed(piece):
            if len(data) <= LONGEST_DONE and is_done(data):
                is_done_said = True
                continue
            chunk = decode_answer(data)
            choices = chunk.choices
            reason = choices[0].finish_reason if choices else None
            if chunk.error or (reason is not None and reason in FAILED):
                self._failed = chunk
                return chunks
            self._has_finished = self._has_finished or bool(reason)
            chunks.append(chunk)
        if is_done_said:
            self._response.drop_rest(asyncio.get_running_loop().time() + TAIL_SECONDS)
            self.has_ended = True
        return chunks

    def _end(self) -> None:
        response = self._response
        if not self._size:
            raise _failure(self.route, f"HTTP {response.status} {response.content_type} without an answer in it")
        if not self._has_finished:
            raise _failure(self.route, "an answer that broke off")
        self.has_ended = True


async def _open(route: Route, payload: dict[str, Any]) -> StreamedAnswer:
    """Return an answer of which the first chunk has come, or all where it did not come as a stream."""
    service = route.service
    with translate_failures(route):
        now = asyncio.get_running_loop().time()
        first_deadline = now + min(route.first_byte_seconds, service.total_seconds)
        response = await _post(route, payload, first_deadline)
        answer = StreamedAnswer(route, response, now + min(service.total_seconds, settings.STREAM_MAX_SECONDS))
        try:
            await answer.begin(first_deadline)
        except BaseException:
            response.release()
            raise
    return answer


async def _read_lead(response: Response, deadline: float) -> bytes:
    """Read until it can be told what the body is: past blanks and a byte order mark."""
    lead = b""
    while not lead.removeprefix(BYTE_ORDER_MARK).strip() or BYTE_ORDER_MARK.startswith(lead):
        piece = await response.read(MAX_PIECE_BYTES, deadline)
        if not piece or len(lead) > MAX_PIECE_BYTES:
            break
        lead += piece
    return lead


async def _read_whole(route: Route, response: Response, lead: bytes, deadline: float) -> ProviderAnswer:
    """Read an answer that did not come as a stream."""
    body = bytearray(lead)
    while piece := await response.read(MAX_PIECE_BYTES, deadline):
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            raise _failure(route, "an endless answer")
    return _check_whole(route, decode_answer(bytes(body)))


def _check_whole(route: Route, answer: ProviderAnswer) -> ProviderAnswer:
    choices = answer.choices
    if not answer.error and choices and choices[0].message is not None and choices[0].finish_reason in FINISH_REASONS:
        # Most end here.
        return answer
    if not _check(route, answer).has_message:
        raise _failure(route, "no message in its answer")
    return answer


def _check(route: Route, answer: ProviderAnswer) -> ProviderAnswer:
    """Return an answer that says of no failure. Raise ApiError."""
    if not answer.has_failed:
        return answer
    service = route.service
    raise _log(route, error_of(failure_in(answer.error, hidden=service.credentials.hidden, base_url=service.base_url)))


async def _post(route: Route, payload: dict[str, Any], deadline: float, max_bytes: int | None = None) -> Response:
    """Ask as the model is known to be asked; once more if its refusal names what it does not take. Raise ApiError."""
    service = route.service
    if service.is_secret_lost:
        raise _failure(route, "no secret that ENCRYPTION_KEYS can decrypt")
    payload["model"] = route.model
    known = model_habits = habits.habits_of(service.base_url, route.model, route.habits)
    for _ in range(MAX_TRIES):
        response = await client.post(
            service.url("chat/completions"),
            body=msgspec.json.encode(model_habits.apply(payload)),
            credentials=service.credentials.head(),
            connect_seconds=service.connect_seconds,
            deadline=deadline,
            max_bytes=max_bytes,
        )
        if response.is_success:
            if model_habits is not known:
                habits.remember(service.base_url, route.model, model_habits)
            return response
        refusal = await read_refusal(response, deadline)
        learned = model_habits.learn(response.status, refusal, payload)
        if learned is None:
            break
        model_habits = learned
    failure = failure_of(response.status, refusal, hidden=service.credentials.hidden, base_url=service.base_url)
    raise _log(route, error_of(failure, response.retry_after))


@contextmanager
def translate_failures(route: Route) -> Iterator[None]:
    """Turn every way in which a call can fail into an ApiError that says what failed."""
    try:
        yield
    except TimeoutError:
        error = UpstreamTimeout()
        error.failure = Failure("no answer in time")
        raise _log(route, error) from None
    except (OSError, ValueError, RecursionError) as error:
        # The class only: the text of other errors may hold what the provider sent.
        raise _failure(route, type(error).__name__) from None


def _failure(route: Route, what: str) -> ApiError:
    error = UpstreamError()
    error.failure = Failure(what)
    return _log(route, error)


def _log(route: Route, error: ApiError) -> ApiError:
    logger.warning("the provider %s of the model %s failed: %s", route.provider, route.model, error.failure)
    return error
