"""`support/openapi/delete`: the key is refused everywhere before the answer, and listed no more."""

import pytest

from apikeys.audit.models import AuditEntry
from apikeys.keys.models import ApiKey
from tests.conftest import Server
from tests.support import factories
from tests.support.refusals import check_refusal
from tests.support.staff_sessions import PATH, Console

RIGHTS = ("apikeys.change_apikey", "apikeys.view_apikey")


@pytest.fixture
def console(server: Server) -> Console:
    return Console(server, factories.make_user(factories.make_team(), permissions=RIGHTS))


@pytest.mark.parametrize("method", ["DELETE", "POST"])
def test_it_works(server: Server, console: Console, method: str) -> None:
    api_key, plaintext = factories.make_key(console.user.teams.get())
    assert server.get("/api/v1/key", plaintext).status_code == 200
    if method == "DELETE":
        response = console.call("DELETE", f"delete?id={api_key.pk}")
    else:
        response = console.call("POST", "delete", {"_id": api_key.pk})
    assert response.status_code == 200, response.text
    data = response.json()["data"]
    assert len(data["acknowledgedBy"]) >= 1
    assert data["notAcknowledgedBy"] == []
    check_refusal(server.get("/api/v1/key", plaintext), "revoked_api_key")
    api_key.refresh_from_db()
    assert (api_key.revoked_by, api_key.revoked_reason) == (console.user.username, "Deleted over the API.")
    assert api_key.revocation_acknowledged_at
    assert console.call("GET", "list").json()["data"] == []
    entry = AuditEntry.objects.get_for_object(api_key).latest("pk")
    assert (entry.actor, entry.via, entry.changes["revoked_by"]) == (console.user, "api", ["", console.user.username])


def test_stale_password_is_enough_to_end_a_key(console: Console) -> None:
    api_key, _ = factories.make_key(console.user.teams.get())
    console.grow_stale()
    assert console.call("DELETE", f"delete?id={api_key.pk}").status_code == 200


def test_foreign_absent_and_deleted_look_alike(console: Console) -> None:
    foreign, _ = factories.make_key()
    own, _ = factories.make_key(console.user.teams.get())
    console.call("DELETE", f"delete?id={own.pk}")
    answers = {
        check_refusal(console.call("DELETE", f"delete?id={key_id}"), "openapiUnExist")
        for key_id in (foreign.pk, own.pk, "0" * 24, "x", "")
    }
    assert len(answers) == 1
    foreign.refresh_from_db()
    assert foreign.revoked_at is None


def test_team_is_named_by_members_of_several(console: Console) -> None:
    api_key, _ = factories.make_key(console.user.teams.get())
    other = factories.make_team()
    console.user.teams.add(other)
    check_refusal(console.call("DELETE", f"delete?id={api_key.pk}"), "invalid_parameter", param="teamId")
    refused = console.call("POST", f"delete?teamId={other.pk}", {"_id": api_key.pk})
    check_refusal(refused, "openapiUnExist")
    assert console.call("DELETE", f"delete?id={api_key.pk}&teamId={api_key.team_id}").status_code == 200


def test_with_a_key(server: Server) -> None:
    api_key, plaintext = factories.make_key()
    for key in (plaintext, factories.make_key()[1]):
        check_refusal(server.request("DELETE", f"{PATH}/delete?id={api_key.pk}", key), "endpoint_not_allowed")
    assert ApiKey.objects.get(pk=api_key.pk).revoked_at is None


def test_without_csrf(console: Console) -> None:
    api_key, _ = factories.make_key(console.user.teams.get())
    refused = console.call("DELETE", f"delete?id={api_key.pk}", headers={"X-CSRFToken": "b" * 32})
    check_refusal(refused, "csrf_failed")


def test_without_the_permission(server: Server) -> None:
    api_key, _ = factories.make_key()
    console = Console(server, factories.make_user(api_key.team, permissions=("apikeys.view_apikey",)))
    check_refusal(console.call("DELETE", f"delete?id={api_key.pk}"), "permission_denied")


@pytest.mark.parametrize("body", [{}, {"_id": 7}, {"_id": None}])
def test_wrong_values(console: Console, body) -> None:
    check_refusal(console.call("POST", "delete", body), "invalid_parameter", param="_id")


def test_get_changes_nothing(console: Console) -> None:
    api_key, _ = factories.make_key(console.user.teams.get())
    check_refusal(console.call("GET", f"delete?id={api_key.pk}"), "method_not_allowed")
    assert ApiKey.objects.get(pk=api_key.pk).revoked_at is None
