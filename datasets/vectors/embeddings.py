"""Vectors of texts: from a provider's endpoint in OpenAI's form, or from the static model of this process."""

import asyncio
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from apikeys.errors import ServiceUnavailable
from apikeys.outbound.error_answers import Failure
from datasets.texts import token_counts
from datasets.vectors import static_model
from datasets.vectors.provider_models import ProviderModel

Result = TypeVar("Result")

# One call of a provider has at most so many texts.
BATCH = 64
# pgvector's column takes no vectors of more numbers.
MAX_DIMENSION = 16_000
# The static model works in one thread of its own, so that it holds up no event loop. It uses no database.
_thread = ThreadPoolExecutor(1, "static-model")
# It takes at most BATCH texts at a time, and of longer texts not many more characters than these: some 20 milliseconds,
# after which others have their turn. Each caller waits with one slice; when so many wait, more are refused.
SLICE_CHARACTERS = 32_768
MAXIMUM_WAITING = 256
_places = threading.BoundedSemaphore(MAXIMUM_WAITING)


class _Embedding(msgspec.Struct):
    index: int
    embedding: list[float]


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None


class _EmbeddingsBody(msgspec.Struct):
    data: list[_Embedding]
    usage: _Usage | None = None


@dataclass(frozen=True, slots=True)
class Embedded:
    """A vector of length 1 for each text, of zeros where there is nothing to say; and what the provider charged."""

    vectors: list[list[float]]
    prompt_tokens: int | None = None


_decoder = msgspec.json.Decoder(_EmbeddingsBody)


async def embed(model: ProviderModel, texts: Sequence[str]) -> Embedded:
    """Embed any number of texts, all in one space. Raise UpstreamError, its subclass TextsRefused, or UpstreamTimeout.

    The static model raises ServiceUnavailable when too many wait for it.
    """
    if model.is_static:
        return Embedded(await _run_in_turn(_static_vectors, texts))
    found: list[list[float]] = []
    tokens: int | None = 0
    for start in range(0, len(texts), BATCH):
        part = await ask_provider(model, texts[start : start + BATCH])
        found += part.vectors
        tokens = None if tokens is None or part.prompt_tokens is None else tokens + part.prompt_tokens
    if len({len(vector) for vector in found}) > 1:
        raise model.failure(Failure("vectors of several dimensions"))
    return Embedded(found, tokens)


async def count_tokens(texts: Sequence[str]) -> list[int]:
    """Count as `token_counts` does, off the event loop. Raise ServiceUnavailable when too many wait."""
    return await _run_in_turn(token_counts, texts)


async def _run_in_turn(work: Callable[[Sequence[str]], list[Result]], texts: Sequence[str]) -> list[Result]:
    made: list[Result] = []
    for part in _slices(texts):
        if not _places.acquire(blocking=False):
            raise ServiceUnavailable
        future = _thread.submit(work, part)
        future.add_done_callback(lambda _: _places.release())
        part_made: list[Result] = await asyncio.wrap_future(future)
        made += part_made
    return made


def _slices(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    start = characters = 0
    for end, text in enumerate(texts):
        if end > start and (end - start == BATCH or characters + len(text) > SLICE_CHARACTERS):
            yield texts[start:end]
            start, characters = end, 0
        characters += len(text)
    if start < len(texts):
        yield texts[start:]


def _static_vectors(texts: Sequence[str]) -> list[list[float]]:
    return [normalize(vector) for vector in static_model.embed(texts)]


def normalize(vector: list[float]) -> list[float]:
    length = math.hypot(*vector)
    return vector if length == 0 else [number / length for number in vector]


async def ask_provider(
    model: ProviderModel, texts: Sequence[str | msgspec.Raw], dimensions: int | None = None
) -> Embedded:
    """Embed at most BATCH texts in one call; those that are Raw are JSON that the provider gets as it is.

    Raise UpstreamError, its subclass TextsRefused, or UpstreamTimeout.
    """
    body: dict[str, Any] = {"model": model.name, "input": list(texts), "encoding_format": "float"}
    if dimensions is not None:
        body["dimensions"] = dimensions
    answer = await model.ask("embeddings", body, _decoder)
    tokens = None if answer.usage is None else answer.usage.prompt_tokens
    return Embedded(_vectors_of(model, answer, len(texts)), tokens)


def _vectors_of(model: ProviderModel, answer: _EmbeddingsBody, count: int) -> list[list[float]]:
    """Return one vector for each text, in order. Raise TextsRefused unless all are finite, of one dimension, not 0."""
    by_index = {one.index: one.embedding for one in answer.data}
    if len(answer.data) != count or by_index.keys() != set(range(count)):
        raise model.refusal(Failure(f"{len(answer.data)} vectors for {count} texts"))
    vectors = [by_index[index] for index in range(count)]
    dimensions = {len(vector) for vector in vectors}
    if len(dimensions) != 1 or not 0 < min(dimensions) <= MAX_DIMENSION:
        raise model.refusal(Failure("vectors of a wrong dimension"))
    for vector in vectors:
        length = math.hypot(*vector)
        if not math.isfinite(length) or length == 0:
            raise model.refusal(Failure("a vector without a direction"))
    return [normalize(vector) for vector in vectors]
