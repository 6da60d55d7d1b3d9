"""Vectors of texts: from a provider's endpoint in OpenAI's form, or from the static model of this process."""

import asyncio
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import msgspec

from datasets import static_model
from datasets.provider_models import ProviderModel

# Texts in one call of a provider.
BATCH = 64
# pgvector's own bound for a column.
MAX_DIMENSION = 16_000
# The static model works in one thread of its own, so that it holds up no event loop. It uses no database.
_thread = ThreadPoolExecutor(1, "static-model")


class _Embedding(msgspec.Struct):
    index: int
    embedding: list[float]


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None


class _Answer(msgspec.Struct):
    data: list[_Embedding]
    usage: _Usage | None = None


@dataclass(frozen=True, slots=True)
class Embedded:
    """A vector of length 1 for each text, of zeros where there is nothing to say; and what the provider charged."""

    vectors: list[list[float]]
    prompt_tokens: int | None = None


_answers = msgspec.json.Decoder(_Answer)


async def embed(model: ProviderModel, texts: Sequence[str]) -> Embedded:
    """Embed any number of texts, all in one space. Raises UpstreamError, of it TextsRefused, or UpstreamTimeout."""
    if model.is_static:
        loop = asyncio.get_running_loop()
        vectors = await loop.run_in_executor(_thread, static_model.embed, texts)
        return Embedded([normed(vector) for vector in vectors])
    found: list[list[float]] = []
    tokens: int | None = 0
    for start in range(0, len(texts), BATCH):
        part = await _ask(model, texts[start : start + BATCH])
        found += part.vectors
        tokens = None if tokens is None or part.prompt_tokens is None else tokens + part.prompt_tokens
    if len({len(vector) for vector in found}) > 1:
        raise model.failure("vectors of several dimensions")
    return Embedded(found, tokens)


def normed(vector: list[float]) -> list[float]:
    length = math.hypot(*vector)
    return vector if length == 0 else [number / length for number in vector]


async def _ask(model: ProviderModel, texts: Sequence[str]) -> Embedded:
    body = {"model": model.name, "input": list(texts), "encoding_format": "float"}
    answer = await model.ask("embeddings", body, _answers)
    tokens = None if answer.usage is None else answer.usage.prompt_tokens
    return Embedded(_checked(model, answer, len(texts)), tokens)


def _checked(model: ProviderModel, answer: _Answer, count: int) -> list[list[float]]:
    """In the order of the texts: one for each, all of one dimension, of finite numbers, none of length 0."""
    by_index = {one.index: one.embedding for one in answer.data}
    if len(answer.data) != count or by_index.keys() != set(range(count)):
        raise model.refusal(f"{len(answer.data)} vectors for {count} texts")
    vectors = [by_index[index] for index in range(count)]
    dimensions = {len(vector) for vector in vectors}
    if len(dimensions) != 1 or not 0 < min(dimensions) <= MAX_DIMENSION:
        raise model.refusal("vectors of a wrong dimension")
    for vector in vectors:
        length = math.hypot(*vector)
        if not math.isfinite(length) or length == 0:
            raise model.refusal("a vector without a direction")
    return [normed(vector) for vector in vectors]
