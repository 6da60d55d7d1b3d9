"""`core/dataset/data/detail`: a datum with the texts that it is found by."""

import pytest

from datasets.data import NewDatum, insert
from datasets.models import Kind
from tests.conftest import Server
from tests.support import factories
from tests.support.datasets import Library


@pytest.fixture
def library(server: Server) -> Library:
    return Library(server)


def test_it_works(library: Library) -> None:
    collection = factories.make_collection(factories.make_dataset(library.team))
    datum_id = insert(collection, [NewDatum("导演是谁", "李安", 3, ["director"])]).ids[0]
    detail = library.get("data/detail", id=datum_id)
    wanted = {
        "id": datum_id,
        "_id": datum_id,
        "teamId": library.team.pk,
        "datasetId": collection.dataset_id,
        "collectionId": collection.pk,
        "q": "导演是谁",
        "a": "李安",
        "chunkIndex": 3,
        "sourceName": collection.name,
        "sourceId": collection.pk,
    }
    assert {name: detail[name] for name in wanted} == wanted
    assert [(index["text"], index["defaultIndex"], index["type"]) for index in detail["indexes"]] == [
        ("导演是谁", True, "default"),
        ("director", False, "custom"),
    ]


def test_of_a_link(library: Library) -> None:
    url = "https://example.org/film"
    collection = factories.make_collection(factories.make_dataset(library.team), kind=Kind.LINK, url=url)
    datum_id = insert(collection, [NewDatum("one")]).ids[0]
    assert library.get("data/detail", id=datum_id)["sourceId"] == url
