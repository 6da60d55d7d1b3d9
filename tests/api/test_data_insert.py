"""`core/dataset/data/insertData`: one datum."""

from typing import Any

import pytest

from datasets.models import Collection, Datum, Kind
from datasets.texts import MAXIMUM_TOKENS
from tests.conftest import Server
from tests.support import factories
from tests.support.datasets import Library, data_of
from tests.support.refusals import check_refusal


@pytest.fixture
def library(server: Server) -> Library:
    return Library(server)


@pytest.fixture
def collection(library: Library) -> Collection:
    return factories.make_collection(factories.make_dataset(library.team))


def insert(library: Library, collection: Collection, **body: Any) -> Any:
    return library.call("POST", "data/insertData", {"collectionId": collection.pk, **body})


def test_it_works(library: Library, collection: Collection) -> None:
    datum_id = data_of(insert(library, collection, q=" 导演是谁 ", a="李安", indexes=[{"text": "director"}]))
    datum = Datum.objects.get(pk=datum_id)
    assert (datum.collection, datum.q, datum.a, datum.chunk_index) == (collection, "导演是谁", "李安", 0)
    assert set(datum.index_texts.values_list("text", "is_default")) == {("导演是谁", True), ("director", False)}
    second = Datum.objects.get(pk=data_of(insert(library, collection, q="second")))
    assert second.chunk_index == 1


def test_a_repeat(library: Library, collection: Collection) -> None:
    data_of(insert(library, collection, q="one"))
    assert "already" in check_refusal(insert(library, collection, q="one "), "invalid_parameter", param="q")
    data_of(insert(library, factories.make_collection(collection.dataset), q="one"))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "q"),
        ({"q": None, "a": "x"}, "q"),
        ({"q": " \n "}, "q"),
        ({"q": 1}, "q"),
        ({"q": "导演" * MAXIMUM_TOKENS}, "q"),
        ({"q": "x", "a": "x" * 500_000}, "q"),
        ({"q": "x", "indexes": {}}, "indexes"),
    ],
)
def test_bad_input(library: Library, collection: Collection, body: dict[str, Any], param: str) -> None:
    check_refusal(insert(library, collection, **body), "invalid_parameter", param=param)
    assert not Datum.objects.filter(collection=collection).exists()


def test_a_folder(library: Library, collection: Collection) -> None:
    folder = factories.make_collection(collection.dataset, kind=Kind.FOLDER)
    check_refusal(insert(library, folder, q="x"), "invalid_parameter", param="collectionId")
