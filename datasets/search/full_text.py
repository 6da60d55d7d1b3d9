"""Search of datasets by words: data that have those of a query, weighed by BM25."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from apikeys.hot_path.connections import Connection
from datasets.search.nearest import CANDIDATES, Scored

# So many words of a query are looked for, and so many texts are weighed by them.
MAXIMUM_WORDS = 64
MAXIMUM_WEIGHED = 2_000
# Counting ends here: from there on the planner's statistics know.
COMMON = 5_000
# Several of at most so many common words have to stand in a text; where fewer than ENOUGH have, fewer words do.
MAXIMUM_TOGETHER = 6
ENOUGH = 20

LEXEMES = "SELECT tsvector_to_array(to_tsvector('pg_catalog.english', %s))"
COUNTS = """
SELECT (
    SELECT count(*) FROM (
        SELECT FROM datasets_datum AS datum
        WHERE datum.words @@ word.query AND datum.dataset_id = ANY (%(dataset_ids)s) LIMIT %(common)s) AS datum)
FROM unnest(%(queries)s::text[]::tsquery[]) WITH ORDINALITY AS word(query, number) ORDER BY word.number
"""
# It tells whether there are COMMON vectors, which an index knows at once, and about how many rows all data have.
SIZES = """
SELECT (
    SELECT count(*) = %(common)s FROM (
        SELECT FROM datasets_vector WHERE vector_set_id = ANY (ARRAY(
            SELECT id FROM datasets_vectorset WHERE dataset_id = ANY (%(dataset_ids)s) AND is_current))
        LIMIT %(common)s) AS vector),
    (SELECT greatest(reltuples, %(common)s) FROM pg_class WHERE oid = 'datasets_datum'::regclass)
"""
# EXPLAIN estimates the rows for each word by the statistics of the last ANALYZE alone.
ESTIMATED = "SELECT 1 FROM datasets_datum WHERE words @@ %s::tsquery"

# BM25, with its usual k1 = 1.2 and b = 0.75. How often a text has a word is what ts_rank makes 1 + 1/4 + 1/9 ... of,
# so many terms of the series whose sum is pi^2 / 6. A text's length is told by its characters. Joined to nothing, a
# vector is read once, and not for each word anew.
WEIGHED = """
WITH datum AS MATERIALIZED (
    SELECT datum.* FROM unnest(%(queries)s::text[]::tsquery[]) AS part(query) CROSS JOIN LATERAL (
        SELECT id, words || '' AS words, length(q) + length(a) AS length FROM datasets_datum
        WHERE words @@ part.query AND dataset_id = ANY (%(dataset_ids)s) LIMIT %(weighed)s) AS datum
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


@dataclass(frozen=True, slots=True)
class Word:
    """A word as a tsquery has it, and how many texts of the datasets have it: about so many, where it is common."""

    lexeme: str
    count: float


def find_by_words(connection: Connection, dataset_ids: Sequence[str], words: str) -> Scored:
    """Return (datum, weight) pairs, best first, of data with a rare one of these words, or several common ones."""
    row = connection.execute(LEXEMES, [words]).fetchone()
    lexemes = [quote_lexeme(lexeme) for lexeme in row[0][:MAXIMUM_WORDS]] if row else []
    if not lexemes:
        return []
    texts = Texts(connection, dataset_ids)
    total, found = texts.count_words(lexemes)
    rare, common = _apart(found, total)
    queries = [" | ".join(word.lexeme for word in rare)] if rare else []
    weighed: Scored | None = None
    for several in _several(common, has_rare=bool(rare)):
        queries.append(several)
        weighed = texts.weigh(queries, found, total)
        if len(weighed) >= ENOUGH:
            break
    return texts.weigh(queries, found, total) if weighed is None else weighed


class Texts:
    """The texts of some datasets."""

    def __init__(self, connection: Connection, dataset_ids: Sequence[str]) -> None:
        self._connection = connection
        self._dataset_ids = list(dataset_ids)
        # datasets_dataset_word() of the database spells it so.
        self._own = "(" + " | ".join(quote_lexeme(f" {dataset_id}") for dataset_id in dataset_ids) + ")"

    def count_words(self, lexemes: Sequence[str]) -> tuple[float, list[Word]]:
        """Return how many texts there are, and the words that any of them has, the rarest first."""
        values = {"dataset_ids": self._dataset_ids, "common": COMMON}
        ((is_large, of_all),) = self._connection.execute(SIZES, values).fetchall()
        if is_large:
            total, known = self._estimate(lexemes, of_all)
        else:
            total, known = self._counts([self._own])[0], {}
        counted = [lexeme for lexeme in lexemes if known.get(lexeme, 0) < COMMON]
        known |= zip(counted, self._counts([f"{self._own} & {lexeme}" for lexeme in counted]), strict=True)
        words = [Word(lexeme, count) for lexeme, count in known.items() if count]
        return total, sorted(words, key=lambda word: (word.count, word.lexeme))

    def _counts(self, queries: Sequence[str]) -> list[float]:
        """Of texts that fit each query, COMMON at most."""
        values = {"queries": list(queries), "dataset_ids": self._dataset_ids, "common": COMMON}
        return [count for (count,) in self._connection.execute(COUNTS, values).fetchall()] if queries else []

    def _estimate(self, lexemes: Sequence[str], of_all: float) -> tuple[float, dict[str, float]]:
        """Estimate counts in large datasets by what the planner knows of all data: much of common words alone."""
        queries = [self._own, *lexemes]
        statement = "EXPLAIN (FORMAT JSON) " + " UNION ALL ".join([ESTIMATED] * len(queries))
        (((explained,),),) = self._connection.execute(statement, queries).fetchall()
        own, *counts = [part["Plan Rows"] for part in explained["Plan"]["Plans"]]
        total = min(max(own, COMMON), of_all)
        return total, {
            lexeme: min(count, of_all) * total / of_all for lexeme, count in zip(lexemes, counts, strict=True)
        }

    def weigh(self, queries: Sequence[str], words: Sequence[Word], total: float) -> Scored:
        """Of texts that fit one of these tsqueries, so many of each as can be weighed: the best by all words."""
        # Each text comes once: one that fits an earlier query is left out.
        parts = [
            " & ".join([self._own, f"({query})", *(f"!({earlier})" for earlier in queries[:number])])
            for number, query in enumerate(queries)
        ]
        values = {
            "queries": parts,
            "dataset_ids": self._dataset_ids,
            "words": [word.lexeme for word in words],
            "weights": [math.log(1 + (total - word.count + 0.5) / (word.count + 0.5)) for word in words],
            "weighed": MAXIMUM_WEIGHED,
            "limit": CANDIDATES,
        }
        return self._connection.execute(WEIGHED, values).fetchall() if parts else []


def _apart(words: Sequence[Word], total: float) -> tuple[list[Word], list[Word]]:
    """Split off the rarest words, so many that all texts with one of them can be weighed, from the others."""
    room = math.inf if total <= MAXIMUM_WEIGHED else MAXIMUM_WEIGHED
    for number, word in enumerate(words):
        room -= word.count
        if room < 0:
            return list(words[:number]), list(words[number:])
    return list(words), []


def _several(common: Sequence[Word], *, has_rare: bool) -> Iterator[str]:
    """Yield tsqueries: all of these words, the rarest of them; then all but any one, and so on."""
    lexemes = [word.lexeme for word in common[:MAXIMUM_TOGETHER]]
    # A common word alone tells nothing that a rare one does not.
    for size in range(len(lexemes), 1 if has_rare else 0, -1):
        yield " | ".join(f"({' & '.join(together)})" for together in combinations(lexemes, size))


def quote_lexeme(lexeme: str) -> str:
    return "'" + lexeme.replace("\\", "\\\\").replace("'", "''") + "'"
