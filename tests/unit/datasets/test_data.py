"""Insertion, change and removal of data, and the vectors that are made for them."""

from asgiref.sync import async_to_sync
from django.db import connection

from datasets.data import NewDatum, change, insert
from datasets.models import Dataset, Datum, IndexText, PendingVector, Vector, VectorSet
from datasets.vectors import sets
from tests.support import factories


def test_it_works() -> None:
    collection = factories.make_collection()
    insertion = insert(collection, [NewDatum("导演是谁", "李安"), NewDatum("two", index_texts=["2", "two", " "])])
    assert sorted(insertion.ids) == [0, 1]
    assert insertion.repeated == []
    data = Datum.objects.filter(collection=collection)
    assert [(datum.q, datum.a, datum.chunk_index) for datum in data] == [("导演是谁", "李安", 0), ("two", "", 1)]
    assert sorted(IndexText.objects.filter(dataset=collection.dataset).values_list("text", "is_default")) == [
        ("2", False),
        ("two", True),
        ("导演是谁", True),
    ]
    assert PendingVector.objects.filter(collection=collection).count() == 3
    async_to_sync(sets.embed_pending)(collection.dataset_id)
    assert not PendingVector.objects.filter(collection=collection).exists()
    vectors = Vector.objects.filter(vector_set__dataset=collection.dataset)
    assert vectors.count() == 3
    assert all(len(vector.embedding) == 256 for vector in vectors)


def test_the_same_again() -> None:
    collection = factories.make_collection()
    insert(collection, [NewDatum("one")])
    insertion = insert(collection, [NewDatum("two"), NewDatum(" one "), NewDatum("two"), NewDatum("one", "1")])
    assert sorted(insertion.ids) == [0, 3]
    assert insertion.repeated == [1, 2]
    # Another collection may have it as well.
    other = factories.make_collection(collection.dataset)
    assert sorted(insert(other, [NewDatum("one")]).ids) == [0]


def test_a_change() -> None:
    collection = factories.make_collection()
    insert(collection, [NewDatum("one", index_texts=["1"])])
    datum = Datum.objects.get(collection=collection)
    async_to_sync(sets.embed_pending)(collection.dataset_id)
    kept = Vector.objects.get(index_text__text="1", vector_set__dataset=collection.dataset)
    change(datum, q="ein", a="1")
    assert sorted(IndexText.objects.filter(datum=datum).values_list("text", flat=True)) == ["1", "ein"]
    assert Vector.objects.get(index_text__datum=datum) == kept
    async_to_sync(sets.embed_pending)(collection.dataset_id)
    assert Vector.objects.filter(index_text__datum=datum).count() == 2


def test_another_model() -> None:
    """It takes over when it has every vector, also of what came meanwhile."""
    collection = factories.make_collection()
    insert(collection, [NewDatum("one"), NewDatum("two")])
    async_to_sync(sets.embed_pending)(collection.dataset_id)
    before = VectorSet.objects.get(dataset=collection.dataset)
    VectorSet.objects.filter(pk=before.pk).update(model="an older one")
    after = sets.change_model(collection.dataset, None, "")
    assert after is not None
    insert(collection, [NewDatum("three")])
    assert Vector.objects.filter(vector_set=before).count() == 2
    async_to_sync(sets.embed_pending)(collection.dataset_id)
    (now,) = VectorSet.objects.filter(dataset=collection.dataset)
    assert (now, now.is_current) == (after, True)
    assert Vector.objects.filter(vector_set=after).count() == 3
    assert sets.change_model(collection.dataset, None, "") is None


def test_nothing_stays_of_a_dataset() -> None:
    collection = factories.make_collection()
    insert(collection, [NewDatum("one")])
    async_to_sync(sets.embed_pending)(collection.dataset_id)
    insert(collection, [NewDatum("two")])
    collection.dataset.delete()
    with connection.cursor() as cursor:
        for table in ("collection", "datum", "indextext", "vectorset"):
            cursor.execute(f"SELECT 1 FROM datasets_{table} WHERE dataset_id = %s", [collection.dataset_id])
            assert cursor.fetchall() == [], table
    assert not PendingVector.objects.filter(collection_id=collection.pk).exists()


def test_a_dataset_that_goes_while_its_new_vectors_are_completed() -> None:
    collection = factories.make_collection()
    VectorSet.objects.filter(dataset=collection.dataset_id).update(model="an older one")
    after = sets.change_model(collection.dataset, None, "")
    Dataset.objects.filter(pk=collection.dataset_id).delete()
    sets._take_over_if_complete(after)
    assert not VectorSet.objects.filter(dataset=collection.dataset_id).exists()
