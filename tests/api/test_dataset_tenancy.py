"""Tenancy of knowledge: at every endpoint, another team's rows answer as if they did not exist."""

from typing import Any

import pytest

from datasets.data import NewDatum, insert
from datasets.models import Collection, Dataset, Datum
from tests.conftest import Server
from tests.support import factories
from tests.support.datasets import ABSENT, MALFORMED, Library, staff_call
from tests.support.refusals import check_refusal

# (method, path, the query's or body's field that names something, whose refusal it is, what else it needs)
CONTROL_CHANNEL = [
    ("GET", "detail", "id", "unAuthDataset", {}),
    ("PUT", "update", "id", "unAuthDataset", {"name": "x"}),
    ("POST", "update", "id", "unAuthDataset", {"name": "x"}),
    ("DELETE", "delete", "id", "unAuthDataset", {}),
    ("POST", "delete", "id", "unAuthDataset", {}),
    ("POST", "collection/create", "datasetId", "unAuthDataset", {"name": "x"}),
    ("POST", "collection/list", "datasetId", "unAuthDataset", {}),
    ("POST", "collection/listV2", "datasetId", "unAuthDataset", {}),
    ("GET", "collection/detail", "id", "unAuthDatasetCollection", {}),
    ("PUT", "collection/update", "id", "unAuthDatasetCollection", {"name": "x"}),
    ("DELETE", "collection/delete", "id", "unAuthDatasetCollection", {}),
    ("POST", "data/pushData", "collectionId", "unAuthDatasetCollection", {"data": [{"q": "x"}]}),
    ("POST", "data/insertData", "collectionId", "unAuthDatasetCollection", {"q": "x"}),
    ("POST", "data/list", "collectionId", "unAuthDatasetCollection", {}),
    ("POST", "data/v2/list", "collectionId", "unAuthDatasetCollection", {}),
    ("GET", "data/detail", "id", "unAuthDatasetData", {}),
    ("PUT", "data/update", "dataId", "unAuthDatasetData", {"q": "x"}),
    ("DELETE", "data/delete", "id", "unAuthDatasetData", {}),
    ("POST", "data/delete", "id", "unAuthDatasetData", {}),
]


@pytest.fixture(scope="module")
def foreign(database: None) -> Datum:
    collection = factories.make_collection(factories.make_dataset(name="before"), name="before")
    return Datum.objects.get(pk=insert(collection, [NewDatum("before")]).ids[0])


@pytest.fixture(scope="module")
def library(server: Server) -> Library:
    return Library(server)


def id_of(foreign: Datum, refusal: str) -> str:
    return {
        "unAuthDataset": foreign.dataset_id,
        "unAuthDatasetCollection": foreign.collection_id,
        "unAuthDatasetData": foreign.pk,
    }[refusal]


@pytest.mark.parametrize(("method", "path", "field", "refusal", "more"), CONTROL_CHANNEL)
def test_a_key(
    library: Library, foreign: Datum, method: str, path: str, field: str, refusal: str, more: dict[str, Any]
) -> None:
    messages = set()
    for named in (id_of(foreign, refusal), ABSENT, *MALFORMED):
        given = {field: named, **more}
        is_query = method in ("GET", "DELETE")
        response = library.call(method, path, **({"params": given} if is_query else {"body": given}))
        messages.add(check_refusal(response, refusal))
    assert len(messages) == 1
    assert Dataset.objects.get(pk=foreign.dataset_id).name == "before"
    assert Collection.objects.get(dataset=foreign.dataset_id).name == "before"
    assert Datum.objects.get(collection=foreign.collection_id).q == "before"


@pytest.mark.parametrize(("path", "refusal"), [("detail", "unAuthDataset"), ("data/detail", "unAuthDatasetData")])
def test_a_superusers_key_and_its_team_id(server: Server, foreign: Datum, path: str, refusal: str) -> None:
    team = factories.make_team()
    _, key = factories.make_key(team, owner=factories.make_user(team, is_superuser=True))
    query = f"id={id_of(foreign, refusal)}&teamId={foreign.dataset.team_id}"
    check_refusal(server.get(f"/api/core/dataset/{path}?{query}", key), refusal)


def test_staff(server: Server, foreign: Datum) -> None:
    user = factories.make_user(factories.make_team(), permissions=("datasets.view_datum",))
    check_refusal(staff_call(server, user, "GET", f"data/detail?id={foreign.pk}"), "unAuthDatasetData")
    named = f"data/detail?id={foreign.pk}&teamId={foreign.dataset.team_id}"
    check_refusal(staff_call(server, user, "GET", named), "invalid_parameter", param="teamId")


def test_staff_need_the_permission_of_what_they_change(server: Server, foreign: Datum) -> None:
    user = factories.make_user(foreign.dataset.team, permissions=("datasets.view_datum", "datasets.change_dataset"))
    body = {"dataId": foreign.pk, "q": "after"}
    check_refusal(staff_call(server, user, "PUT", "data/update", json=body), "permission_denied")
