"""One call to an app's provider: whole or streamed, within its time limits, every failure one of two errors."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from django.conf import settings

from apikeys.errors import UpstreamError, UpstreamTimeout
from apikeys.outbound import client
from apikeys.outbound.connections import Response
from chat.completions.app_snapshots import AppSnapshot
from chat.completions.provider_messages import ProviderAnswer, decode_answer
from chat.completions.sse import Decoder

logger = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 8 * 1024 * 1024
# So much is decoded at once: a stream whose reader stalls holds that, and what it decodes to is many times as large.
MAX_PIECE_BYTES = 16 * 1024
# A connection whose answer ends so soon after its last event can be used again.
TAIL_SECONDS = 0.1
DONE = b"[DONE]"


async def complete(app: AppSnapshot, payload: dict[str, Any]) -> ProviderAnswer:
    """Return the provider's whole answer. Raise UpstreamError or UpstreamTimeout."""
    with translate_failures(app):
        deadline = asyncio.get_running_loop().time() + app.total_seconds
        response = await _post(app, payload, deadline, MAX_ANSWER_BYTES)
        answer = decode_answer(response.body())
    if answer.error is not None or not answer.choices or answer.choices[0].message is None:
        raise _failure(app, "no message in its answer")
    return answer


async def stream(app: AppSnapshot, payload: dict[str, Any]) -> AsyncGenerator[list[ProviderAnswer], None]:
    """Yield the chunks of the provider's answer, as many at once as have come. Raise UpstreamError or UpstreamTimeout.

    It ends when the provider has sent that it is done; an answer that merely stops is an error.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + min(app.total_seconds, settings.STREAM_MAX_SECONDS)
    decoder, size, is_finished = Decoder(), 0, False
    with translate_failures(app):
        first_deadline = loop.time() + min(app.first_byte_seconds, app.total_seconds)
        response = await _post(app, payload, first_deadline)
        try:
            piece = await response.read(MAX_PIECE_BYTES, first_deadline)
            while piece:
                size += len(piece)
                if size > MAX_ANSWER_BYTES * 16:
                    raise _failure(app, "an endless answer")
                is_done = has_failed = False
                chunks: list[ProviderAnswer] = []
                for data in decoder.feed(piece):
                    if data == DONE:
                        is_done = True
                        continue
                    chunk = decode_answer(data)
                    if chunk.error is not None:
                        has_failed = True
                        break
                    is_finished = is_finished or has_finish_reason(chunk)
                    chunks.append(chunk)
                if chunks:
                    yield chunks
                if has_failed:
                    raise _failure(app, "an error in its stream")
                if is_done:
                    response.drop_rest(loop.time() + TAIL_SECONDS)
                    return
                now = loop.time()
                if now >= deadline:
                    # Said here, since a time limit never interrupts a read that has its bytes at hand.
                    raise TimeoutError
                piece = await response.read(MAX_PIECE_BYTES, min(now + app.between_chunks_seconds, deadline))
        finally:
            response.release()
    if not is_finished:
        raise _failure(app, "an answer that broke off")


def has_finish_reason(chunk: ProviderAnswer) -> bool:
    return any(choice.finish_reason for choice in chunk.choices or ())


async def _post(app: AppSnapshot, payload: dict[str, Any], deadline: float, max_bytes: int | None = None) -> Response:
    if app.is_secret_lost:
        raise _failure(app, "no secret that ENCRYPTION_KEYS can decrypt")
    response = await client.post(
        f"{app.base_url}/chat/completions",
        body=msgspec.json.encode(payload),
        secret=app.secret,
        connect_seconds=app.connect_seconds,
        deadline=deadline,
        max_bytes=max_bytes,
    )
    content_type = "text/event-stream" if payload["stream"] else "application/json"
    if response.status != 200 or response.content_type != content_type:
        response.release()
        raise _failure(app, f"HTTP {response.status} {response.content_type}")
    return response


@contextmanager
def translate_failures(app: AppSnapshot) -> Iterator[None]:
    """Turn every way in which a provider can fail into UpstreamError or UpstreamTimeout."""
    try:
        yield
    except TimeoutError:
        logger.warning("the provider of app %s timed out", app.app_id)
        raise UpstreamTimeout from None
    except (OSError, ValueError, RecursionError) as error:
        # The class only: the text of other errors may hold what the provider sent.
        raise _failure(app, type(error).__name__) from None


def _failure(app: AppSnapshot, what: str) -> UpstreamError:
    logger.warning("the provider of app %s failed: %s", app.app_id, what)
    return UpstreamError()
