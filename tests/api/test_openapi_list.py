"""`support/openapi/list`: the team's keys as FastGPT lists them, without their plaintexts."""

from typing import Any

import pytest
from django.utils import timezone

from apikeys.accounting.ledger import DailyUsage, KeyActivity, Outcome, UsageRecord
from apikeys.accounting.limits import Limit
from apikeys.accounting.points_limit import add_points_limit
from apikeys.object_ids import new_object_id
from tests.conftest import Server
from tests.support import factories
from tests.support.refusals import check_refusal
from tests.support.staff_sessions import PATH, Console

RIGHTS = ("apikeys.view_apikey", "apikeys.view_usagerecord", "apikeys.view_limit")


@pytest.fixture
def console(server: Server) -> Console:
    return Console(server, factories.make_user(factories.make_team(), permissions=RIGHTS))


def listed(console: Console, query: str = "", method: str = "GET") -> list[dict[str, Any]]:
    response = console.call(method, f"list{query}")
    assert response.status_code == 200, response.text
    data: list[dict[str, Any]] = response.json()["data"]
    return data


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_it_works(console: Console, method: str) -> None:
    team = console.user.teams.get()
    api_key, plaintext = factories.make_key(team, expires_at=timezone.now() + timezone.timedelta(days=1))
    Limit.objects.create(team=team, key=api_key, measure="micropoints", period="total", amount=2_500_000)
    used_at = timezone.now()
    KeyActivity.objects.create(key=api_key, last_used_at=used_at)
    told = {"team": team, "key": api_key, "endpoint": "chat.completions", "outcome": Outcome.COMPLETE}
    UsageRecord.objects.create(id=new_object_id(), status=200, duration_ms=1, cost_micropoints=250_000, **told)
    sums = {"requests": 1, "prompt_tokens": 1, "completion_tokens": 1, "duration_ms": 1}
    DailyUsage.objects.create(day=used_at.date(), cost_micropoints=1_000_000, **sums, **told)
    (row,) = listed(console, method=method)
    assert row.keys() == {
        *("_id", "name", "apiKey", "appId", "createTime", "lastUsedTime", "usagePoints", "limit"),
    }
    assert (row["_id"], row["name"], row["apiKey"]) == (api_key.pk, api_key.name, f"******{plaintext[-4:]}")
    assert row["appId"] is None
    assert row["usagePoints"] == 1.25
    assert row["limit"]["maxUsagePoints"] == 2.5
    assert row["limit"]["expiredTime"].startswith(f"{api_key.expires_at:%Y-%m-%dT%H:%M}")
    assert row["lastUsedTime"].startswith(f"{used_at:%Y-%m-%dT%H:%M}")


@pytest.mark.parametrize("right", ["view_usagerecord", "view_limit"])
def test_what_may_not_be_seen_is_null(server: Server, right: str) -> None:
    api_key, _ = factories.make_key()
    add_points_limit(api_key, 1_000_000)
    rights = tuple(set(RIGHTS) - {f"apikeys.{right}"})
    (row,) = listed(Console(server, factories.make_user(api_key.team, permissions=rights)))
    told = (row["usagePoints"], row["limit"]["maxUsagePoints"])
    assert told == ((None, 1) if right == "view_usagerecord" else (0, None))


def test_of_one_app(console: Console) -> None:
    team = console.user.teams.get()
    app = factories.make_app(team)
    api_key, _ = factories.make_key(app=app)
    other, _ = factories.make_key(team)
    assert [row["_id"] for row in listed(console)] == [other.pk, api_key.pk]
    (row,) = listed(console, f"?appId={app.pk}")
    assert (row["_id"], row["appId"], row["limit"]) == (api_key.pk, app.pk, {"expiredTime": None, "maxUsagePoints": -1})
    assert listed(console, "?appId=x") == []


def test_other_teams_and_revoked_keys_are_not_listed(console: Console) -> None:
    foreign = factories.make_app(factories.make_team())
    factories.make_key(app=foreign)
    revoked, _ = factories.make_key(console.user.teams.get())
    revoked.revoke(by="x", reason="x")
    assert listed(console) == []
    assert listed(console, f"?appId={foreign.pk}") == []
    refused = console.call("GET", f"list?teamId={foreign.team_id}")
    check_refusal(refused, "invalid_parameter", param="teamId")


def test_with_a_key(server: Server) -> None:
    check_refusal(server.get(f"{PATH}/list", factories.make_key()[1]), "endpoint_not_allowed")


def test_nobody(server: Server) -> None:
    check_refusal(server.get(f"{PATH}/list"), "missing_api_key")


def test_post_without_csrf(console: Console) -> None:
    check_refusal(console.call("POST", "list", headers={"X-CSRFToken": "b" * 32}), "csrf_failed")


def test_without_the_permission(server: Server) -> None:
    console = Console(server, factories.make_user(factories.make_team()))
    check_refusal(console.call("GET", "list"), "permission_denied")


def test_stale_password_is_enough(console: Console) -> None:
    console.grow_stale()
    assert listed(console) == []
