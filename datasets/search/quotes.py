"""Quotes: what a search returns, in which order, and how much of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.rows import dict_row

from apikeys.hot_path.connections import Connection
from datasets.search.nearest import Scored
from datasets.texts import token_counts

# Reciprocal rank fusion: 1 / (K + rank), summed over the lists (Cormack, Clarke and Büttcher, 2009).
K = 60


@dataclass(frozen=True, slots=True)
class Score:
    """`index` is the quote's place by this score. Types are FastGPT's: embedding, fullText, rrf, reRank."""

    type: str
    value: float
    index: int


@dataclass(frozen=True, slots=True)
class Quote:
    """A datum that was found, and why. Its JSON is as FastGPT has it."""

    id: str
    q: str
    a: str
    chunk_index: int
    dataset_id: str
    collection_id: str
    source_name: str
    source_id: str
    scores: tuple[Score, ...]

    def json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "q": self.q,
            "a": self.a,
            "chunkIndex": self.chunk_index,
            "datasetId": self.dataset_id,
            "collectionId": self.collection_id,
            "sourceName": self.source_name,
            "sourceId": self.source_id,
            "score": [{"type": score.type, "value": score.value, "index": score.index} for score in self.scores],
        }

    @property
    def text(self) -> str:
        return f"{self.q}\n{self.a}" if self.a else self.q


# Each type of score has its list, best first.
Lists = dict[str, Scored]


def interleave(lists: Sequence[Scored]) -> Scored:
    """Put the best of each model first: cosines of several models cannot be compared."""
    ranked = [(rank, pair) for scored in lists for rank, pair in enumerate(scored)]
    return [pair for _, pair in sorted(ranked, key=lambda one: (one[0], -one[1][1]))]


def fuse(lists: Lists) -> dict[str, tuple[Score, ...]]:
    """Return the scores of each datum, best datum first."""
    lists = {kind: scored for kind, scored in lists.items() if scored}
    scores: dict[str, tuple[Score, ...]] = {}
    fused: dict[str, float] = {}
    for kind, scored in lists.items():
        for rank, (datum_id, value) in enumerate(scored):
            scores[datum_id] = (*scores.get(datum_id, ()), Score(kind, value, rank))
            fused[datum_id] = fused.get(datum_id, 0.0) + 1 / (K + rank + 1)
    if len(lists) < 2:
        return scores
    order = sorted(fused, key=lambda datum_id: -fused[datum_id])
    return {pk: (*scores[pk], Score("rrf", fused[pk], rank)) for rank, pk in enumerate(order)}


QUOTES = """
SELECT datum.id, datum.q, datum.a, datum.chunk_index, datum.dataset_id, datum.collection_id,
    collection.name AS source_name, coalesce(nullif(collection.url, ''), collection.id) AS source_id
FROM datasets_datum AS datum JOIN datasets_collection AS collection ON collection.id = datum.collection_id
WHERE datum.id = ANY (%(ids)s) AND datum.dataset_id = ANY (%(dataset_ids)s)
"""


def load_quotes(connection: Connection, dataset_ids: list[str], scores: dict[str, tuple[Score, ...]]) -> list[Quote]:
    """Load quotes in the order of the scores; of equal texts the first."""
    cursor = connection.cursor(row_factory=dict_row)
    rows = cursor.execute(QUOTES, {"ids": list(scores), "dataset_ids": dataset_ids}).fetchall()
    by_id = {row["id"]: row for row in rows}
    found: dict[tuple[str, str], Quote] = {}
    for datum_id in scores:
        row = by_id.get(datum_id)
        if row is not None:
            found.setdefault((row["q"], row["a"]), Quote(**row, scores=scores[datum_id]))
    return list(found.values())


def cut_to_limit(quotes: list[Quote], limit: int) -> list[Quote]:
    room = limit
    for number, quote in enumerate(quotes):
        room -= token_counts([quote.text])[0]
        if room < 0:
            # The first has room in any case.
            return quotes[: max(number, 1)]
    return quotes
