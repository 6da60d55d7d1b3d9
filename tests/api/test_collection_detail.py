"""`core/dataset/collection/detail`: a collection, its dataset, and how far its import is."""

import pytest

from datasets.data import NewDatum, insert
from datasets.models import ImportState, Kind
from tests.conftest import Server
from tests.support import factories
from tests.support.datasets import Library


@pytest.fixture
def library(server: Server) -> Library:
    return Library(server)


def test_it_works(library: Library) -> None:
    dataset = factories.make_dataset(library.team)
    collection = factories.make_collection(dataset, metadata={"a": 1}, chunk_size=100)
    insert(collection, [NewDatum("one")])
    detail = library.get("collection/detail", id=collection.pk)
    wanted = {
        "_id": collection.pk,
        "parentId": None,
        "teamId": library.team.pk,
        "datasetId": dataset.pk,
        "type": "virtual",
        "name": collection.name,
        "sourceName": collection.name,
        "sourceId": collection.pk,
        "rawLink": None,
        "trainingType": "chunk",
        "chunkSize": 100,
        "metadata": {"a": 1},
        "dataAmount": 1,
        "trainingAmount": 1,
        "state": "ready",
        "error": "",
    }
    assert {name: detail[name] for name in wanted} == wanted
    assert (detail["dataset"]["_id"], detail["dataset"]["name"]) == (dataset.pk, dataset.name)


def test_an_import_that_failed(library: Library) -> None:
    collection = factories.make_collection(
        factories.make_dataset(library.team),
        kind=Kind.LINK,
        url="https://example.org/film",
        state=ImportState.FAILED,
        failure="It is larger than 10 MB.",
        repeated=3,
    )
    detail = library.get("collection/detail", id=collection.pk)
    assert (detail["state"], detail["error"], detail["trainingAmount"]) == ("failed", "It is larger than 10 MB.", 0)
    assert (detail["rawLink"], detail["sourceId"], detail["repeat"]) == (collection.url, collection.url, 3)


@pytest.mark.parametrize("state", [ImportState.WAITING, ImportState.READING])
def test_an_import_that_has_not_ended(library: Library, state: ImportState) -> None:
    collection = factories.make_collection(factories.make_dataset(library.team), kind=Kind.FILE, state=state)
    assert library.get("collection/detail", id=collection.pk)["trainingAmount"] == 1
