"""`core/dataset/data/list` and `v2/list`: the data of a collection."""

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from datasets.data import NewDatum, insert
from datasets.models import Collection, Datum
from tests.conftest import Server
from tests.support import factories
from tests.support.datasets import ROOT, Library, data_of
from tests.support.pages import browser
from tests.support.refusals import check_refusal

LISTS = ["data/list", "data/v2/list"]


@pytest.fixture
def library(server: Server) -> Library:
    return Library(server)


@pytest.fixture
def collection(library: Library) -> Collection:
    return factories.make_collection(factories.make_dataset(library.team))


def questions(page: dict[str, Any]) -> list[str]:
    return [datum["q"] for datum in page["list"]]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", LISTS)
def test_it_works(library: Library, collection: Collection, method: str, path: str) -> None:
    insert(collection, [NewDatum("second", chunk_index=1), NewDatum("first", "answer", chunk_index=0)])
    insert(factories.make_collection(collection.dataset), [NewDatum("another's")])
    asked = {"collectionId": collection.pk, "searchText": "", "offset": 0, "pageSize": 10}
    page = data_of(library.call(method, path, **({"params": asked} if method == "GET" else {"body": asked})))
    assert (page["total"], questions(page)) == (2, ["first", "second"])
    wanted = {
        "_id": Datum.objects.get(collection=collection, q="first").pk,
        "teamId": library.team.pk,
        "datasetId": collection.dataset_id,
        "collectionId": collection.pk,
        "q": "first",
        "a": "answer",
        "chunkIndex": 0,
    }
    assert {name: page["list"][0][name] for name in wanted} == wanted


def test_the_older_form(library: Library, collection: Collection) -> None:
    insert(collection, [NewDatum("one")])
    page = library.post("data/list", collectionId=collection.pk, pageNum=1, pageSize=5)
    assert (page["pageNum"], page["pageSize"], page["data"]) == (1, 5, page["list"])
    assert library.post("data/v2/list", collectionId=collection.pk).keys() == {"list", "total"}


def test_search(library: Library, collection: Collection) -> None:
    insert(collection, [NewDatum("Who directs?", "Ang Lee"), NewDatum("导演是谁", "李安 100%")])
    for text, found in {"ANG": 1, "导演": 1, "%": 1, "_": 0, "\0": 0, "w": 1, "nobody": 0}.items():
        page = library.post("data/v2/list", collectionId=collection.pk, searchText=text)
        assert (page["total"], len(page["list"])) == (found, found), text


def test_pages(library: Library, collection: Collection) -> None:
    insert(collection, [NewDatum(f"question {number}") for number in range(101)])
    page = library.post("data/list", collectionId=collection.pk, pageNum=3, pageSize=20)
    assert (page["total"], questions(page)[0], len(page["list"])) == (101, "question 40", 20)
    page = library.get("data/v2/list", collectionId=collection.pk, pageSize=1_000)
    assert (questions(page)[-1], len(page["list"])) == ("question 99", 100)


def test_bad_input(library: Library, collection: Collection) -> None:
    check_refusal(library.call("POST", "data/v2/list", {}), "invalid_parameter", param="collectionId")
    body = {"collectionId": collection.pk, "pageSize": -1}
    check_refusal(library.call("POST", "data/v2/list", body), "invalid_parameter", param="pageSize")
    check_refusal(library.call("GET", "data/list", params=body), "invalid_parameter", param="pageSize")


@pytest.mark.parametrize("path", LISTS)
def test_same_number_of_queries(path: str) -> None:
    collection = factories.make_collection()
    team = collection.dataset.team
    client = browser(factories.make_user(team, permissions=("datasets.view_datum",)))

    def queries(count: int) -> int:
        with CaptureQueriesContext(connection) as captured:
            answer = client.get(f"{ROOT}/{path}", {"collectionId": collection.pk, "pageSize": 50})
            assert len(answer.json()["data"]["list"]) == count
        return len(captured)

    insert(collection, [NewDatum("one")])
    before = queries(1)
    insert(collection, [NewDatum(str(number)) for number in range(10)])
    assert queries(11) == before
