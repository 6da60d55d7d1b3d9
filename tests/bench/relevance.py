"""Whether a search finds what was meant: recall@10 and nDCG@10 of each mode, in English and Chinese."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from asgiref.sync import async_to_sync

from tests.bench.python_docs import LANGUAGES, Documentation

FIRST = 10


@dataclass(frozen=True)
class Relevance:
    language: str
    mode: str
    recall: float
    ndcg: float


async def measured(documentation: Documentation) -> list[Relevance]:
    """Measure a dataset for each language, with the server's own model."""
    from asgiref.sync import sync_to_async

    from datasets.search.retrieval import Mode, Query, search

    found = []
    for language in LANGUAGES:
        team_id, dataset_id, numbers = await sync_to_async(_filled)(documentation.texts[language])
        for mode in Mode:
            scores = []
            for question in documentation.questions:
                # Room for the first ten, and no more to be counted.
                query = Query(team_id, (dataset_id,), question.texts[language], mode, limit=8_000)
                quotes = (await search(query)).quotes[:FIRST]
                scores.append(_score([numbers[quote.id] for quote in quotes], question.relevant))
            recalls, ndcgs = zip(*scores, strict=True)
            found.append(Relevance(language, mode.value, sum(recalls) / len(recalls), sum(ndcgs) / len(ndcgs)))
    return found


def _filled(texts: Sequence[str]) -> tuple[str, str, dict[str, int]]:
    from apikeys.teams import Team
    from datasets.data import NewDatum, insert
    from datasets.models import Collection, Dataset, Kind
    from datasets.vectors import sets

    team, _ = Team.objects.get_or_create(name="Relevance")
    dataset = Dataset.objects.create(team=team, name="Documentation")
    sets.create(dataset, None, "")
    collection = Collection.objects.create(dataset=dataset, name="Documentation", kind=Kind.TEXT)
    insertion = insert(collection, [NewDatum(text) for text in texts])
    while async_to_sync(sets.embed_pending)(dataset.pk):
        continue
    return team.pk, dataset.pk, {pk: number for number, pk in insertion.ids.items()}


def _score(found: Sequence[int], relevant: frozenset[int]) -> tuple[float, float]:
    """(recall, nDCG) of the first ten: relevant or not, nothing between."""
    hits = [number in relevant for number in found]
    gain = sum(1 / math.log2(rank + 2) for rank, hit in enumerate(hits) if hit)
    most = sum(1 / math.log2(rank + 2) for rank in range(min(len(relevant), FIRST)))
    return sum(hits) / min(len(relevant), FIRST), gain / most
