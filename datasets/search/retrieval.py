"""The search of datasets: by vectors, by words, or both, and what of it fits into a prompt."""

import asyncio
import math
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from time import perf_counter
from typing import Any

from psycopg.rows import kwargs_row

from apikeys.errors import DatasetNotFound, ServiceUnavailable, UpstreamError
from apikeys.hot_path.connections import Connection
from apikeys.hot_path.readers import Readers
from apikeys.object_ids import is_object_id
from apikeys.outbound.service import Service, service_sql
from apikeys.storable_text import storable
from datasets.search import full_text, nearest
from datasets.search.nearest import Near
from datasets.search.quotes import Lists, Quote, Score, cut_to_limit, fuse, interleave, load_quotes
from datasets.search.rerank import rerank
from datasets.texts import words_of
from datasets.vectors.embeddings import embed
from datasets.vectors.indexes import NAME as INDEX_NAME
from datasets.vectors.provider_models import ProviderModel

# All quotes together have so many tokens: where a query asks for no other limit, and at most.
USUAL_LIMIT, MAXIMUM_LIMIT = 5_000, 20_000
# So much of a query's text is searched for; the rest is left out.
MAXIMUM_CHARACTERS = 8_000
# A query begins again so often because a dataset's model changed meanwhile.
ATTEMPTS = 3
# A query waits so long for its vector, and for its reranker, where their provider allows more.
PROVIDER_SECONDS = 30
# So many queries for which a thread is held may wait for providers at once: other threads have work to do.
MAXIMUM_HOLDING = 8
_holding = threading.BoundedSemaphore(MAXIMUM_HOLDING)

readers = Readers("retrieval", threads=4, capacity=256, wait_seconds=10.0)


class Mode(StrEnum):
    """The ways to search, by FastGPT's names."""

    EMBEDDING = "embedding"
    FULL_TEXT = "fullTextRecall"
    MIXED = "mixedRecall"


@dataclass(frozen=True, slots=True)
class Query:
    """A search, and how much of its result to return.

    `limit` is in tokens of all quotes together. `similarity` is the least cosine, or the least relevance where
    a reranker judged; what is found by its words alone has neither. `holds_thread`: a thread waits for it.
    """

    team_id: str
    dataset_ids: tuple[str, ...]
    text: str
    mode: Mode = Mode.EMBEDDING
    limit: int = USUAL_LIMIT
    similarity: float = 0.0
    uses_rerank: bool = False
    holds_thread: bool = False

    @property
    def least(self) -> float:
        # 0 asks for nothing: cosines, and what some rerankers answer, may be below.
        return self.similarity or -math.inf


@dataclass(frozen=True, slots=True)
class SearchResult:
    """`embedding_tokens` are those that a provider charged for the query."""

    quotes: list[Quote]
    seconds: float
    embedding_tokens: int
    has_reranked: bool


@dataclass(frozen=True, slots=True)
class SearchableDataset:
    """A dataset as a query needs it."""

    dataset_id: str
    vector_set_id: int | None
    dimension: int | None
    has_index: bool
    model: ProviderModel
    reranker: ProviderModel | None


async def search(query: Query) -> SearchResult:
    """Find what fits best. Datasets that are not the team's are as if absent.

    Raise DatasetNotFound when none is left; UpstreamError, UpstreamTimeout; ServiceUnavailable.
    """
    started = perf_counter()
    text = storable(query.text[:MAXIMUM_CHARACTERS]).strip()
    query = replace(query, text=text, dataset_ids=tuple(filter(is_object_id, query.dataset_ids)))
    for _ in range(ATTEMPTS):
        datasets = await readers.read(partial(_searchable_datasets, query))
        if not datasets:
            raise DatasetNotFound
        reranker = (
            next((dataset.reranker for dataset in datasets if dataset.reranker), None) if query.uses_rerank else None
        )
        nears, tokens = await _embed_query(query, datasets)
        least = -math.inf if reranker else query.least
        quotes = await readers.read(partial(_find_quotes, query, datasets, nears, least))
        if quotes is not None:
            break
    else:
        raise ServiceUnavailable
    if reranker is not None:
        quotes = await _rerank(reranker, query, quotes)
    quotes = await asyncio.to_thread(cut_to_limit, quotes, query.limit)
    return SearchResult(quotes, perf_counter() - started, tokens, has_reranked=reranker is not None)


SEARCHABLE_DATASETS = f"""
SELECT dataset.id AS dataset_id, vector_set.id AS vector_set_id, vector_set.dimension, EXISTS (
        SELECT FROM pg_index WHERE indexrelid = to_regclass(%(index_name)s || vector_set.id) AND indisvalid
    ) AS has_index,
    vector_set.model AS embed_model, {service_sql("embedder")} AS embed_service,
    dataset.rerank_model, {service_sql("reranker")} AS rerank_service
FROM datasets_dataset AS dataset
LEFT JOIN datasets_vectorset AS vector_set ON vector_set.dataset_id = dataset.id AND vector_set.is_current
LEFT JOIN chat_provider AS embedder ON embedder.id = vector_set.provider_id
LEFT JOIN chat_provider AS reranker ON reranker.id = dataset.rerank_provider_id
WHERE dataset.team_id = %(team_id)s AND dataset.id = ANY (%(dataset_ids)s)
ORDER BY array_position(%(dataset_ids)s, dataset.id::text)
"""  # noqa: S608 - built from constants


def _searchable_datasets(query: Query, connection: Connection) -> list[SearchableDataset]:
    values = {"team_id": query.team_id, "dataset_ids": list(query.dataset_ids), "index_name": INDEX_NAME}
    return (
        connection.cursor(row_factory=kwargs_row(_searchable_dataset)).execute(SEARCHABLE_DATASETS, values).fetchall()
    )


def _searchable_dataset(
    *, dataset_id: str, vector_set_id: int | None, dimension: int | None, has_index: bool, **models: Any
) -> SearchableDataset:
    return SearchableDataset(
        dataset_id=dataset_id,
        vector_set_id=vector_set_id,
        dimension=dimension,
        has_index=has_index,
        # A set's provider cannot be removed: where there is none, the model is the static one.
        model=_model("embed", models) or ProviderModel.of(None, ""),
        reranker=_model("rerank", models),
    )


def _model(prefix: str, columns: Mapping[str, Any]) -> ProviderModel | None:
    found = columns[f"{prefix}_service"]
    if found is None:
        return None
    return ProviderModel(columns[f"{prefix}_model"], Service.of_json(found)).within(PROVIDER_SECONDS)


@contextmanager
def _holding_thread(query: Query, models: Iterable[ProviderModel]) -> Iterator[None]:
    """Count the thread that waits for models, if one does. Raise ServiceUnavailable when too many do."""
    if not query.holds_thread or all(model.is_static for model in models):
        yield
        return
    if not _holding.acquire(blocking=False):
        raise ServiceUnavailable
    try:
        yield
    finally:
        _holding.release()


async def _embed_query(query: Query, datasets: Sequence[SearchableDataset]) -> tuple[list[Near], int]:
    """Return where to look by vectors, for each model once, and the tokens that providers charged."""
    if query.mode is Mode.FULL_TEXT or not query.text:
        return [], 0
    spaces: dict[tuple[ProviderModel, int], list[SearchableDataset]] = {}
    for dataset in datasets:
        # Before a set's first vector nothing can be near.
        if dataset.vector_set_id is not None and dataset.dimension is not None:
            spaces.setdefault((dataset.model, dataset.dimension), []).append(dataset)
    with _holding_thread(query, [model for model, _ in spaces]):
        embedded = await asyncio.gather(*(embed(model, [query.text]) for model, _ in spaces))
    nears, tokens = [], 0
    for ((_, dimension), of_space), answer in zip(spaces.items(), embedded, strict=True):
        tokens += answer.prompt_tokens or 0
        (vector,) = answer.vectors
        if len(vector) != dimension:
            raise UpstreamError("The embedding provider returned a vector of another dimension than before.")
        # A text without any token has no direction, so that nothing is near it.
        if any(vector):
            indexed, others = (
                [
                    dataset.vector_set_id
                    for dataset in of_space
                    if dataset.vector_set_id is not None and dataset.has_index is has_index
                ]
                for has_index in (True, False)
            )
            nears.append(Near(vector, indexed, others))
    return nears, tokens


def _find_quotes(
    query: Query, datasets: Sequence[SearchableDataset], nears: Sequence[Near], least: float, connection: Connection
) -> list[Quote] | None:
    """Search by vectors from a cosine of `least` on. Return None when another model took a dataset over."""
    dataset_ids = [dataset.dataset_id for dataset in datasets]
    lists: Lists = {}
    with connection.transaction():
        nearest.prepare(connection)
        if query.mode is not Mode.FULL_TEXT:
            found = [nearest.nearest(connection, near) for near in nears]
            lists["embedding"] = [pair for pair in interleave(found) if pair[1] >= least]
        if query.mode is not Mode.EMBEDDING:
            lists["fullText"] = full_text.find_by_words(connection, dataset_ids, words_of(query.text))
        if not _are_sets_there(connection, nears):
            return None
        return load_quotes(connection, dataset_ids, fuse(lists))


def _are_sets_there(connection: Connection, nears: Iterable[Near]) -> bool:
    # A set's vectors go with it: where it is there, all of them could be seen.
    ids = [pk for near in nears for pk in near.vector_set_ids]
    row = connection.execute("SELECT count(*) FROM datasets_vectorset WHERE id = ANY (%s)", [ids]).fetchone()
    return row is not None and row[0] == len(ids)


async def _rerank(model: ProviderModel, query: Query, quotes: list[Quote]) -> list[Quote]:
    with _holding_thread(query, [model]):
        values = (await rerank(model, query.text, [quote.text for quote in quotes])).scores
    order = sorted(range(len(quotes)), key=lambda number: -values[number])
    return [
        replace(quotes[number], scores=(*quotes[number].scores, Score("reRank", values[number], rank)))
        for rank, number in enumerate(order)
        if values[number] >= query.least
    ]
