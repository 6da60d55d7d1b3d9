"""`support/openapi/update`: another name, end or limit of points."""

from typing import Any

import pytest

from apikeys.accounting.limits import Limit
from apikeys.accounting.points_limit import add_points_limit
from apikeys.audit.models import AuditEntry
from apikeys.keys.models import ApiKey
from tests.conftest import Server
from tests.support import factories
from tests.support.refusals import check_refusal
from tests.support.staff_sessions import PATH, Console

RIGHTS = ("apikeys.change_apikey", "apikeys.add_limit", "apikeys.change_limit", "apikeys.delete_limit")
END = "2099-01-01T00:00:00Z"


@pytest.fixture
def console(server: Server) -> Console:
    return Console(server, factories.make_user(factories.make_team(), permissions=RIGHTS))


@pytest.fixture
def api_key(console: Console) -> ApiKey:
    return factories.make_key(console.user.teams.get(), name="before")[0]


def update(console: Console, api_key: ApiKey, method: str = "POST", **body: Any) -> Any:
    return console.call(method, "update", {"_id": api_key.pk, **body})


def amounts(api_key: ApiKey) -> list[int]:
    return list(Limit.objects.filter(key=api_key).order_by("amount").values_list("amount", flat=True))


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_it_works(console: Console, api_key: ApiKey, method: str) -> None:
    response = update(console, api_key, method, name="after", limit={"expiredTime": END, "maxUsagePoints": 3})
    assert response.status_code == 200, response.text
    assert response.json()["data"] is None
    api_key.refresh_from_db()
    assert api_key.name == "after"
    assert api_key.expires_at.year == 2099
    assert amounts(api_key) == [3_000_000]
    entry = AuditEntry.objects.get_for_object(api_key).latest("pk")
    assert entry.changes["name"] == ["before", "after"]
    assert (entry.actor, entry.via) == (console.user, "api")


def test_what_is_not_named_stays(console: Console, api_key: ApiKey) -> None:
    update(console, api_key, limit={"expiredTime": END, "maxUsagePoints": 3})
    assert update(console, api_key, name="other").status_code == 200
    assert update(console, api_key, limit={"maxUsagePoints": 2}).status_code == 200
    api_key.refresh_from_db()
    assert (api_key.name, api_key.expires_at.year, amounts(api_key)) == ("other", 2099, [2_000_000])
    assert update(console, api_key, limit={"expiredTime": None}).status_code == 200
    api_key.refresh_from_db()
    assert api_key.expires_at is None
    assert update(console, api_key, limit={"maxUsagePoints": -1}).status_code == 200
    assert amounts(api_key) == []


def test_several_limits_become_one_and_others_stay(console: Console, api_key: ApiKey) -> None:
    of_points = {"team": api_key.team, "key": api_key, "measure": "micropoints"}
    Limit.objects.create(**of_points, period="total", amount=5, soft_amount=4)
    Limit.objects.create(**of_points, period="total", amount=6)
    Limit.objects.create(**of_points, period="day", amount=7)
    assert update(console, api_key, limit={"maxUsagePoints": 0.000003}).status_code == 200
    assert amounts(api_key) == [3, 7]
    assert Limit.objects.get(key=api_key, period="total").soft_amount is None


@pytest.mark.parametrize(
    ("held", "points", "right"),
    [
        ([], 3, "add_limit"),
        ([5], 4, "change_limit"),
        ([5], 6, "change_limit"),
        ([5], -1, "delete_limit"),
        ([5], None, "delete_limit"),
        ([5, 6], 4, "delete_limit"),
    ],
)
def test_each_right_over_limits(server: Server, held: list[int], points: int | None, right: str) -> None:
    team = factories.make_team()
    api_key, _ = factories.make_key(team)
    for amount in held:
        add_points_limit(api_key, amount * 1_000_000)
    before = amounts(api_key)
    lacking = Console(server, factories.make_user(team, permissions=tuple(set(RIGHTS) - {f"apikeys.{right}"})))
    refused = update(lacking, api_key, name="after", limit={"maxUsagePoints": points})
    assert f"apikeys.{right}" in check_refusal(refused, "permission_denied")
    api_key.refresh_from_db()
    assert (api_key.name != "after", amounts(api_key)) == (True, before)
    # What changes nothing needs no right: a console sends all that it shows.
    assert update(lacking, api_key, limit={"maxUsagePoints": min(held, default=-1)}).status_code == 200
    assert amounts(api_key) == before
    holding = Console(server, factories.make_user(team, permissions=RIGHTS))
    assert update(holding, api_key, limit={"maxUsagePoints": points}).status_code == 200
    assert amounts(api_key) == ([points * 1_000_000] if points and points > 0 else [])


def test_team_is_named_by_members_of_several(console: Console, api_key: ApiKey) -> None:
    other, _ = factories.make_key()
    console.user.teams.add(other.team)
    check_refusal(update(console, api_key, name="x"), "invalid_parameter", param="teamId")
    body = {"_id": api_key.pk, "name": "x"}
    refused = console.call("POST", f"update?teamId={other.team_id}", body)
    check_refusal(refused, "openapiUnExist")
    assert console.call("POST", f"update?teamId={api_key.team_id}", body).status_code == 200
    api_key.refresh_from_db()
    assert api_key.name == "x"


def test_app_never_changes(console: Console, api_key: ApiKey) -> None:
    app = factories.make_app(api_key.team)
    check_refusal(update(console, api_key, appId=app.pk), "invalid_parameter", param="appId")


def test_other_fields_are_ignored(console: Console, api_key: ApiKey) -> None:
    assert update(console, api_key, canNameApp=True, owner=1, disabledAt=END).status_code == 200
    api_key.refresh_from_db()
    assert (api_key.can_name_app, api_key.disabled_at, api_key.name) == (False, None, "before")


@pytest.mark.parametrize(("points", "is_done"), [(5, True), (6, False), (-1, False)])
def test_stale_password_lowers_and_does_not_raise(
    console: Console, api_key: ApiKey, points: int, is_done: bool
) -> None:
    update(console, api_key, limit={"maxUsagePoints": 5.5})
    console.grow_stale()
    response = update(console, api_key, name="after", limit={"maxUsagePoints": points})
    api_key.refresh_from_db()
    if is_done:
        assert (response.status_code, api_key.name, amounts(api_key)) == (200, "after", [5_000_000])
    else:
        check_refusal(response, "password_needed")
        assert (api_key.name, amounts(api_key)) == ("before", [5_500_000])


def test_stale_password_sets_no_later_end(console: Console, api_key: ApiKey) -> None:
    update(console, api_key, limit={"expiredTime": END})
    console.grow_stale()
    for end in ("2099-01-02T00:00:00Z", None):
        check_refusal(update(console, api_key, limit={"expiredTime": end}), "password_needed")
    assert update(console, api_key, limit={"expiredTime": "2098-12-31T00:00:00Z"}).status_code == 200


def test_foreign_absent_and_revoked_look_alike(console: Console, api_key: ApiKey) -> None:
    foreign, _ = factories.make_key()
    api_key.revoke(by="x", reason="x")
    answers = {
        check_refusal(console.call("POST", "update", {"_id": key_id, "name": "x"}), "openapiUnExist")
        for key_id in (foreign.pk, api_key.pk, "0" * 24, "x")
    }
    assert len(answers) == 1
    foreign.refresh_from_db()
    assert foreign.name != "x"


def test_with_a_key(server: Server, api_key: ApiKey) -> None:
    response = server.post(f"{PATH}/update", factories.make_key()[1], json={"_id": api_key.pk, "name": "x"})
    check_refusal(response, "endpoint_not_allowed")


def test_without_csrf(console: Console, api_key: ApiKey) -> None:
    body = {"_id": api_key.pk, "name": "x"}
    for method in ("POST", "PUT"):
        check_refusal(console.call(method, "update", body, headers={"X-CSRFToken": "b" * 32}), "csrf_failed")


def test_without_the_permission(server: Server, api_key: ApiKey) -> None:
    console = Console(server, factories.make_user(api_key.team, permissions=("apikeys.add_apikey",)))
    check_refusal(update(console, api_key, name="x"), "permission_denied")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": ""}, "name"),
        ({"name": ["x"]}, "name"),
        ({"limit": 7}, "limit"),
        ({"limit": {"expiredTime": 7.5}}, "limit.expiredTime"),
        ({"limit": {"expiredTime": "9999-12-31T23:59:59-05:00"}}, "limit.expiredTime"),
        ({"limit": {"expiredTime": "1999-12-31T23:59:59Z"}}, "limit.expiredTime"),
        ({"limit": {"maxUsagePoints": "1e999999"}}, "limit.maxUsagePoints"),
        ({"limit": {"maxUsagePoints": True}}, "limit.maxUsagePoints"),
        ({"_id": 7}, "_id"),
        ({"_id": None}, "_id"),
    ],
)
def test_wrong_values(console: Console, api_key: ApiKey, body: dict[str, Any], param: str) -> None:
    check_refusal(console.call("POST", "update", {"_id": api_key.pk, **body}), "invalid_parameter", param=param)
