"""`core/dataset/collection/create`: a folder, or a collection for data that are entered."""

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


def create(library: Library, dataset: Dataset, **body: Any) -> Any:
    return library.call("POST", "collection/create", {"datasetId": dataset.pk, "name": "films", **body})


def test_it_works(library: Library, dataset: Dataset) -> None:
    folder_id = data_of(create(library, dataset, type="folder", name=" folder ", parentId=None))
    folder = Collection.objects.get(pk=folder_id)
    assert (folder.dataset, folder.kind, folder.name, folder.parent) == (dataset, Kind.FOLDER, "folder", None)
    body = {"type": "virtual", "parentId": folder.pk, "metadata": {"a": [1, {"b": "c\0"}]}, "trainingType": "chunk"}
    collection = Collection.objects.get(pk=data_of(create(library, dataset, **body)))
    assert (collection.kind, collection.parent, collection.state) == (Kind.VIRTUAL, folder, "ready")
    assert collection.metadata == {"a": [1, {"b": "c\ufffd"}]}
    entry = AuditEntry.objects.get_for_object(collection).get()
    assert (entry.action, entry.team, entry.actor) == (AuditEntry.Action.CREATE, library.team, None)
    assert library.api_key.name in entry.actor_name


def test_of_no_type(library: Library, dataset: Dataset) -> None:
    collection = Collection.objects.get(pk=data_of(create(library, dataset, type=None, metadata=None, parentId="")))
    assert (collection.kind, collection.metadata) == (Kind.VIRTUAL, {})


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": None}, "name"),
        ({"name": ""}, "name"),
        ({"name": "n" * 201}, "name"),
        ({"name": "a\u202eb"}, "name"),
        ({"datasetId": None}, "datasetId"),
        ({"datasetId": 1}, "datasetId"),
        ({"type": "file"}, "type"),
        ({"parentId": []}, "parentId"),
        ({"trainingType": "qa"}, "trainingType"),
        ({"metadata": "x"}, "metadata"),
        ({"metadata": {"x": "y" * 17_000}}, "metadata"),
    ],
)
def test_bad_input(library: Library, dataset: Dataset, body: dict[str, Any], param: str) -> None:
    check_refusal(create(library, dataset, **body), "invalid_parameter", param=param)
    assert not Collection.objects.filter(dataset=dataset).exists()


@pytest.mark.parametrize(
    ("metadata", "param"),
    [
        (b'{"x":' * 800 + b"1" + b"}" * 800, "metadata"),
        (b'{"x":' + b"9" * 5_000 + b"}", "metadata[...]"),
        (b'{"x":1e999}', "metadata[...]"),
        (b'{"\\ud800":1}', None),
    ],
)
def test_metadata_that_nothing_can_hold(library: Library, dataset: Dataset, metadata: bytes, param: str | None) -> None:
    raw = b'{"datasetId":"%s","name":"films","metadata":%s}' % (dataset.pk.encode(), metadata)
    check_refusal(library.call("POST", "collection/create", content=raw), "invalid_parameter", param=param)


def test_a_parent_that_is_no_folder(library: Library, dataset: Dataset) -> None:
    collection = factories.make_collection(dataset)
    check_refusal(create(library, dataset, parentId=collection.pk), "invalid_parameter", param="parentId")


def test_a_parent_of_another_dataset(library: Library, dataset: Dataset) -> None:
    others = [factories.make_dataset(library.team), factories.make_dataset()]
    parents = [factories.make_collection(other, kind=Kind.FOLDER).pk for other in others]
    answers = [create(library, dataset, parentId=parent) for parent in (*parents, ABSENT, "\0")]
    assert len({check_refusal(answer, "unAuthDatasetCollection") for answer in answers}) == 1


def test_folders_in_folders(library: Library, dataset: Dataset) -> None:
    parent = None
    for _ in range(MAXIMUM_DEPTH):
        parent = factories.make_collection(dataset, kind=Kind.FOLDER, parent=parent)
    check_refusal(create(library, dataset, type="folder", parentId=parent.pk), "invalid_parameter", param="parentId")
    data_of(create(library, dataset, parentId=parent.pk))
