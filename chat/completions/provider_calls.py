"""One call to an app's provider: whole or streamed, within its time limits, every failure one of a few errors.

An answer is read by what it is, whatever its Content-Type says and whatever was asked for: one object of JSON, or a
stream of events.
"""

import asyncio
import logging
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
from chat.completions import provider_habits
from chat.completions.app_snapshots import AppSnapshot
from chat.completions.provider_answers import (
    FAILED,
    FINISH_REASONS,
    LONGEST_DONE,
    ProviderAnswer,
    decode_answer,
    is_done,
)
from chat.completions.sse import Decoder

logger = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 8 * 1024 * 1024
# So much is decoded at once: a stream whose reader stalls holds that, and what it decodes to is many times as large.
MAX_PIECE_BYTES = 16 * 1024
# A connection whose answer ends so soon after its last event can be used again.
TAIL_SECONDS = 0.1
# A model may have to be asked once more for each of its two habits.
MAX_TRIES = 3


async def complete(app: AppSnapshot, payload: dict[str, Any]) -> list[ProviderAnswer]:
    """Return the provider's whole answer; the chunks of one that came as a stream. Raise ApiError."""
    with translate_failures(app):
        deadline = asyncio.get_running_loop().time() + app.total_seconds
        response = await _post(app, payload, deadline, MAX_ANSWER_BYTES)
        body = response.body()
        if is_json(body):
            return [_check_whole(app, decode_answer(body))]
        # The last event may lack the empty line that ends it.
        events = Decoder().feed(body + b"\n\n")
        answers = [_check(app, decode_answer(data)) for data in events if not is_done(data)]
    if not answers:
        raise _failure(app, f"HTTP {response.status} {response.content_type} without an answer in it")
    if not any(is_done(data) for data in events) and not any(answer.is_finished for answer in answers):
        raise _failure(app, "an answer that broke off")
    return answers


async def stream(app: AppSnapshot, payload: dict[str, Any]) -> AsyncGenerator[list[ProviderAnswer], None]:
    """Yield the chunks of the provider's answer, as many at once as have come; a whole answer as one. Raise ApiError.

    It ends when the provider has sent that it is done; an answer that merely stops is an error.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + min(app.total_seconds, settings.STREAM_MAX_SECONDS)
    decoder, size, is_finished = Decoder(), 0, False
    with translate_failures(app):
        first_deadline = loop.time() + min(app.first_byte_seconds, app.total_seconds)
        response = await _post(app, payload, first_deadline)
        try:
            piece = await _read_lead(response, first_deadline)
            if is_json(piece):
                yield [await _read_whole(app, response, piece, deadline)]
                return
            while piece:
                size += len(piece)
                if size > MAX_ANSWER_BYTES * 16:
                    raise _failure(app, "an endless answer")
                is_ended = False
                failed: ProviderAnswer | None = None
                chunks: list[ProviderAnswer] = []
                for data in decoder.feed(piece):
                    if len(data) <= LONGEST_DONE and is_done(data):
                        is_ended = True
                        continue
                    chunk = decode_answer(data)
                    choices = chunk.choices
                    reason = choices[0].finish_reason if choices else None
                    if chunk.error or (reason is not None and reason in FAILED):
                        failed = chunk
                        break
                    is_finished = is_finished or bool(reason)
                    chunks.append(chunk)
                if chunks:
                    yield chunks
                if failed is not None:
                    _check(app, failed)
                if is_ended:
                    response.drop_rest(loop.time() + TAIL_SECONDS)
                    return
                now = loop.time()
                if now >= deadline:
                    # Said here, since a time limit never interrupts a read that has its bytes at hand.
                    raise TimeoutError
                piece = await response.read(MAX_PIECE_BYTES, min(now + app.between_chunks_seconds, deadline))
        finally:
            response.release()
    if not size:
        raise _failure(app, f"HTTP {response.status} {response.content_type} without an answer in it")
    if not is_finished:
        raise _failure(app, "an answer that broke off")


async def _read_lead(response: Response, deadline: float) -> bytes:
    """Read until it can be told what the body is: past blanks and a byte order mark."""
    lead = b""
    while not lead.removeprefix(BYTE_ORDER_MARK).strip() or BYTE_ORDER_MARK.startswith(lead):
        piece = await response.read(MAX_PIECE_BYTES, deadline)
        if not piece or len(lead) > MAX_PIECE_BYTES:
            break
        lead += piece
    return lead


async def _read_whole(app: AppSnapshot, response: Response, lead: bytes, deadline: float) -> ProviderAnswer:
    """Read an answer that did not come as a stream."""
    body = bytearray(lead)
    while piece := await response.read(MAX_PIECE_BYTES, deadline):
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            raise _failure(app, "an endless answer")
    return _check_whole(app, decode_answer(bytes(body)))


def _check_whole(app: AppSnapshot, answer: ProviderAnswer) -> ProviderAnswer:
    choices = answer.choices
    if not answer.error and choices and choices[0].message is not None and choices[0].finish_reason in FINISH_REASONS:
        # Most end here.
        return answer
    if not _check(app, answer).has_message:
        raise _failure(app, "no message in its answer")
    return answer


def _check(app: AppSnapshot, answer: ProviderAnswer) -> ProviderAnswer:
    """Return an answer that says of no failure. Raise ApiError."""
    if not answer.has_failed:
        return answer
    raise _log(app, error_of(failure_in(answer.error, secret=app.secret, base_url=app.base_url)))


async def _post(app: AppSnapshot, payload: dict[str, Any], deadline: float, max_bytes: int | None = None) -> Response:
    """Ask as the model is known to be asked; once more if its refusal names what it does not take. Raise ApiError."""
    if app.is_secret_lost:
        raise _failure(app, "no secret that ENCRYPTION_KEYS can decrypt")
    known = habits = provider_habits.habits_of(app.base_url, app.model)
    for _ in range(MAX_TRIES):
        response = await client.post(
            f"{app.base_url}/chat/completions",
            body=msgspec.json.encode(habits.apply(payload)),
            secret=app.secret,
            connect_seconds=app.connect_seconds,
            deadline=deadline,
            max_bytes=max_bytes,
        )
        if response.is_success:
            if habits is not known:
                provider_habits.remember(app.base_url, app.model, habits)
            return response
        refusal = await read_refusal(response, deadline)
        learned = habits.learn(response.status, refusal, payload)
        if learned is None:
            break
        habits = learned
    failure = failure_of(response.status, refusal, secret=app.secret, base_url=app.base_url)
    raise _log(app, error_of(failure, response.retry_after))


@contextmanager
def translate_failures(app: AppSnapshot) -> Iterator[None]:
    """Turn every way in which a call can fail into an ApiError that says what failed."""
    try:
        yield
    except TimeoutError:
        error = UpstreamTimeout()
        error.failure = Failure("no answer in time")
        raise _log(app, error) from None
    except (OSError, ValueError, RecursionError) as error:
        # The class only: the text of other errors may hold what the provider sent.
        raise _failure(app, type(error).__name__) from None


def _failure(app: AppSnapshot, what: str) -> ApiError:
    error = UpstreamError()
    error.failure = Failure(what)
    return _log(app, error)


def _log(app: AppSnapshot, error: ApiError) -> ApiError:
    logger.warning("the provider of app %s failed: %s", app.app_id, error.failure)
    return error
