"""`core/dataset/collection/update`: another name, another folder."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from apikeys.audit.models import AuditEntry
from datasets.folders import MAXIMUM_DEPTH
from datasets.models import Collection, Dataset, Kind
from tests.conftest import Server
from tests.support import factories
from tests.support.datasets import ABSENT, Library, data_of
from tests.support.refusals import check_refusal


@pytest.fixture
def library(server: Server) -> Library:
    return Library(server)


@pytest.fixture
def dataset(library: Library) -> Dataset:
    return factories.make_dataset(library.team)


def update(library: Library, collection: Collection, method: str = "PUT", **body: Any) -> Any:
    return library.call(method, "collection/update", {"id": collection.pk, **body})


def make_folder(dataset: Dataset, parent: Collection | None = None) -> Collection:
    return factories.make_collection(dataset, kind=Kind.FOLDER, parent=parent)


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_it_works(library: Library, dataset: Dataset, method: str) -> None:
    folder, collection = make_folder(dataset), factories.make_collection(dataset, name="before")
    before = collection.updated_at
    body = {"name": " after ", "parentId": folder.pk, "tags": ["x"], "forbid": False}
    assert data_of(update(library, collection, method, **body)) is None
    collection.refresh_from_db()
    assert (collection.name, collection.parent) == ("after", folder)
    assert collection.updated_at > before
    entry = AuditEntry.objects.get_for_object(collection).latest("pk")
    assert entry.changes == {"name": ["before", "after"], "parent": [None, folder.name]}
    assert (entry.team, entry.actor) == (library.team, None)


def test_what_is_not_named_stays(library: Library, dataset: Dataset) -> None:
    folder = make_folder(dataset)
    collection = factories.make_collection(dataset, name="before", parent=folder)
    data_of(update(library, collection, parentId=None, name="after"))
    data_of(update(library, collection, name=None))
    collection.refresh_from_db()
    assert (collection.name, collection.parent) == ("after", folder)
    data_of(update(library, collection, parentId=""))
    collection.refresh_from_db()
    assert (collection.name, collection.parent) == ("after", None)


def test_a_folder_in_itself(library: Library, dataset: Dataset) -> None:
    folder = make_folder(dataset)
    inner = make_folder(dataset, make_folder(dataset, folder))
    for parent in (folder, inner):
        response = update(library, folder, parentId=parent.pk, name="x")
        check_refusal(response, "invalid_parameter", param="parentId")
    folder.refresh_from_db()
    assert (folder.parent, folder.name != "x") == (None, True)


def test_two_moves_at_once_make_no_circle(library: Library, dataset: Dataset) -> None:
    for _ in range(5):
        one, two = make_folder(dataset), make_folder(dataset)
        with ThreadPoolExecutor(2) as threads:
            moves = [threads.submit(update, library, a, parentId=b.pk) for a, b in ((one, two), (two, one))]
        assert sorted(move.result().status_code for move in moves) == [200, 400]


def test_too_deep(library: Library, dataset: Dataset) -> None:
    deepest = None
    for _ in range(MAXIMUM_DEPTH - 1):
        deepest = make_folder(dataset, deepest)
    branch = make_folder(dataset)
    leaf = make_folder(dataset, branch)
    check_refusal(update(library, branch, parentId=deepest.pk), "invalid_parameter", param="parentId")
    data_of(update(library, leaf, parentId=deepest.pk))


def test_a_place_that_is_none(library: Library, dataset: Dataset) -> None:
    collection = factories.make_collection(dataset)
    no_folder = factories.make_collection(dataset)
    check_refusal(update(library, collection, parentId=no_folder.pk), "invalid_parameter", param="parentId")
    others = [make_folder(factories.make_dataset(library.team)).pk, make_folder(factories.make_dataset()).pk]
    answers = [update(library, collection, parentId=parent) for parent in (*others, ABSENT, "\0")]
    assert len({check_refusal(answer, "unAuthDatasetCollection") for answer in answers}) == 1
    collection.refresh_from_db()
    assert collection.parent is None


@pytest.mark.parametrize("name", ["", " ", "a\0b", "n" * 201, 5])
def test_bad_name(library: Library, dataset: Dataset, name: Any) -> None:
    collection = factories.make_collection(dataset)
    check_refusal(update(library, collection, name=name), "invalid_parameter", param="name")
