"""`core/dataset/collection/list` and `listV2`: what is in a dataset or in one of its folders."""

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from datasets.data import NewDatum, insert
from datasets.models import Collection, Dataset, ImportState, Kind
from datasets.vectors import sets
from tests.conftest import Server
from tests.support import factories
from tests.support.datasets import ABSENT, ROOT, Library, data_of
from tests.support.pages import browser
from tests.support.refusals import check_refusal

LISTS = ["collection/list", "collection/listV2"]


@pytest.fixture
def library(server: Server) -> Library:
    return Library(server)


@pytest.fixture
def dataset(library: Library) -> Dataset:
    return factories.make_dataset(library.team)


def names(page: dict[str, Any]) -> list[str]:
    return [collection["name"] for collection in page["list"]]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", LISTS)
def test_it_works(library: Library, dataset: Dataset, method: str, path: str) -> None:
    folder = factories.make_collection(dataset, kind=Kind.FOLDER)
    link = factories.make_collection(dataset, kind=Kind.LINK, url="https://example.org/", state=ImportState.READING)
    factories.make_collection(dataset, parent=folder)
    factories.make_collection(factories.make_dataset(library.team))
    insert(link, [NewDatum("one"), NewDatum("two", index_texts=["2"])])
    asked = {"datasetId": dataset.pk, "parentId": "", "searchText": "", "pageNum": 1, "pageSize": 10}
    page = data_of(library.call(method, path, **({"params": asked} if method == "GET" else {"body": asked})))
    assert page["total"] == 2
    listed, listed_folder = page["list"]
    wanted = {
        "_id": link.pk,
        "parentId": None,
        "datasetId": dataset.pk,
        "teamId": library.team.pk,
        "type": "link",
        "name": link.name,
        "rawLink": "https://example.org/",
        "dataAmount": 2,
        "trainingAmount": 4,
        "state": "reading",
        "error": "",
        "forbid": False,
        "tags": [],
        "trainingType": "chunk",
    }
    assert {name: listed[name] for name in wanted} == wanted
    assert (listed_folder["type"], listed_folder["dataAmount"], listed_folder["rawLink"]) == ("folder", 0, None)


def test_the_older_form(library: Library, dataset: Dataset) -> None:
    factories.make_collection(dataset)
    page = library.post("collection/list", datasetId=dataset.pk, pageNum=1, pageSize=5)
    assert (page["pageNum"], page["pageSize"], page["data"]) == (1, 5, page["list"])
    assert library.post("collection/listV2", datasetId=dataset.pk).keys() == {"list", "total"}


def test_a_folder(library: Library, dataset: Dataset) -> None:
    folder = factories.make_collection(dataset, kind=Kind.FOLDER)
    inside = factories.make_collection(dataset, parent=folder)
    page = library.get("collection/listV2", datasetId=dataset.pk, parentId=folder.pk)
    assert names(page) == [inside.name]
    assert page["list"][0]["parentId"] == folder.pk


def test_a_folder_of_another_dataset(library: Library, dataset: Dataset) -> None:
    others = [factories.make_dataset(library.team), factories.make_dataset()]
    folders = [factories.make_collection(other, kind=Kind.FOLDER).pk for other in others]
    answers = [
        library.call("POST", "collection/list", {"datasetId": dataset.pk, "parentId": folder})
        for folder in (*folders, ABSENT, "x\0")
    ]
    assert len({check_refusal(answer, "unAuthDatasetCollection") for answer in answers}) == 1


def test_search(library: Library, dataset: Dataset) -> None:
    for name in ("Films 100%", "films", "books", "电影"):
        factories.make_collection(dataset, name=name)
    for text, found in {"FILM": 2, "%": 1, "_": 0, "影": 1, "\0": 0, "\\": 0}.items():
        page = library.post("collection/list", datasetId=dataset.pk, searchText=text)
        assert (page["total"], len(page["list"])) == (found, found), text


def test_pages(library: Library, dataset: Dataset) -> None:
    collections = [factories.make_collection(dataset).name for _ in range(12)][::-1]

    def page(**asked: Any) -> list[str]:
        found = library.post("collection/listV2", datasetId=dataset.pk, **asked)
        assert found["total"] == 12
        return names(found)

    assert page() == collections[:10]
    assert page(pageNum=2) == collections[10:]
    assert page(pageNum=2, pageSize=5) == collections[5:10]
    assert page(pageNum=2, offset=3, pageSize="5") == collections[3:8]
    assert page(offset=None, pageNum=None, pageSize=None) == collections[:10]
    assert page(offset=1_000_000_000) == []


def test_no_page_is_too_long(library: Library, dataset: Dataset) -> None:
    Collection.objects.bulk_create(
        [Collection(dataset=dataset, kind=Kind.VIRTUAL, name=str(number)) for number in range(101)]
    )
    assert len(library.get("collection/list", datasetId=dataset.pk, pageSize=1_000)["list"]) == 100


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"datasetId": None}, "datasetId"),
        ({"pageSize": 0}, "pageSize"),
        ({"pageNum": 0}, "pageNum"),
        ({"offset": -1}, "offset"),
        ({"offset": "x"}, "offset"),
        ({"offset": 10**30}, "offset"),
        ({"pageNum": 10**18}, "pageNum"),
        ({"searchText": 1}, "searchText"),
        ({"searchText": "x" * 1_001}, "searchText"),
    ],
)
def test_bad_input(library: Library, dataset: Dataset, asked: dict[str, Any], param: str) -> None:
    body = {"datasetId": dataset.pk, **asked}
    check_refusal(library.call("POST", "collection/list", body), "invalid_parameter", param=param)
    if param != "searchText":
        query = {name: value for name, value in body.items() if value is not None}
        check_refusal(library.call("GET", "collection/list", params=query), "invalid_parameter", param=param)


def test_what_waits_in_a_set_that_is_in_the_making(library: Library, dataset: Dataset) -> None:
    """It does not count: search goes on with the vectors there are."""
    insert(factories.make_collection(dataset), [NewDatum("one")])
    sets.change_model(dataset, factories.make_provider(library.team), "ada")
    assert library.get("collection/list", datasetId=dataset.pk)["list"][0]["trainingAmount"] == 1


@pytest.mark.parametrize("path", LISTS)
def test_same_number_of_queries(path: str) -> None:
    dataset = factories.make_dataset()
    client = browser(factories.make_user(dataset.team, permissions=("datasets.view_collection",)))

    def queries(count: int) -> int:
        with CaptureQueriesContext(connection) as captured:
            answer = client.get(f"{ROOT}/{path}", {"datasetId": dataset.pk, "pageSize": 50})
            assert len(answer.json()["data"]["list"]) == count
        return len(captured)

    insert(factories.make_collection(dataset), [NewDatum("one")])
    before = queries(1)
    for _ in range(10):
        insert(factories.make_collection(dataset), [NewDatum("one")])
    assert queries(11) == before
