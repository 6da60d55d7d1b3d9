"""Reranking by a provider: the endpoint that Jina, Cohere and others have."""

import math
from collections.abc import Sequence

import msgspec

from apikeys.outbound.error_answers import Failure
from datasets.vectors.provider_models import ProviderModel


class _Result(msgspec.Struct):
    index: int
    relevance_score: float


class _RerankBody(msgspec.Struct):
    results: list[_Result]


_decoder = msgspec.json.Decoder(_RerankBody)


async def rerank(model: ProviderModel, query: str, documents: Sequence[str]) -> list[float]:
    """Return how relevant each document is, in their order. Raise UpstreamError or UpstreamTimeout."""
    if not documents:
        return []
    body = {"model": model.name, "query": query, "documents": list(documents)}
    return _scores_of(model, await model.ask("rerank", body, _decoder), len(documents))


def _scores_of(model: ProviderModel, answer: _RerankBody, count: int) -> list[float]:
    scores = {result.index: result.relevance_score for result in answer.results}
    if len(answer.results) != count or scores.keys() != set(range(count)):
        raise model.refusal(Failure(f"{len(answer.results)} scores for {count} documents"))
    if not all(math.isfinite(score) for score in scores.values()):
        raise model.refusal(Failure("a score that is no number"))
    return [scores[index] for index in range(count)]
