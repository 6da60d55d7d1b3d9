"""What was found, judged anew by a provider's reranker: the endpoint that Jina, Cohere and others have."""

import math
from collections.abc import Sequence

import msgspec

from datasets.vectors.provider_models import ProviderModel


class _Result(msgspec.Struct):
    index: int
    relevance_score: float


class _RerankBody(msgspec.Struct):
    results: list[_Result]


_decoder = msgspec.json.Decoder(_RerankBody)


async def rerank(model: ProviderModel, query: str, documents: Sequence[str]) -> list[float]:
    """How relevant each document is, in their order. Raises UpstreamError or UpstreamTimeout."""
    if not documents:
        return []
    body = {"model": model.name, "query": query, "documents": list(documents)}
    return _check_scores(model, await model.ask("rerank", body, _decoder), len(documents))


def _check_scores(model: ProviderModel, answer: _RerankBody, count: int) -> list[float]:
    scores = {result.index: result.relevance_score for result in answer.results}
    if len(answer.results) != count or scores.keys() != set(range(count)):
        raise model.refusal(f"{len(answer.results)} scores for {count} documents")
    if not all(math.isfinite(score) for score in scores.values()):
        raise model.refusal("a score that is no number")
    return [scores[index] for index in range(count)]
