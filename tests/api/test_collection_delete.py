"""`core/dataset/collection/delete`: collections go with their data, folders with all that is in them."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, transaction

from apikeys.audit.models import AuditEntry
from datasets.data import NewDatum, insert
from datasets.models import Collection, Dataset, Datum, Kind
from tests.conftest import Server
from tests.support import factories
from tests.support.datasets import ABSENT, Library, data_of
from tests.support.locks import is_waited_for
from tests.support.processes import wait_for
from tests.support.refusals import check_refusal


@pytest.fixture
def library(server: Server) -> Library:
    return Library(server)


@pytest.fixture
def dataset(library: Library) -> Dataset:
    return factories.make_dataset(library.team)


def ids_left(dataset: Dataset) -> set[str]:
    return set(Collection.objects.filter(dataset=dataset).values_list("pk", flat=True))


@pytest.mark.parametrize("method", ["DELETE", "POST"])
def test_it_works(library: Library, dataset: Dataset, method: str) -> None:
    collection, other = factories.make_collection(dataset), factories.make_collection(dataset)
    insert(collection, [NewDatum("one")])
    insert(other, [NewDatum("one")])
    if method == "DELETE":
        response = library.call("DELETE", f"collection/delete?id={collection.pk}")
    else:
        response = library.call("POST", "collection/delete", {"collectionIds": [collection.pk]})
    assert data_of(response) is None
    assert ids_left(dataset) == {other.pk}
    assert Datum.objects.get(dataset=dataset).collection == other
    entry = AuditEntry.objects.get_for_object(collection).latest("pk")
    assert (entry.action, entry.object_repr, entry.team) == (AuditEntry.Action.DELETE, collection.name, library.team)
    assert library.api_key.name in entry.actor_name


def test_several_and_what_is_in_them(library: Library, dataset: Dataset) -> None:
    folder = factories.make_collection(dataset, kind=Kind.FOLDER)
    inner = factories.make_collection(dataset, kind=Kind.FOLDER, parent=folder)
    inside = factories.make_collection(dataset, parent=inner)
    other = factories.make_collection(dataset)
    insert(inside, [NewDatum("one")])
    data_of(library.call("POST", "collection/delete", {"collectionIds": [folder.pk, inside.pk, other.pk, other.pk]}))
    assert ids_left(dataset) == set()
    assert not Datum.objects.filter(dataset=dataset).exists()


def test_all_or_none(library: Library, dataset: Dataset) -> None:
    own, foreign = factories.make_collection(dataset), factories.make_collection()
    for other in (foreign.pk, ABSENT, "x"):
        response = library.call("POST", "collection/delete", {"collectionIds": [own.pk, other]})
        check_refusal(response, "unAuthDatasetCollection")
    assert ids_left(dataset) == {own.pk}
    assert ids_left(foreign.dataset) == {foreign.pk}


def test_beside_another_removal(library: Library, dataset: Dataset) -> None:
    """It waits for the dataset before it takes anything that the other may come to need."""
    folder = factories.make_collection(dataset, kind=Kind.FOLDER)
    inside = factories.make_collection(dataset, parent=folder)
    with ThreadPoolExecutor(1) as threads:
        with transaction.atomic():
            Dataset.objects.select_for_update(no_key=True).get(pk=dataset.pk)
            removal = threads.submit(library.call, "POST", "collection/delete", {"collectionIds": [folder.pk]})
            wait_for(lambda: is_waited_for(connection), "the removal waits")
            assert len(Collection.objects.filter(dataset=dataset).select_for_update(nowait=True)) == 2
            inside.delete()
        data_of(removal.result())
    assert ids_left(dataset) == set()


@pytest.mark.parametrize(
    "body", [{}, {"collectionIds": []}, {"collectionIds": None}, {"collectionIds": "x"}, {"collectionIds": ["x"] * 101}]
)
def test_bad_input(library: Library, body: dict[str, object]) -> None:
    check_refusal(library.call("POST", "collection/delete", body), "invalid_parameter", param="collectionIds")
