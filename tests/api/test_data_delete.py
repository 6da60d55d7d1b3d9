"""`core/dataset/data/delete`: a datum goes with its texts and vectors."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from asgiref.sync import async_to_sync

from datasets.data import NewDatum, insert
from datasets.models import Datum, IndexText, PendingVector, Vector
from datasets.vectors import sets
from tests.conftest import Server
from tests.support import factories
from tests.support.datasets import Library, data_of
from tests.support.refusals import TABLE


@pytest.fixture
def library(server: Server) -> Library:
    return Library(server)


@pytest.mark.parametrize("body", ["id", "dataId", None])
def test_it_works(library: Library, body: str | None) -> None:
    collection = factories.make_collection(factories.make_dataset(library.team))
    ids = insert(collection, [NewDatum("one"), NewDatum("two")]).ids
    async_to_sync(sets.embed_pending)(collection.dataset_id)
    insert(collection, [NewDatum("three")])
    if body is None:
        response = library.call("DELETE", f"data/delete?id={ids[0]}")
    else:
        response = library.call("POST", "data/delete", {body: ids[0]})
    assert data_of(response) == "success"
    assert list(Datum.objects.filter(collection=collection).values_list("q", flat=True)) == ["two", "three"]
    assert set(IndexText.objects.filter(dataset=collection.dataset).values_list("text", flat=True)) == {"two", "three"}
    assert Vector.objects.filter(vector_set__dataset=collection.dataset).count() == 1
    assert PendingVector.objects.filter(collection=collection).count() == 1


def test_once(library: Library) -> None:
    """When many do so at once, one removes it, and the others do not find it."""
    collection = factories.make_collection(factories.make_dataset(library.team))
    datum_id = insert(collection, [NewDatum("one")]).ids[0]
    with ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(library.call, "POST", "data/delete", {"id": datum_id}) for _ in range(4)]
    status = TABLE["unAuthDatasetData"][0]
    assert sorted(call.result().status_code for call in calls) == [200, status, status, status]
