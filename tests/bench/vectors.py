"""Many vectors: three datasets of one team, of very different size, filled past the ORM, and what is asked of them.

Texts are sentences of Python's documentation put together at random, three by three; their vectors and words are what
the project makes of them. The middle dataset is Chinese, the others are English, so that what is near to a query is
mostly not in the dataset asked for.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any

from tests.bench.load import BenchError
from tests.bench.python_docs import Documentation

BATCH = 5_000
# (name, language, share of all)
DATASETS = (("small", "en", 0.01), ("middle", "zh", 0.1), ("large", "en", 0.89))
FIRST = 10
# Queries whose exact answer is looked for too, which takes long.
COMPARED = 50
# Two scores that differ by less are the same: numbers of vectors have 24 bits.
EPSILON = 1e-5
WORDS = "datum_by_words"


@dataclass
class Site:
    """What was filled."""

    team_id: str
    dataset_ids: dict[str, str]
    vector_set_ids: dict[str, int]
    # The vector sets that have an index.
    indexed: list[int] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ReservationRequest:
    """How long a query of some datasets takes, in seconds; `recall` is of the first ten against all compared."""

    datasets: str
    queries: str
    seconds: list[float]
    bare: list[float] = field(default_factory=list)
    recall: float | None = None


def fill(documentation: Documentation, count: int) -> Site:
    from django.db import connection

    from datasets.vectors import indexes

    site = _datasets()
    with connection.cursor() as cursor:
        # Foreign keys are checked row by row; what is filled here refers to itself.
        cursor.execute("SET session_replication_role = replica")
        cursor.execute("SET synchronous_commit = off")
        words = _drop(cursor, WORDS)
        started = perf_counter()
        cursor.execute("SELECT coalesce(max(id), 0) + 1 FROM datasets_indextext")
        (first,) = cursor.fetchone()
        for name, language, share in DATASETS:
            of_dataset = round(count * share)
            _fill_dataset(cursor, site, name, _texts(documentation.texts[language]), first, of_dataset)
            first += of_dataset
        site.seconds["fill"] = perf_counter() - started
        for table in ("indextext", "vector"):
            cursor.execute(
                f"SELECT setval(pg_get_serial_sequence('datasets_{table}', 'id'), max(id)) FROM datasets_{table}"
            )
        started = perf_counter()
        cursor.execute(words)
        site.seconds["words"] = perf_counter() - started
        cursor.execute("SET session_replication_role = origin")
        cursor.execute("VACUUM (ANALYZE) datasets_vector, datasets_indextext, datasets_datum, datasets_collection")
        # As the server's job builds them.
        started = perf_counter()
        site.indexed = indexes.build_missing()
        site.seconds["hnsw"] = perf_counter() - started
        cursor.execute("SELECT pg_table_size('datasets_vector'), pg_relation_size(%s::regclass)", [WORDS])
        site.bytes["vectors"], site.bytes["words"] = cursor.fetchone()
        names = [indexes.name_of(vector_set_id) for vector_set_id in site.indexed]
        cursor.execute(
            "SELECT coalesce(sum(pg_relation_size(name::regclass)), 0) FROM unnest(%s::text[]) AS name", [names]
        )
        (site.bytes["hnsw"],) = cursor.fetchone()
    return site


def _datasets() -> Site:
    from apikeys.teams import Team
    from datasets.models import Dataset
    from datasets.vectors import sets

    team = Team.objects.create(name="Vectors")
    site = Site(team.pk, {}, {})
    for name, _, _ in DATASETS:
        dataset = Dataset.objects.create(team=team, name=name)
        site.dataset_ids[name] = dataset.pk
        site.vector_set_ids[name] = sets.create(dataset, None, "").pk
    return site


def _drop(cursor: Any, index: str) -> str:
    cursor.execute("SELECT pg_get_indexdef(%s::regclass)", [index])
    (definition,) = cursor.fetchone()
    cursor.execute(f"DROP INDEX {index}")
    return str(definition)


def _texts(texts: Sequence[str]) -> Iterator[str]:
    sentences = [
        sentence
        for text in texts
        for sentence in re.split(r"(?<=[.?!。\uff1f\uff01])\s*|\n", text)
        if sentence and len(sentence) > 20
    ]
    chance = random.Random(1)  # noqa: S311 - no secrets
    while True:
        yield " ".join(chance.sample(sentences, 3))


def _fill_dataset(cursor: Any, site: Site, name: str, texts: Iterator[str], first: int, count: int) -> None:
    from apikeys.object_ids import new_object_id
    from datasets.models import Collection, Kind

    dataset_id = site.dataset_ids[name]
    collection = Collection.objects.create(dataset_id=dataset_id, name=name, kind=Kind.TEXT)
    for start in range(0, count, BATCH):
        batch = [(new_object_id(), next(texts)) for _ in range(min(BATCH, count - start))]
        _insert_texts(cursor, dataset_id, collection.pk, start, first + start, batch)
        _insert_vectors(cursor, site.vector_set_ids[name], first + start, [text for _, text in batch])


def _insert_texts(
    cursor: Any, dataset_id: str, collection_id: str, chunk: int, first: int, batch: Sequence[tuple[str, str]]
) -> None:
    from datasets.texts import words_of

    columns = [
        [pk for pk, _ in batch],
        [text for _, text in batch],
        [words_of(text) for _, text in batch],
    ]
    cursor.execute(
        "WITH item AS (SELECT * FROM unnest(%s::text[], %s::text[], %s::text[]) WITH ORDINALITY"
        " AS item(id, q, words, number)),"
        " datum AS (INSERT INTO datasets_datum (id, dataset_id, collection_id, chunk_index, q, a, digest, words)"
        " SELECT id, %s, %s, number + %s, q, '', sha256(convert_to(id, 'UTF8')),"
        " datasets_search_vector(words, %s) FROM item)"
        " INSERT INTO datasets_indextext (id, datum_id, dataset_id, is_default, text)"
        " SELECT %s + number - 1, id, %s, true, q FROM item",
        [*columns, dataset_id, collection_id, chunk, dataset_id, first, dataset_id],
    )


def _insert_vectors(cursor: Any, vector_set_id: int, first: int, texts: Sequence[str]) -> None:
    import numpy as np

    from datasets.vectors import static_model

    vectors = np.asarray(static_model.embed(texts), dtype=np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    # As pgvector receives it: its dimension, nothing, and its numbers.
    head = vectors.shape[1].to_bytes(2, "big") + b"\0\0"
    with cursor.copy("COPY datasets_vector (vector_set_id, index_text_id, embedding) FROM STDIN BINARY") as copy:
        copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
        for number, numbers in enumerate(vectors.astype(">f4")):
            fields = (vector_set_id.to_bytes(8, "big"), (first + number).to_bytes(8, "big"), head + numbers.tobytes())
            row = b"".join(len(value).to_bytes(4, "big") + value for value in fields)
            copy.write(b"\0\3" + row)
        copy.write(b"\xff\xff")


CASES = (
    ("1 %", ("small",), "en"),
    ("10 %", ("middle",), "zh"),
    ("10 %, others nearer", ("middle",), "en"),
    ("89 %", ("large",), "en"),
    ("100 %", ("small", "middle", "large"), "en"),
    ("100 %", ("small", "middle", "large"), "zh"),
)

# The least that pgvector can be asked of a set: through its index, and without.
BARE_BY_INDEX = """
SELECT index_text_id FROM datasets_vector WHERE vector_set_id = {vector_set_id}
ORDER BY embedding::vector(256) <#> %(vector)s::vector(256) LIMIT %(limit)s
"""
BARE_ONE_BY_ONE = """
SELECT index_text_id FROM datasets_vector WHERE vector_set_id = {vector_set_id}
ORDER BY embedding <#> %(vector)s::vector LIMIT %(limit)s
"""


def nearest(site: Site, documentation: Documentation, queries: int) -> Iterator[ReservationRequest]:
    """The statement that search runs, beside the least that pgvector can be asked; each query once."""
    from apikeys.hot_path.connections import connect
    from datasets.search import nearest as candidates
    from datasets.vectors import static_model
    from datasets.vectors.embeddings import normalize

    with connect() as connection:
        # Exact answers take long.
        connection.execute("SET statement_timeout = 0")
        for name, datasets, language in CASES:
            ids = [site.vector_set_ids[dataset] for dataset in datasets]
            indexed, others = ([pk for pk in ids if (pk in site.indexed) is has_index] for has_index in (True, False))
            asked = ReservationRequest(name, language, [], [], None)
            hits = []
            texts = [question.texts[language] for question in documentation.questions[:queries]]
            for number, vector in enumerate(map(normalize, static_model.embed(texts))):
                near = candidates.Near(vector, indexed, others)
                work: list[tuple[list[float], Callable[[], Any]]] = [
                    (asked.seconds, partial(candidates.nearest, connection, near)),
                    (asked.bare, partial(_bare, connection, near)),
                ]
                # What comes second finds warm what the first has read.
                for seconds, one in work if number % 2 else reversed(work):
                    seconds.append(_timed(connection, one))
                if number < COMPARED:
                    hits.append(_recall(connection, near))
            yield ReservationRequest(name, language, asked.seconds, asked.bare, sum(hits) / len(hits))


def _bare(connection: Any, near: Any) -> Any:
    """Set by set."""
    from datasets.search.nearest import CANDIDATES

    values = {"vector": str(near.vector), "limit": CANDIDATES}
    found = []
    for vector_set_id in near.vector_set_ids:
        statement = BARE_BY_INDEX if vector_set_id in near.indexed else BARE_ONE_BY_ONE
        found += connection.execute(statement.format(vector_set_id=vector_set_id), values).fetchall()
    return found


def _timed(connection: Any, work: Callable[[], Any]) -> float:
    from datasets.search import nearest as candidates

    started = perf_counter()
    with connection.transaction():
        candidates.prepare(connection)
        found = work()
    if not found:
        raise BenchError("a query found nothing")
    return perf_counter() - started


def _recall(connection: Any, near: Any) -> float:
    from datasets.search import nearest as candidates

    with connection.transaction():
        candidates.prepare(connection)
        connection.execute("SET LOCAL statement_timeout = 0")
        found = candidates.nearest(connection, near)
        exact = candidates.nearest(connection, candidates.Near(near.vector, [], near.vector_set_ids))
    least = exact[:FIRST][-1][1] - EPSILON
    return min(sum(score >= least for _, score in found), FIRST) / min(len(exact), FIRST)


async def searches(site: Site, documentation: Documentation, queries: int) -> list[ReservationRequest]:
    """Whole searches, one after the other: with the query's vector, and the quotes."""
    from datasets.search.retrieval import Mode, Query, search

    found = []
    for name, datasets, language in CASES:
        ids = tuple(site.dataset_ids[dataset] for dataset in datasets)
        for mode in Mode:
            seconds = []
            for question in documentation.questions[:queries]:
                seconds.append((await search(Query(site.team_id, ids, question.texts[language], mode))).seconds)
            found.append(ReservationRequest(f"{name}, {mode.value}", language, seconds))
    return found
