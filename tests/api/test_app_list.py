"""`core/app/list`: the apps of a team."""

import pytest

from tests.api.test_policy import session_of
from tests.conftest import Server
from tests.support import factories
from tests.support.refusals import check_refusal

PATH = "/api/core/app/list"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_it_works(server: Server, method: str) -> None:
    team = factories.make_team()
    app = factories.make_app(team, intro="What it is for")
    factories.make_app(factories.make_team())
    factories.make_app(team, archived_at=app.created_at)
    _, key = factories.make_key(team)
    body = server.request(method, PATH, key).json()
    assert {name: body[name] for name in ("code", "statusText", "message")} == {
        "code": 200,
        "statusText": "",
        "message": "",
    }
    (listed,) = body["data"]
    assert listed["_id"] == app.pk
    assert listed["intro"] == "What it is for"
    assert listed["teamId"] == team.pk


def staff_headers(*teams: object, is_superuser: bool = False) -> dict[str, str]:
    user = factories.make_user(teams[0] if teams else None, is_superuser=is_superuser, permissions=("chat.view_app",))
    for team in teams[1:]:
        user.teams.add(team)
    return {"Cookie": f"sessionid={session_of(user)['sessionid']}"}


def test_staff_see_the_apps_of_their_only_team(server: Server) -> None:
    app = factories.make_app(factories.make_team())
    response = server.get(PATH, headers=staff_headers(app.team))
    assert [listed["_id"] for listed in response.json()["data"]] == [app.pk]


def test_staff_of_two_teams_name_one(server: Server) -> None:
    app = factories.make_app(factories.make_team())
    headers = staff_headers(app.team, factories.make_team())
    check_refusal(server.get(PATH, headers=headers), "invalid_parameter", param="teamId")
    response = server.get(f"{PATH}?teamId={app.team_id}", headers=headers)
    assert [listed["_id"] for listed in response.json()["data"]] == [app.pk]


def test_staff_cannot_name_a_foreign_team(server: Server) -> None:
    foreign = factories.make_app(factories.make_team()).team_id
    headers = staff_headers(factories.make_team())
    answers = [server.get(f"{PATH}?teamId={team}", headers=headers) for team in (foreign, "0" * 24, "x", "%00")]
    messages = {check_refusal(answer, "invalid_parameter", param="teamId") for answer in answers}
    assert len(messages) == 1


def test_a_team_id_beside_a_key_changes_nothing(server: Server) -> None:
    foreign = factories.make_app(factories.make_team()).team_id
    _, key = factories.make_key()
    assert server.get(f"{PATH}?teamId={foreign}", key).json()["data"] == []
