"""Reranking by a provider: the endpoint that Jina, Cohere and others have."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from apikeys.outbound.error_answers import Failure
from datasets.vectors.provider_models import ProviderModel


class _Result(msgspec.Struct):
    index: int
    relevance_score: float


class _RerankBody(msgspec.Struct):
    results: list[_Result]
    usage: Any = None


@dataclass(frozen=True, slots=True)
class Reranked:
    """How relevant each document is, in their order, and the tokens that the provider charged, if it says so."""

    scores: list[float]
    tokens: int | None = None


_decoder = msgspec.json.Decoder(_RerankBody)


async def rerank(model: ProviderModel, query: str, documents: Sequence[str]) -> Reranked:
    """Ask how relevant documents are. Raise UpstreamError, its subclass TextsRefused, or UpstreamTimeout."""
    if not documents:
        return Reranked([])
    body = {"model": model.name, "query": query, "documents": list(documents)}
    answer = await model.ask("rerank", body, _decoder)
    return Reranked(_scores_of(model, answer, len(documents)), _tokens_of(answer.usage))


def _scores_of(model: ProviderModel, answer: _RerankBody, count: int) -> list[float]:
    scores = {result.index: result.relevance_score for result in answer.results}
    if len(answer.results) != count or scores.keys() != set(range(count)):
        raise model.refusal(Failure(f"{len(answer.results)} scores for {count} documents"))
    if not all(math.isfinite(score) for score in scores.values()):
        raise model.refusal(Failure("a score that is no number"))
    return [scores[index] for index in range(count)]


def _tokens_of(usage: Any) -> int | None:
    # Some count them all, some call them those of the prompt. No texts have no tokens, so zero says nothing.
    found = [usage.get(name) for name in ("total_tokens", "prompt_tokens")] if isinstance(usage, dict) else []
    return next((count for count in found if type(count) is int and 0 < count < 2**31), None)
