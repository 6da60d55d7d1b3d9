"""Insertion and change of data, with the words and texts by which they are found.

Texts wait for their vectors, which `vectors.sets` makes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from django.db import connection, transaction

from apikeys.object_ids import new_object_id
from apikeys.storable_text import storable
from datasets.models import Collection, Datum
from datasets.queue import queue_embedding_on_commit
from datasets.texts import words_of

# One datum may be found by so many texts besides its own.
MAXIMUM_INDEX_TEXTS = 20


@dataclass(frozen=True, slots=True)
class NewDatum:
    """A datum to insert. `insert` makes its texts storable and trims them."""

    q: str
    a: str = ""
    # None puts it after the last one of its collection.
    chunk_index: int | None = None
    index_texts: Sequence[str] = ()


@dataclass(slots=True)
class Insertion:
    """The result of an insertion, by the items' ordinals: the ids of new ones, and those that were there before."""

    ids: dict[int, str] = field(default_factory=dict)
    repeated: list[int] = field(default_factory=list)


def digest_of(q: str, a: str) -> bytes:
    return sha256(f"{q}\0{a}".encode()).digest()


def clean(text: str) -> str:
    return storable(text).strip()


# The dataset is held first: a change of its model, which locks it whole, comes before or after and never between.
HOLD = "SELECT 1 FROM datasets_dataset WHERE id = %(dataset_id)s FOR KEY SHARE"

# Rows are inserted in the order of digests: two that bring the same at once would otherwise wait for each other.
INSERT = """
WITH item AS (
    SELECT * FROM unnest(%(ids)s::text[], %(qs)s::text[], %(as)s::text[], %(digests)s::bytea[], %(words)s::text[],
        %(chunk_indexes)s::int[]) WITH ORDINALITY AS item(id, q, a, digest, words, chunk_index, ordinal)
),
datum AS (
    INSERT INTO datasets_datum (id, dataset_id, collection_id, chunk_index, q, a, digest, words)
    SELECT item.id, %(dataset_id)s, %(collection_id)s,
        coalesce(item.chunk_index, item.ordinal - 1 + (
            SELECT coalesce(max(chunk_index) + 1, 0) FROM datasets_datum WHERE collection_id = %(collection_id)s)),
        item.q, item.a, item.digest, datasets_search_vector(item.words, %(dataset_id)s)
    FROM item ORDER BY item.digest, item.ordinal
    ON CONFLICT (collection_id, digest) DO NOTHING
    RETURNING id
),
index_text AS (
    INSERT INTO datasets_indextext (datum_id, dataset_id, is_default, text)
    SELECT text.datum_id, %(dataset_id)s, text.is_default, text.text
    FROM unnest(%(text_ids)s::text[], %(are_default)s::boolean[], %(texts)s::text[])
        AS text(datum_id, is_default, text)
    JOIN datum ON datum.id = text.datum_id
    RETURNING id
),
pending AS (
    INSERT INTO datasets_pendingvector (vector_set_id, index_text_id, collection_id)
    SELECT vector_set.id, index_text.id, %(collection_id)s
    FROM index_text CROSS JOIN datasets_vectorset AS vector_set WHERE vector_set.dataset_id = %(dataset_id)s
)
SELECT id FROM datum
"""


def insert(collection: Collection, items: Sequence[NewDatum]) -> Insertion:
    """Insert what is new, in one transaction, and queue the making of its vectors. Of equal items the first counts."""
    insertion = Insertion()
    columns: dict[str, Any] = {
        "dataset_id": collection.dataset_id,
        "collection_id": collection.pk,
        **{name: [] for name in ("ids", "qs", "as", "digests", "words", "chunk_indexes")},
        **{name: [] for name in ("text_ids", "are_default", "texts")},
    }
    ordinals: dict[str, int] = {}
    for ordinal, item in enumerate(items):
        q, a, datum_id = clean(item.q), clean(item.a), new_object_id()
        ordinals[datum_id] = ordinal
        columns["ids"].append(datum_id)
        columns["qs"].append(q)
        columns["as"].append(a)
        columns["digests"].append(digest_of(q, a))
        columns["words"].append(words_of(f"{q}\n{a}"))
        columns["chunk_indexes"].append(item.chunk_index)
        for is_default, text in index_texts_of(q, item.index_texts):
            columns["text_ids"].append(datum_id)
            columns["are_default"].append(is_default)
            columns["texts"].append(text)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(HOLD, columns)
        cursor.execute(INSERT, columns)
        insertion.ids = {ordinals[datum_id]: datum_id for (datum_id,) in cursor.fetchall()}
        if insertion.ids:
            queue_embedding_on_commit(collection.dataset_id)
    insertion.repeated = [ordinal for ordinal in range(len(items)) if ordinal not in insertion.ids]
    return insertion


def index_texts_of(q: str, others: Iterable[str]) -> list[tuple[bool, str]]:
    """Return (is_default, text) pairs of a datum, each text once."""
    texts = dict.fromkeys(cleaned for text in others if (cleaned := clean(text)))
    texts.pop(q, None)
    return [(True, q), *((False, text) for text in texts)]


CHANGE = """
WITH gone AS (
    DELETE FROM datasets_indextext
    WHERE datum_id = %(id)s AND dataset_id = %(dataset_id)s AND NOT (is_default, text) IN (
        SELECT * FROM unnest(%(are_default)s::boolean[], %(texts)s::text[]))
),
index_text AS (
    INSERT INTO datasets_indextext (datum_id, dataset_id, is_default, text)
    SELECT %(id)s, %(dataset_id)s, text.is_default, text.text
    FROM unnest(%(are_default)s::boolean[], %(texts)s::text[]) AS text(is_default, text)
    WHERE NOT EXISTS (
        SELECT 1 FROM datasets_indextext AS kept
        WHERE kept.datum_id = %(id)s AND (kept.is_default, kept.text) = (text.is_default, text.text))
    RETURNING id
)
INSERT INTO datasets_pendingvector (vector_set_id, index_text_id, collection_id)
SELECT vector_set.id, index_text.id, %(collection_id)s
FROM index_text CROSS JOIN datasets_vectorset AS vector_set WHERE vector_set.dataset_id = %(dataset_id)s
"""


def change(datum: Datum, *, q: str, a: str, index_texts: Sequence[str] | None = None) -> None:
    """Give a datum another text, and queue new vectors where texts differ. None leaves its other texts.

    Raise django.db.IntegrityError when its collection has this question and answer already.
    """
    q, a = clean(q), clean(a)
    with transaction.atomic(), connection.cursor() as cursor:
        columns = {"id": datum.pk, "dataset_id": datum.dataset_id, "collection_id": datum.collection_id}
        cursor.execute(HOLD, columns)
        cursor.execute(
            "UPDATE datasets_datum SET q = %(q)s, a = %(a)s, digest = %(digest)s, updated_at = now(),"
            " words = datasets_search_vector(%(words)s, dataset_id) WHERE id = %(id)s AND dataset_id = %(dataset_id)s",
            columns | {"q": q, "a": a, "digest": digest_of(q, a), "words": words_of(f"{q}\n{a}")},
        )
        if index_texts is None:
            index_texts = list(datum.index_texts.filter(is_default=False).values_list("text", flat=True))
        texts = index_texts_of(q, index_texts)
        columns |= {"are_default": [default for default, _ in texts], "texts": [text for _, text in texts]}
        cursor.execute(CHANGE, columns)
        queue_embedding_on_commit(datum.dataset_id)
    datum.q, datum.a = q, a
