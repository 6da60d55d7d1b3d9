"""Search of datasets by vectors: data whose texts lie near one. `full_text` searches by words."""

from dataclasses import dataclass

from apikeys.hot_path.connections import Connection
from datasets.vectors.indexes import index_type_of

# So many are found of each kind. What is further down is hardly ever what was meant.
CANDIDATES = 100
# These hold in the transaction alone. The index is used wherever there is one, however small the planner takes a set
# for, and goes on reading where it met removed rows. Compiling a statement, or more processes for it, would only take
# longer.
SETTINGS = {
    "hnsw.iterative_scan": "strict_order",
    "hnsw.ef_search": "400",
    "enable_sort": "off",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "statement_timeout": "5s",
}


@dataclass(frozen=True, slots=True)
class Near:
    """Where to look for neighbors: vector sets of one model, those that have an index of their own apart."""

    vector: list[float]
    indexed: list[int]
    others: list[int]

    @property
    def vector_set_ids(self) -> list[int]:
        return [*self.indexed, *self.others]


Scored = list[tuple[str, float]]


def prepare(connection: Connection) -> None:
    names = ", ".join("set_config(%s, %s, true)" for _ in SETTINGS)
    connection.execute(f"SELECT {names}", [text for pair in SETTINGS.items() for text in pair])


# The set's id is a part of the statement: only so is the index known to be of all that is asked for.
BY_INDEX = """
(SELECT index_text_id, embedding::{type}({dimension}) <#> %(vector)s::{type}({dimension}) AS distance
FROM datasets_vector WHERE vector_set_id = {vector_set_id}
ORDER BY embedding::{type}({dimension}) <#> %(vector)s::{type}({dimension}) LIMIT %(limit)s)
"""
ONE_BY_ONE = """
(SELECT index_text_id, embedding <#> %(vector)s::vector AS distance
FROM datasets_vector WHERE vector_set_id = ANY (%(others)s)
ORDER BY distance LIMIT %(limit)s)
"""
# Several texts may be of one datum: the nearest counts.
NEAREST = """
WITH near AS MATERIALIZED (SELECT * FROM ({near}) AS near ORDER BY distance LIMIT %(limit)s)
SELECT text.datum_id, -min(near.distance) AS score
FROM near JOIN datasets_indextext AS text ON text.id = near.index_text_id
GROUP BY text.datum_id ORDER BY score DESC, text.datum_id
"""


def nearest(connection: Connection, near: Near) -> Scored:
    """Return (datum, cosine) pairs, nearest first."""
    parts = [index_query(vector_set_id, len(near.vector)) for vector_set_id in near.indexed]
    if near.others:
        parts.append(ONE_BY_ONE)
    vector = f"[{','.join(map(repr, near.vector))}]"
    values = {"vector": vector, "others": near.others, "limit": CANDIDATES}
    return connection.execute(NEAREST.format(near="UNION ALL".join(parts)), values).fetchall()


def index_query(vector_set_id: int, dimension: int) -> str:
    return BY_INDEX.format(vector_set_id=int(vector_set_id), type=index_type_of(dimension), dimension=dimension)
