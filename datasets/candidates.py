"""What the database finds of datasets: data whose texts lie near a vector, and data that have a query's words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from apikeys.database import Connection

# Found of each kind. What is further down is hardly ever what was meant.
CANDIDATES = 100
# Sets with fewer vectors are compared one by one: that is exact, and quicker than leaving out what others have.
EXACT = 20_000
# Of the transaction alone. Neighbors come in their order, and more of them until enough are of the sets asked for.
SETTINGS = {
    "hnsw.iterative_scan": "strict_order",
    "hnsw.ef_search": "100",
    "statement_timeout": "5s",
}


@dataclass(frozen=True, slots=True)
class Near:
    """Where to look for neighbors: vector sets of one model."""

    vector_set_ids: list[int]
    vector: list[float]
    has_index: bool


Scored = list[tuple[str, float]]


def prepare(connection: Connection) -> None:
    """Set what these searches need, until the transaction ends."""
    names = ", ".join("set_config(%s, %s, true)" for _ in SETTINGS)
    connection.execute(f"SELECT {names}", [text for pair in SETTINGS.items() for text in pair])


SIZE = """
SELECT count(*) FROM (
    SELECT FROM datasets_vector WHERE vector_set_id = ANY (%(vector_set_ids)s) LIMIT %(most)s) AS vector
"""

# Several texts may be of one datum: the nearest counts.
NEAREST = """
WITH near AS MATERIALIZED ({near} LIMIT %(limit)s)
SELECT text.datum_id, -min(near.distance) AS score
FROM near JOIN datasets_indextext AS text ON text.id = near.index_text_id
GROUP BY text.datum_id ORDER BY score DESC, text.datum_id
"""
# Written so that no other index fits: the planner knows nothing of how many of the neighbors are of these sets.
BY_INDEX = """
SELECT index_text_id, embedding::vector({dimension}) <#> %(vector)s::vector({dimension}) AS distance
FROM datasets_vector
WHERE vector_dims(embedding) = {dimension} AND vector_set_id + 0 = ANY (%(vector_set_ids)s)
ORDER BY embedding::vector({dimension}) <#> %(vector)s::vector({dimension})
"""
ONE_BY_ONE = """
SELECT index_text_id, embedding <#> %(vector)s::vector AS distance
FROM datasets_vector
WHERE vector_set_id = ANY (%(vector_set_ids)s)
ORDER BY distance
"""


def nearest(connection: Connection, near: Near) -> Scored:
    """(datum, cosine), nearest first."""
    found = {"vector_set_ids": near.vector_set_ids, "limit": CANDIDATES}
    dimension = len(near.vector)
    is_exact = True
    if near.has_index:
        size = connection.execute(SIZE, found | {"most": EXACT}).fetchone()
        is_exact = size is not None and size[0] < EXACT
    statement = ONE_BY_ONE if is_exact else BY_INDEX.format(dimension=dimension)
    vector = f"[{','.join(map(repr, near.vector))}]"
    return connection.execute(NEAREST.format(near=statement), found | {"vector": vector}).fetchall()


LEXEMES = "SELECT tsvector_to_array(to_tsvector('pg_catalog.english', %s))"

BY_WORDS = """
SELECT datum.id, ts_rank(datum.words, %(terms)s::tsquery, 1) AS score
FROM datasets_datum AS datum
WHERE datum.words @@ %(wanted)s::tsquery AND datum.dataset_id = ANY (%(dataset_ids)s)
ORDER BY score DESC, datum.id LIMIT %(limit)s
"""


def with_words(connection: Connection, dataset_ids: Sequence[str], words: str) -> Scored:
    """(datum, rank), best first: of data that have any of the words."""
    row = connection.execute(LEXEMES, [words]).fetchone()
    lexemes = row[0] if row else []
    if not lexemes:
        return []
    terms = any_of(lexemes)
    # As dataset_word() of the database spells it.
    own = any_of([f" {dataset_id}" for dataset_id in dataset_ids])
    values: dict[str, Any] = {
        "terms": terms,
        "wanted": f"({own}) & ({terms})",
        "dataset_ids": list(dataset_ids),
        "limit": CANDIDATES,
    }
    return connection.execute(BY_WORDS, values).fetchall()


def any_of(lexemes: Sequence[str]) -> str:
    """A tsquery, written out."""
    return " | ".join("'" + lexeme.replace("\\", "\\\\").replace("'", "''") + "'" for lexeme in lexemes)
