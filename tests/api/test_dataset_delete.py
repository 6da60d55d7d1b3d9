"""`core/dataset/delete`: a dataset goes with all that is in it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from asgiref.sync import async_to_sync
from django.db import connection

from apikeys.audit.models import AuditEntry
from datasets.data import NewDatum, insert
from datasets.models import Collection, Dataset, Datum, IndexText, PendingVector, VectorSet
from datasets.vectors import sets
from tests.conftest import Server
from tests.support import factories
from tests.support.datasets import Library, data_of
from tests.support.refusals import check_refusal


@pytest.fixture
def library(server: Server) -> Library:
    return Library(server)


def delete(library: Library, dataset: Dataset, method: str = "DELETE"):
    if method == "DELETE":
        return library.call("DELETE", f"delete?id={dataset.pk}")
    return library.call("POST", "delete", {"id": dataset.pk})


@pytest.mark.parametrize("method", ["DELETE", "POST"])
def test_it_works(library: Library, method: str) -> None:
    dataset, other = factories.make_dataset(library.team), factories.make_dataset(library.team)
    insert(factories.make_collection(dataset), [NewDatum("one")])
    assert data_of(delete(library, dataset, method)) is None
    for model in (Collection, Datum, IndexText, VectorSet):
        assert not model.objects.filter(dataset=dataset.pk).exists(), model
    assert not PendingVector.objects.filter(vector_set__dataset=dataset.pk).exists()
    assert list(Dataset.objects.for_team(library.team.pk)) == [other]
    entry = AuditEntry.objects.get_for_object(dataset).latest("pk")
    assert (entry.action, entry.object_repr, entry.team) == (AuditEntry.Action.DELETE, dataset.name, library.team)
    assert library.api_key.name in entry.actor_name


def test_twice(library: Library) -> None:
    dataset = factories.make_dataset(library.team)
    data_of(delete(library, dataset))
    check_refusal(delete(library, dataset), "unAuthDataset")


@pytest.mark.parametrize("path", ["delete", "collection/delete"])
def test_while_data_come_and_vectors_are_made(library: Library, path: str) -> None:
    """New data are refused or removed as well; neither they nor the job that makes the vectors fails."""
    for _ in range(4):
        collection = factories.make_collection(factories.make_dataset(library.team))
        insert(collection, [NewDatum(f"question {number}") for number in range(400)])
        items = [{"q": f"more {number}"} for number in range(100)]
        body = {"id": collection.dataset_id if path == "delete" else collection.pk}
        with ThreadPoolExecutor(2) as threads:
            pushed = threads.submit(
                library.call, "POST", "data/pushData", {"collectionId": collection.pk, "data": items}
            )
            removed = threads.submit(library.call, "POST", path, body)
            async_to_sync(sets.embed_pending)(collection.dataset_id)
        data_of(removed.result())
        if pushed.result().status_code != 200:
            check_refusal(pushed.result(), "unAuthDatasetCollection")
        assert not Datum.objects.filter(dataset=collection.dataset_id).exists()
        assert not PendingVector.objects.filter(collection=collection.pk).exists()


@pytest.fixture
def user_of_datasets() -> Iterator[str]:
    """Make a table that refers to datasets as apps do: the reference is checked when a transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE user_of_datasets (dataset_id varchar(24) NOT NULL"
            " REFERENCES datasets_dataset DEFERRABLE INITIALLY DEFERRED)"
        )
        yield "user_of_datasets"
        cursor.execute("DROP TABLE user_of_datasets")


def test_one_that_is_used(library: Library, user_of_datasets: str) -> None:
    dataset = factories.make_dataset(library.team)
    insert(factories.make_collection(dataset), [NewDatum("one")])
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {user_of_datasets} VALUES (%s)", [dataset.pk])
    assert "app" in check_refusal(delete(library, dataset), "invalid_parameter", param="id")
    assert Datum.objects.filter(dataset=dataset).exists()
    entries = AuditEntry.objects.get_for_object(dataset)
    assert not entries.filter(action=AuditEntry.Action.DELETE).exists()
