"""Vectors of texts: from a provider's endpoint in OpenAI's form, or from the static model of this process."""

import asyncio
import logging
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec

from apikeys import encryption, outbound
from apikeys.errors import UpstreamError, UpstreamTimeout
from datasets import static_model

logger = logging.getLogger(__name__)

# Texts in one call of a provider.
BATCH = 64
# Of an answer to one call: 64 vectors of 4,096 numbers, written out.
MAX_ANSWER_BYTES = 16 * 1024 * 1024
# Answers of a provider that may be for the sake of one text: what it says of others says nothing of these.
OF_TEXTS = frozenset({400, 413, 422, 500})
# pgvector's own bound for a column.
MAX_DIMENSION = 16_000
# The static model works in one thread of its own, so that it holds up no event loop. It uses no database.
_thread = ThreadPoolExecutor(1, "static-model")


class TextsRefused(UpstreamError):
    """The provider answered, and not with vectors of these texts. It may have them of others."""

    message = "The provider of embeddings refused a text."


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """Who makes vectors, and how. Without a URL it is the static model."""

    name: str
    base_url: str | None = None
    # None when there is no secret; a secret that cannot be decrypted must not be mistaken for that.
    secret: str | None = field(default=None, repr=False)
    is_secret_lost: bool = False
    connect_seconds: int = 5
    total_seconds: int = 60

    @classmethod
    def of(cls, provider: Any, name: str) -> "EmbeddingModel":
        """Of a `chat.Provider`, or of none."""
        if provider is None:
            return cls(static_model.STATIC_MODEL)
        secret, is_lost = None, False
        if provider.encrypted_secret is not None:
            try:
                secret = encryption.unseal(provider.encrypted_secret, provider.base_url)
            except encryption.DecryptionError:
                is_lost = True
        return cls(name, provider.base_url, secret, is_lost, provider.connect_seconds, provider.total_seconds)

    @property
    def is_static(self) -> bool:
        return self.base_url is None


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


async def embed(model: EmbeddingModel, texts: Sequence[str]) -> Embedded:
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
        raise _failure(model, "vectors of several dimensions")
    return Embedded(found, tokens)


def normed(vector: list[float]) -> list[float]:
    length = math.hypot(*vector)
    return vector if length == 0 else [number / length for number in vector]


async def _ask(model: EmbeddingModel, texts: Sequence[str]) -> Embedded:
    if model.is_secret_lost:
        raise _failure(model, "no secret that ENCRYPTION_KEYS can decrypt")
    headers = {"Content-Type": "application/json"}
    if model.secret is not None:
        headers["Authorization"] = f"Bearer {model.secret}"
    body = msgspec.json.encode({"model": model.name, "input": list(texts), "encoding_format": "float"})
    try:
        async with asyncio.timeout(model.total_seconds):
            response = await outbound.post(
                f"{model.base_url}/embeddings", body=body, headers=headers, connect_seconds=model.connect_seconds
            )
            try:
                if response.status in OF_TEXTS:
                    raise _refusal(model, f"HTTP {response.status}")
                if response.status != 200 or response.content_type != "application/json":
                    raise _failure(model, f"HTTP {response.status} {response.content_type}")
                answer = _answers.decode(await outbound.read(response, MAX_ANSWER_BYTES))
            finally:
                response.release()
    except TimeoutError:
        logger.warning("the provider of embeddings %s timed out", model.name)
        raise UpstreamTimeout from None
    except (msgspec.DecodeError, RecursionError):
        raise _refusal(model, "an answer without vectors") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        # The class only: the text of these errors names the provider's address.
        raise _failure(model, type(error).__name__) from None
    tokens = None if answer.usage is None else answer.usage.prompt_tokens
    return Embedded(_checked(model, answer, len(texts)), tokens)


def _checked(model: EmbeddingModel, answer: _Answer, count: int) -> list[list[float]]:
    """In the order of the texts: one for each, all of one dimension, of finite numbers, none of length 0."""
    by_index = {one.index: one.embedding for one in answer.data}
    if len(answer.data) != count or by_index.keys() != set(range(count)):
        raise _refusal(model, f"{len(answer.data)} vectors for {count} texts")
    vectors = [by_index[index] for index in range(count)]
    dimensions = {len(vector) for vector in vectors}
    if len(dimensions) != 1 or not 0 < min(dimensions) <= MAX_DIMENSION:
        raise _refusal(model, "vectors of a wrong dimension")
    for vector in vectors:
        length = math.hypot(*vector)
        if not math.isfinite(length) or length == 0:
            raise _refusal(model, "a vector without a direction")
    return [normed(vector) for vector in vectors]


def _failure(model: EmbeddingModel, what: str) -> UpstreamError:
    logger.warning("the provider of embeddings %s failed: %s", model.name, what)
    return UpstreamError("The provider of embeddings failed.")


def _refusal(model: EmbeddingModel, what: str) -> TextsRefused:
    logger.warning("the provider of embeddings %s refused texts: %s", model.name, what)
    return TextsRefused(f"The provider of embeddings refused a text: {what}.")
