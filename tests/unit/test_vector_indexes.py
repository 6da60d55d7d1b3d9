"""Indexes of vectors that other models make, built when a set has grown large."""

from collections.abc import Iterator

import pytest
from django.db import connection

from apikeys.database import connect
from datasets import candidates
from datasets.data import NewDatum, insert
from datasets.models import Collection, IndexText, Vector, VectorSet
from datasets.vector_indexes import build_missing
from tests import factories


def collection_of(dimension: int, count: int) -> Collection:
    """Texts whose vectors have a 1 each at another place."""
    collection = factories.make_collection()
    vector_set = VectorSet.objects.get(dataset=collection.dataset)
    VectorSet.objects.filter(pk=vector_set.pk).update(dimension=dimension)
    insert(collection, [NewDatum(f"text {number}") for number in range(count)])
    for number, text in enumerate(IndexText.objects.filter(dataset=collection.dataset).order_by("datum__chunk_index")):
        Vector.objects.create(vector_set=vector_set, index_text=text, embedding=unit(dimension, number))
    vector_set.pending.all().delete()
    return collection


def unit(dimension: int, number: int) -> list[float]:
    return [float(place == number) for place in range(dimension)]


@pytest.fixture(params=[31, 2_001], ids=["vector", "halfvec"])
def dimension(request: pytest.FixtureRequest) -> Iterator[int]:
    yield request.param
    with connection.cursor() as cursor:
        cursor.execute(f"DROP INDEX IF EXISTS vector_hnsw_{request.param}")


def test_it_works(dimension: int, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = collection_of(dimension, 30)
    other = collection_of(dimension, 5)
    assert dimension not in build_missing(large=31)
    assert dimension in build_missing(large=30)
    assert build_missing(large=30) == []
    monkeypatch.setattr(candidates, "LARGE", 0)
    (set_id,) = VectorSet.objects.filter(dataset=collection.dataset).values_list("pk", flat=True)
    with connect() as own, own.transaction():
        candidates.prepare(own)
        near = candidates.Near([set_id], unit(dimension, 3), has_index=True)
        found = candidates.nearest(own, near)
        plan = own.execute(f"EXPLAIN {candidates.by_index(dimension)}", near.values()).fetchall()
    first, score = found[0]
    assert collection.data.get(pk=first).q == "text 3"
    assert score == pytest.approx(1)
    assert len(found) == 30
    assert not other.data.filter(pk__in=[pk for pk, _ in found]).exists()
    assert f"vector_hnsw_{dimension}" in "".join(line for (line,) in plan)


def test_one_that_was_cut_off_is_built_anew() -> None:
    collection_of(33, 2)
    with connection.cursor() as cursor:
        assert 33 in build_missing(large=2)
        cursor.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'vector_hnsw_33'::regclass")
        assert 33 in build_missing(large=2)
        cursor.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = 'vector_hnsw_33'::regclass")
        assert cursor.fetchone() == (True,)
        cursor.execute("DROP INDEX vector_hnsw_33")


def test_no_index_of_what_is_too_long() -> None:
    collection_of(4_001, 1)
    assert 4_001 not in build_missing(large=1)
