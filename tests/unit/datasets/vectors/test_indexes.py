"""Indexes of large vector sets: a job builds them, searches use them, and they go with their set."""

from collections.abc import Iterator

import pytest
from asgiref.sync import async_to_sync
from django.db import connection

from apikeys.hot_path.connections import connect
from datasets.data import NewDatum, insert
from datasets.models import Collection, IndexText, Vector, VectorSet
from datasets.search import nearest as candidates
from datasets.search.nearest import Near, Scored
from datasets.search.retrieval import SEARCHABLE_DATASETS, Query, search
from datasets.vectors import sets
from datasets.vectors.indexes import LARGE, NAME, build_missing, existing_indexes, name_of
from tests.support import factories


@pytest.fixture(autouse=True)
def no_index_stays() -> Iterator[None]:
    yield
    with connection.cursor() as cursor:
        for name in indexes():
            cursor.execute(f"DROP INDEX {name}")


def indexes() -> set[str]:
    with connect() as own:
        return {name for name, _, is_valid in existing_indexes(own) if is_valid}


def set_of(dimension: int, count: int, first: int = 0) -> VectorSet:
    """Insert texts whose vectors have a 1 each at another place."""
    collection = factories.make_collection()
    vector_set: VectorSet = VectorSet.objects.get(dataset=collection.dataset)
    VectorSet.objects.filter(pk=vector_set.pk).update(dimension=dimension)
    insert(collection, [NewDatum(f"text {first + number}") for number in range(count)])
    texts = IndexText.objects.filter(dataset=collection.dataset).order_by("datum__chunk_index")
    for number, text in enumerate(texts):
        Vector.objects.create(vector_set=vector_set, index_text=text, embedding=unit(dimension, first + number))
    vector_set.pending.all().delete()
    return vector_set


def unit(dimension: int, number: int) -> list[float]:
    return [float(place == number) for place in range(dimension)]


def nearest(near: Near) -> Scored:
    with connect() as own, own.transaction():
        candidates.prepare(own)
        return candidates.nearest(own, near)


def texts_of(found: Scored) -> list[str]:
    texts = dict(IndexText.objects.filter(datum__in=[pk for pk, _ in found]).values_list("datum", "text"))
    return [texts[pk] for pk, _ in found]


@pytest.mark.parametrize("dimension", [31, 2_001], ids=["vector", "halfvec"])
def test_it_works(dimension: int) -> None:
    vector_set, other = set_of(dimension, 30), set_of(dimension, 5)
    assert vector_set.pk not in build_missing(large=31)
    built = build_missing(large=30)
    assert vector_set.pk in built
    assert other.pk not in built
    assert build_missing(large=30) == []
    found = nearest(Near(unit(dimension, 3), [vector_set.pk], []))
    assert texts_of(found)[0] == "text 3"
    assert found[0][1] == pytest.approx(1)
    assert len(found) == 30
    with connect() as own, own.transaction():
        candidates.prepare(own)
        values = {"vector": str(unit(dimension, 3)), "limit": candidates.CANDIDATES}
        plan = own.execute(f"EXPLAIN {candidates.index_query(vector_set.pk, dimension)}", values).fetchall()
    assert name_of(vector_set.pk) in "".join(line for (line,) in plan)


def test_sets_with_and_without_an_index_are_searched_together() -> None:
    first, second, small = set_of(40, 12), set_of(40, 12, first=12), set_of(40, 5, first=24)
    assert {first.pk, second.pk} <= set(build_missing(large=12))
    vector = [0.0] * 40
    # These are nearest to one text of each, in this order.
    vector[13], vector[25], vector[2] = 0.8, 0.5, 0.33
    found = nearest(Near(vector, [first.pk, second.pk], [small.pk]))
    assert texts_of(found)[:3] == ["text 13", "text 25", "text 2"]
    assert len(found) == 29


def test_search_learns_of_an_index() -> None:
    vector_set = set_of(41, 3)
    values = {"team_id": vector_set.dataset.team_id, "dataset_ids": [vector_set.dataset_id], "index_name": NAME}
    with connect() as own:
        assert [row[3] for row in own.execute(SEARCHABLE_DATASETS, values)] == [False]
        build_missing(large=3)
        assert [row[3] for row in own.execute(SEARCHABLE_DATASETS, values)] == [True]


def test_one_that_was_cut_off_is_built_anew() -> None:
    vector_set = set_of(33, 2)
    name = name_of(vector_set.pk)
    assert vector_set.pk in build_missing(large=2)
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{name}'::regclass")
    assert name not in indexes()
    assert vector_set.pk in build_missing(large=2)
    assert name in indexes()


def test_that_of_a_removed_set_goes() -> None:
    vector_set = set_of(34, 2)
    assert vector_set.pk in build_missing(large=2)
    name = name_of(vector_set.pk)
    vector_set.delete()
    assert name in indexes()
    build_missing(large=2)
    assert name not in indexes()


def test_no_index_of_what_is_too_long() -> None:
    assert set_of(4_001, 1).pk not in build_missing(large=1)


def test_no_more_than_a_statement_can_look_through() -> None:
    two = [set_of(35, 2), set_of(35, 2)]
    there = len(indexes())
    assert build_missing(large=2, most=there) == []
    assert len(build_missing(large=2, most=there + 1)) == 1
    assert build_missing(large=2, most=there) == []
    build_missing(large=2)
    assert {name_of(vector_set.pk) for vector_set in two} <= indexes()


def test_a_set_in_the_making_gets_one_when_it_is_complete() -> None:
    vector_set = set_of(36, 3)
    VectorSet.objects.filter(pk=vector_set.pk).update(is_current=False)
    text = IndexText.objects.filter(dataset=vector_set.dataset).first()
    assert text is not None
    vector_set.pending.create(index_text=text, collection=Collection.objects.get(dataset=vector_set.dataset))
    assert vector_set.pk not in build_missing(large=3)
    vector_set.pending.all().delete()
    assert vector_set.pk in build_missing(large=3)


MANY = """
WITH datum AS (
    INSERT INTO datasets_datum (id, dataset_id, collection_id, chunk_index, q, a, digest, words)
    SELECT substr(md5(%(collection_id)s || number), 1, 24), %(dataset_id)s, %(collection_id)s, number,
        'text ' || number, '', sha256(convert_to(number::text, 'UTF8')), ''
    FROM generate_series(1, %(count)s) AS number RETURNING id, q
),
text AS (
    INSERT INTO datasets_indextext (datum_id, dataset_id, is_default, text)
    SELECT id, %(dataset_id)s, true, q FROM datum RETURNING id
)
INSERT INTO datasets_vector (vector_set_id, index_text_id, embedding)
SELECT %(vector_set_id)s, id, (
    SELECT array_agg(sin(id * place)) FROM generate_series(1, 256) AS place)::vector
FROM text
"""


def test_a_large_set_has_one_when_it_takes_over() -> None:
    """Nobody searches a set of real size without its index after the model was changed."""
    team = factories.make_team()
    dataset = factories.make_dataset(team, factories.make_provider(team), "elsewhere")
    collection = factories.make_collection(dataset)
    coming = sets.change_model(dataset, None, "")
    assert coming is not None
    columns = {"dataset_id": dataset.pk, "collection_id": collection.pk, "vector_set_id": coming.pk}
    with connection.cursor() as cursor:
        cursor.execute(MANY, columns | {"count": LARGE})
    assert name_of(coming.pk) not in indexes()
    async_to_sync(sets.embed_pending)(dataset.pk)
    assert dataset.vector_sets.get().pk == coming.pk
    assert name_of(coming.pk) in indexes()
    found = async_to_sync(search)(Query(team.pk, (dataset.pk,), "anything"))
    assert found.quotes
