"""`POST support/openapi/create`: signed-in staff make a key; its plaintext is the answer."""

from datetime import datetime

import pytest

from apikeys.accounting.limits import Limit
from apikeys.audit.models import AuditEntry
from apikeys.keys import crypto
from apikeys.keys.models import ApiKey
from tests.conftest import Server
from tests.support import factories
from tests.support.refusals import check_refusal
from tests.support.staff_sessions import PATH, Console

RIGHTS = ("apikeys.add_apikey", "apikeys.add_limit")


@pytest.fixture
def console(server: Server) -> Console:
    return Console(server, factories.make_user(factories.make_team(), permissions=RIGHTS))


def team_of(console: Console):
    return console.user.teams.get()


def test_it_works(server: Server, console: Console) -> None:
    limit = {"expiredTime": "2099-01-02T03:04:05.000Z", "maxUsagePoints": 12.5}
    response = console.call("POST", "create", {"name": " for the shop ", "limit": limit})
    assert response.status_code == 200, response.text
    plaintext = response.json()["data"]
    assert crypto.is_ours(plaintext)
    assert response.headers["cache-control"] == "no-store"
    api_key = ApiKey.objects.get(team=team_of(console))
    assert (api_key.name, api_key.owner, api_key.app) == ("for the shop", console.user, None)
    assert api_key.expires_at == datetime.fromisoformat("2099-01-02T03:04:05+00:00")
    assert Limit.objects.get(key=api_key).amount == 12_500_000
    entry = AuditEntry.objects.get_for_object(api_key).get()
    assert (entry.actor, entry.via, entry.cid) == (console.user, "api", response.headers["x-request-id"])
    assert server.get("/api/v1/key", plaintext).json()["data"]["limit"]["maxUsagePoints"] == 12.5
    assert plaintext not in server.log()


def test_app_key(server: Server, console: Console) -> None:
    app = factories.make_app(team_of(console))
    plaintext = console.call("POST", "create/", {"name": "k", "appId": app.pk}).json()["data"]
    assert server.get("/api/v1/key", plaintext).json()["data"]["appId"] == app.pk


@pytest.mark.parametrize("limit", [None, {}, {"expiredTime": None, "maxUsagePoints": -1}])
def test_without_limits(console: Console, limit) -> None:
    assert console.call("POST", "create", {"name": "k", "appId": "", "limit": limit}).status_code == 200
    api_key = ApiKey.objects.get(team=team_of(console))
    assert api_key.expires_at is None
    assert not Limit.objects.filter(key=api_key).exists()


def test_team_is_named_by_members_of_several(server: Server, console: Console) -> None:
    second = factories.make_team()
    console.user.teams.add(second)
    check_refusal(console.call("POST", "create", {"name": "k"}), "invalid_parameter", param="teamId")
    assert console.call("POST", f"create?teamId={second.pk}", {"name": "k"}).status_code == 200
    assert ApiKey.objects.get(owner=console.user).team == second


def test_other_fields_are_ignored(console: Console) -> None:
    body = {"name": "k", "can_name_app": True, "canNameApp": True, "owner": 1, "_id": "0" * 24, "apiKey": "fastgpt-x"}
    assert console.call("POST", "create", body).status_code == 200
    api_key = ApiKey.objects.get(team=team_of(console))
    assert not api_key.can_name_app
    assert api_key.owner == console.user
    assert api_key.pk != "0" * 24


def test_with_a_key(server: Server, console: Console) -> None:
    for plaintext in (factories.make_key()[1], factories.make_key(can_name_app=True)[1]):
        check_refusal(server.post(f"{PATH}/create", plaintext, json={"name": "k"}), "endpoint_not_allowed")
        # A key beside a session decides.
        headers = {"Authorization": f"Bearer {plaintext}"}
        check_refusal(console.call("POST", "create", {"name": "k"}, headers=headers), "endpoint_not_allowed")


def test_nobody(server: Server) -> None:
    check_refusal(server.post(f"{PATH}/create", json={"name": "k"}), "missing_api_key")


def test_without_csrf(console: Console) -> None:
    check_refusal(console.call("POST", "create", {"name": "k"}, headers={"X-CSRFToken": "b" * 32}), "csrf_failed")
    assert not ApiKey.objects.filter(team=team_of(console)).exists()


def test_without_the_permission(server: Server) -> None:
    console = Console(server, factories.make_user(factories.make_team(), permissions=("apikeys.view_apikey",)))
    check_refusal(console.call("POST", "create", {"name": "k"}), "permission_denied")


def test_limit_without_the_right_over_limits(server: Server) -> None:
    console = Console(server, factories.make_user(factories.make_team(), permissions=("apikeys.add_apikey",)))
    refused = console.call("POST", "create", {"name": "k", "limit": {"maxUsagePoints": 1}})
    assert "apikeys.add_limit" in check_refusal(refused, "permission_denied")
    assert not ApiKey.objects.filter(team=team_of(console)).exists()
    assert console.call("POST", "create", {"name": "k", "limit": {"maxUsagePoints": -1}}).status_code == 200


def test_stale_password(console: Console) -> None:
    console.grow_stale()
    check_refusal(console.call("POST", "create", {"name": "k"}), "password_needed")
    assert not ApiKey.objects.filter(team=team_of(console)).exists()


def test_foreign_and_absent_look_alike(console: Console) -> None:
    foreign = factories.make_app(factories.make_team())
    archived = factories.make_app(team_of(console), archived_at=foreign.created_at)
    answers = {
        check_refusal(console.call("POST", "create", {"name": "k", "appId": app_id}), "appUnExist")
        for app_id in (foreign.pk, archived.pk, "0" * 24, "x")
    }
    assert len(answers) == 1
    answers = {
        check_refusal(
            console.call("POST", f"create?teamId={team_id}", {"name": "k"}), "invalid_parameter", param="teamId"
        )
        for team_id in (foreign.team_id, "0" * 24)
    }
    assert len(answers) == 1


def test_superuser_who_is_no_member(server: Server) -> None:
    console = Console(server, factories.make_user(is_superuser=True))
    response = console.call("POST", f"create?teamId={factories.make_team().pk}", {"name": "k"})
    assert "must be a member" in check_refusal(response, "invalid_parameter", param="owner")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": " "}, "name"),
        ({"name": "a\u0000b"}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": 7}, "name"),
        ({"name": "k", "appId": 7}, "appId"),
        ({"name": "k", "limit": []}, "limit"),
        ({"name": "k", "limit": {"expiredTime": "tomorrow"}}, "limit.expiredTime"),
        ({"name": "k", "limit": {"expiredTime": "2099-01-01T00:00:00"}}, "limit.expiredTime"),
        ({"name": "k", "limit": {"expiredTime": "9999-12-31T23:59:59-05:00"}}, "limit.expiredTime"),
        ({"name": "k", "limit": {"expiredTime": "9999-01-01T00:00:00Z"}}, "limit.expiredTime"),
        ({"name": "k", "limit": {"maxUsagePoints": "many"}}, "limit.maxUsagePoints"),
        ({"name": "k", "limit": {"maxUsagePoints": -2}}, "limit.maxUsagePoints"),
        ({"name": "k", "limit": {"maxUsagePoints": 1e300}}, "limit.maxUsagePoints"),
        ({"name": "k", "limit": {"maxUsagePoints": "NaN"}}, "limit.maxUsagePoints"),
        ({"name": "k", "limit": {"maxUsagePoints": "sNaN"}}, "limit.maxUsagePoints"),
        ({"name": "k", "limit": {"maxUsagePoints": "1e999999"}}, "limit.maxUsagePoints"),
        ({"name": "k", "limit": {"maxUsagePoints": "1e-999999999"}}, "limit.maxUsagePoints"),
        ({"name": "k", "limit": {"maxUsagePoints": 0.1234567}}, "limit.maxUsagePoints"),
    ],
)
def test_wrong_values(console: Console, body, param: str) -> None:
    check_refusal(console.call("POST", "create", body), "invalid_parameter", param=param)
    assert not ApiKey.objects.filter(team=team_of(console)).exists()


def test_method(console: Console) -> None:
    check_refusal(console.call("GET", "create"), "method_not_allowed")
