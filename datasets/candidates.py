"""What the database finds of datasets: data whose texts lie near a vector, and data that have a query's words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from apikeys.database import Connection
from datasets.vector_indexes import LARGE, type_of

# Found of each kind. What is further down is hardly ever what was meant.
CANDIDATES = 100
# Found by the index, so few are taken for all; a datum may have several of the texts.
ENOUGH = 20
# Of the transaction alone. Neighbors come in their order, and more of them until enough are of the sets asked for.
SETTINGS = {
    "hnsw.iterative_scan": "strict_order",
    "hnsw.ef_search": "200",
    "statement_timeout": "5s",
}


@dataclass(frozen=True, slots=True)
class Near:
    """Where to look for neighbors: vector sets of one model."""

    vector_set_ids: list[int]
    vector: list[float]
    has_index: bool

    def values(self) -> dict[str, Any]:
        """What the statements ask for."""
        vector = f"[{','.join(map(repr, self.vector))}]"
        return {"vector_set_ids": self.vector_set_ids, "vector": vector, "limit": CANDIDATES}


Scored = list[tuple[str, float]]


def prepare(connection: Connection) -> None:
    """Set what these searches need, until the transaction ends."""
    names = ", ".join("set_config(%s, %s, true)" for _ in SETTINGS)
    connection.execute(f"SELECT {names}", [text for pair in SETTINGS.items() for text in pair])


# What the planner knows, at once: counting would take longer than searching.
SIZE = "EXPLAIN (FORMAT JSON) SELECT FROM datasets_vector WHERE vector_set_id = ANY (%(vector_set_ids)s)"

# Several texts may be of one datum: the nearest counts.
NEAREST = """
WITH near AS MATERIALIZED ({near})
SELECT text.datum_id, -min(near.distance) AS score
FROM near JOIN datasets_indextext AS text ON text.id = near.index_text_id
GROUP BY text.datum_id ORDER BY score DESC, text.datum_id
"""
# Sets with fewer than LARGE are compared one by one: that is exact, and quicker than to leave out what others have.
# Written so that no other index fits: the planner knows nothing of how many of the neighbors are of these sets.
BY_INDEX = """
SELECT index_text_id, embedding::{type}({dimension}) <#> %(vector)s::{type}({dimension}) AS distance
FROM datasets_vector
WHERE vector_dims(embedding) = {dimension} AND vector_set_id + 0 = ANY (%(vector_set_ids)s)
ORDER BY embedding::{type}({dimension}) <#> %(vector)s::{type}({dimension}) LIMIT %(limit)s
"""
ONE_BY_ONE = """
SELECT index_text_id, embedding <#> %(vector)s::vector AS distance
FROM datasets_vector
WHERE vector_set_id = ANY (%(vector_set_ids)s)
ORDER BY distance LIMIT %(limit)s
"""


def nearest(connection: Connection, near: Near) -> Scored:
    """(datum, cosine), nearest first."""
    values = near.values()
    if near.has_index and _size(connection, near) >= LARGE:
        found = connection.execute(NEAREST.format(near=by_index(len(near.vector))), values).fetchall()
        # Fewer: what others have is so much nearer that the scan ended before.
        if len(found) >= ENOUGH:
            return found
    return connection.execute(NEAREST.format(near=ONE_BY_ONE), values).fetchall()


def by_index(dimension: int) -> str:
    """Neighbors as the index of this dimension finds them."""
    return BY_INDEX.format(type=type_of(dimension), dimension=dimension)


def _size(connection: Connection, near: Near) -> float:
    """About how many vectors there are."""
    row = connection.execute(SIZE, {"vector_set_ids": near.vector_set_ids}).fetchone()
    return 0 if row is None else float(row[0][0]["Plan"]["Plan Rows"])


# Words of a query that are looked for, and texts that are weighed by them.
MAXIMUM_WORDS = 64
MAXIMUM_WEIGHED = 2_000
# Words that more texts have are all alike: they tell nothing.
COMMON = 5_000

LEXEMES = "SELECT tsvector_to_array(to_tsvector('pg_catalog.english', %s))"

COUNTS = """
SELECT (
    SELECT count(*) FROM (
        SELECT FROM datasets_datum AS datum
        WHERE datum.words @@ word.wanted AND datum.dataset_id = ANY (%(dataset_ids)s) LIMIT %(common)s) AS datum),
    (SELECT reltuples FROM pg_class WHERE oid = 'datasets_datum'::regclass)
FROM unnest(%(wanted)s::text[]::tsquery[]) WITH ORDINALITY AS word(wanted, number) ORDER BY word.number
"""

# BM25, with its usual k1 = 1.2 and b = 0.75. How often a text has a word is what ts_rank makes 1 + 1/4 + 1/9 ... of,
# so many terms of the series whose sum is pi^2 / 6. A text's length is told by its characters. Joined to nothing, a
# vector is read once, and not for each word anew.
BY_WORDS = """
WITH datum AS MATERIALIZED (
    SELECT id, words || '' AS words, length(q) + length(a) AS length FROM datasets_datum
    WHERE words @@ %(wanted)s::tsquery AND dataset_id = ANY (%(dataset_ids)s) LIMIT %(weighed)s
),
word AS MATERIALIZED (SELECT * FROM unnest(%(words)s::text[]::tsquery[], %(weights)s::float8[]) AS word(word, weight))
SELECT datum.id, (
    SELECT sum(word.weight * often.times * 2.2 / (often.times + 1.2 * (0.25 + 0.75 * datum.length / usual.length)))
    FROM word CROSS JOIN LATERAL (
        SELECT 1 / (pi() ^ 2 / 6 * (1 - ts_rank('{1,1,1,1}', datum.words, word.word))) - 0.5 AS times) AS often
    WHERE datum.words @@ word.word) AS score
FROM datum CROSS JOIN (SELECT greatest(avg(length), 1)::float8 AS length FROM datum) AS usual
ORDER BY score DESC, datum.id LIMIT %(limit)s
"""


def with_words(connection: Connection, dataset_ids: Sequence[str], words: str) -> Scored:
    """(datum, weight), best first: of data that have any of the words, the rarer ones first."""
    row = connection.execute(LEXEMES, [words]).fetchone()
    lexemes = [quoted(lexeme) for lexeme in row[0][:MAXIMUM_WORDS]] if row else []
    # As dataset_word() of the database spells it.
    own = " | ".join(quoted(f" {dataset_id}") for dataset_id in dataset_ids)
    found: dict[str, Any] = {"dataset_ids": list(dataset_ids)}
    weights = _weights(connection, lexemes, own, found)
    if not weights:
        return []
    found |= {
        "wanted": f"({own}) & ({' | '.join(_telling(weights))})",
        "words": list(weights),
        "weights": [weight for _, weight in weights.values()],
        "weighed": MAXIMUM_WEIGHED,
        "limit": CANDIDATES,
    }
    return connection.execute(BY_WORDS, found).fetchall()


def _weights(
    connection: Connection, lexemes: Sequence[str], own: str, found: dict[str, Any]
) -> dict[str, tuple[int, float]]:
    """How many texts have each word, and what it weighs, the rarest first."""
    wanted = [f"({own})", *(f"({own}) & {lexeme}" for lexeme in lexemes)]
    rows = connection.execute(COUNTS, found | {"wanted": wanted, "common": COMMON}).fetchall()
    total, of_all = rows[0]
    # Past that, its size is taken to be that of all datasets: all weights grow alike.
    total = max(total, of_all) if total == COMMON else total
    counts = sorted((count, lexeme) for lexeme, (count, _) in zip(lexemes, rows[1:], strict=True) if count)
    return {lexeme: (count, math.log(1 + (total - count + 0.5) / (count + 0.5))) for count, lexeme in counts}


def _telling(weights: dict[str, tuple[int, float]]) -> list[str]:
    """Of words from the rarest on, so many that all texts with one of them can be weighed; at least one."""
    found: list[str] = []
    total = 0
    for lexeme, (count, _) in weights.items():
        total += count
        if found and total > MAXIMUM_WEIGHED:
            break
        found.append(lexeme)
    return found


def quoted(lexeme: str) -> str:
    """As a tsquery has it."""
    return "'" + lexeme.replace("\\", "\\\\").replace("'", "''") + "'"
