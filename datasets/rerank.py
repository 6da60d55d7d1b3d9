"""What was found, judged anew by a provider's reranker: the endpoint that Jina, Cohere and others have."""

import asyncio
import logging
import math
from collections.abc import Sequence

import aiohttp
import msgspec

from apikeys import outbound
from apikeys.errors import UpstreamError, UpstreamTimeout
from datasets.embeddings import EmbeddingModel

logger = logging.getLogger(__name__)

# Some answer with the documents too.
MAX_ANSWER_BYTES = 16 * 1024 * 1024


class _Result(msgspec.Struct):
    index: int
    relevance_score: float


class _Answer(msgspec.Struct):
    results: list[_Result]


_answers = msgspec.json.Decoder(_Answer)


async def rerank(model: EmbeddingModel, query: str, documents: Sequence[str]) -> list[float]:
    """How relevant each document is, in their order. Raises UpstreamError or UpstreamTimeout."""
    if not documents:
        return []
    if model.is_secret_lost:
        raise _failure(model, "no secret that ENCRYPTION_KEYS can decrypt")
    headers = {"Content-Type": "application/json"}
    if model.secret is not None:
        headers["Authorization"] = f"Bearer {model.secret}"
    body = msgspec.json.encode({"model": model.name, "query": query, "documents": list(documents)})
    try:
        async with asyncio.timeout(model.total_seconds):
            response = await outbound.post(
                f"{model.base_url}/rerank", body=body, headers=headers, connect_seconds=model.connect_seconds
            )
            try:
                if response.status != 200 or response.content_type != "application/json":
                    raise _failure(model, f"HTTP {response.status} {response.content_type}")
                answer = _answers.decode(await outbound.read(response, MAX_ANSWER_BYTES))
            finally:
                response.release()
    except TimeoutError:
        logger.warning("the reranker %s timed out", model.name)
        raise UpstreamTimeout from None
    except (aiohttp.ClientError, OSError, ValueError, RecursionError) as error:
        # The class only: the text of these errors names the provider's address.
        raise _failure(model, type(error).__name__) from None
    return _checked(model, answer, len(documents))


def _checked(model: EmbeddingModel, answer: _Answer, count: int) -> list[float]:
    scores = {result.index: result.relevance_score for result in answer.results}
    if len(answer.results) != count or scores.keys() != set(range(count)):
        raise _failure(model, f"{len(answer.results)} scores for {count} documents")
    if not all(math.isfinite(score) for score in scores.values()):
        raise _failure(model, "a score that is no number")
    return [scores[index] for index in range(count)]


def _failure(model: EmbeddingModel, what: str) -> UpstreamError:
    logger.warning("the reranker %s failed: %s", model.name, what)
    return UpstreamError("The provider of the reranker failed.")
