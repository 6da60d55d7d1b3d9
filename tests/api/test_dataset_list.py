"""`core/dataset/list`: the datasets of a team."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from datasets.vectors import sets
from tests.conftest import Server
from tests.support import factories
from tests.support.datasets import ABSENT, ROOT, Library, data_of, staff_call
from tests.support.pages import browser
from tests.support.refusals import check_refusal


@pytest.fixture
def library(server: Server) -> Library:
    return Library(server)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_it_works(library: Library, method: str) -> None:
    provider = factories.make_provider(library.team)
    second = factories.make_dataset(library.team, provider, "ada", name="b")
    first = factories.make_dataset(library.team, name="a", intro="What it is about")
    factories.make_dataset()
    listed = data_of(library.call(method, "list"))
    assert [dataset["_id"] for dataset in listed] == [first.pk, second.pk]
    assert {name: listed[0][name] for name in ("name", "intro", "avatar", "type", "parentId", "teamId")} == {
        "name": "a",
        "intro": "What it is about",
        "avatar": "",
        "type": "dataset",
        "parentId": None,
        "teamId": library.team.pk,
    }
    assert listed[0]["vectorModel"]["model"] == "wordllama-256"
    assert (listed[1]["vectorModel"]["model"], listed[1]["vectorModel"]["providerId"]) == ("ada", provider.pk)


def test_search(library: Library) -> None:
    factories.make_dataset(library.team, name="Films")
    factories.make_dataset(library.team, name="100% books")
    names = [dataset["name"] for dataset in library.post("list", searchKey="film", parentId="")]
    assert names == ["Films"]
    assert [dataset["name"] for dataset in library.get("list", searchKey="%")] == ["100% books"]
    assert library.post("list", searchKey="\0") == []


def test_the_old_model_is_shown_until_another_takes_over(library: Library) -> None:
    dataset = factories.make_dataset(library.team)
    sets.change_model(dataset, factories.make_provider(library.team), "ada")
    (listed,) = library.get("list")
    assert listed["vectorModel"]["model"] == "wordllama-256"


def test_a_folder(library: Library) -> None:
    check_refusal(library.call("POST", "list", {"parentId": ABSENT}), "invalid_parameter", param="parentId")
    check_refusal(library.call("GET", f"list?parentId={ABSENT}"), "invalid_parameter", param="parentId")


def test_staff_of_two_teams_name_one(server: Server) -> None:
    dataset = factories.make_dataset()
    user = factories.make_user(dataset.team, permissions=("datasets.view_dataset",))
    user.teams.add(factories.make_team())
    check_refusal(staff_call(server, user, "GET", "list"), "invalid_parameter", param="teamId")
    listed = data_of(staff_call(server, user, "POST", f"list?teamId={dataset.team_id}"))
    assert [one["_id"] for one in listed] == [dataset.pk]


def test_same_number_of_queries() -> None:
    team = factories.make_team()
    client = browser(factories.make_user(team, permissions=("datasets.view_dataset",)))

    def queries(count: int) -> int:
        with CaptureQueriesContext(connection) as captured:
            assert len(client.get(f"{ROOT}/list").json()["data"]) == count
        return len(captured)

    factories.make_dataset(team)
    before = queries(1)
    for _ in range(10):
        factories.make_dataset(team)
    assert queries(11) == before
