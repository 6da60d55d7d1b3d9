"""`explain`: the rule, the counters before and after, the arithmetic of the price."""

import json

import pytest

from apikeys.accounting.ledger import Refusal
from apikeys.accounting.limits import Limit
from apikeys.object_ids import new_object_id
from tests.api.test_completions_leaving import open_stream
from tests.api.test_policy import session_of
from tests.conftest import Server
from tests.support import factories
from tests.support.commands import call, manage, refusal
from tests.support.conversations import make_app
from tests.support.fake_provider import FakeProvider
from tests.support.processes import wait_for
from tests.support.refusals import check_refusal


def explained(request_id: str) -> str:
    out, err = call("explain", request_id)
    assert err == ""
    return out


def kept(request_id: str) -> str:
    """An explanation that is written a moment after the answer."""
    return wait_for(lambda: manage("explain", request_id).stdout, "it is kept")


def test_a_charge(server: Server, provider: FakeProvider) -> None:
    app = make_app(provider, max_tokens=10)
    factories.set_prices(factories.provider_of(app), "echo", 1_500_000, 333)
    api_key, key = factories.make_key(app=app, name="Website")
    points = Limit.objects.create(
        team=app.team, key=api_key, measure="micropoints", period="month", amount=10**7, time_zone="Asia/Shanghai"
    )
    tokens = Limit.objects.create(team=app.team, measure="tokens", period="total", amount=1000)
    assert server.ask(key).status_code == 200
    response = server.ask(key)
    out = explained(response.headers["x-request-id"])
    assert "complete, charged 0.016503 points" in out
    assert f"key 'Website' ({api_key.pk})" in out
    assert "11 prompt + 7 completion = 18, as the provider reported them" in out
    assert "prompt    11 x 1.5 / 1,000 = 0.0165" in out
    assert "answer    7 x 0.000333 / 1,000 = 0.000002331" in out
    assert "0.016502331, rounded up to a millionth: 0.016503 points" in out
    assert f"key: 10 points a month (limit {points.pk}), counted since " in out
    assert "00:00 CST" in out
    assert f"team: 1,000 tokens in total (limit {tokens.pk})" in out
    # 18 of the first; 21 for the bound of "hello" and 10 for the longest answer.
    assert "18 used + 0 reserved + 31 requested = 49 <= 1,000: fits" in out
    assert "18 charged in place of 31 reserved; left with 36 used, 0 reserved" in out


def test_what_the_provider_said(server: Server, provider: FakeProvider) -> None:
    _, key = factories.make_key(app=make_app(provider, "status_401"))
    response = server.ask(key)
    check_refusal(response, "upstream_error")
    request_id = response.headers["x-request-id"]
    out = explained(request_id)
    assert "failed, charged 0 points" in out
    assert "provider  HTTP 401: refused None at ..." in out
    data = json.loads(call("explain", "--json", request_id)[0])
    assert data["failure"] == {"what": "HTTP 401", "status": 401, "message": "refused None at ..."}


def test_a_refusal(server: Server, provider: FakeProvider) -> None:
    app = make_app(provider, max_tokens=10)
    api_key, key = factories.make_key(app=app)
    made = Limit.objects.create(team=app.team, key=api_key, measure="tokens", period="day", amount=30)
    response = server.ask(key)
    check_refusal(response, "insufficient_quota")
    out = kept(response.headers["x-request-id"])
    assert "refused with 429 insufficient_quota, cost nothing" in out
    assert f"Key ******{key[-4:]} is over usage" in out
    assert "21 bound of the prompt + 10 longest answer = 31" in out
    assert f"key: 30 tokens a day (limit {made.pk})" in out
    assert "this one refused" in out
    assert "0 used + 0 reserved + 31 requested = 31 > 30: does not fit" in out
    assert key not in out


def test_a_call_without_its_csrf_token(new_server: Server) -> None:
    user = factories.make_user(factories.make_team(), permissions=("chat.view_app",))
    headers = {"Cookie": f"sessionid={session_of(user)['sessionid']}"}
    response = new_server.post("/api/core/app/list", headers=headers)
    check_refusal(response, "csrf_failed")
    out = kept(response.headers["x-request-id"])
    assert "refused with 403 csrf_failed, cost nothing" in out
    assert "The call used a session cookie without its CSRF token" in out


def test_a_code_of_another_version() -> None:
    request_id = new_object_id()
    Refusal.objects.create(id=request_id, endpoint="key.self", status=400, code="gone", message="It is gone.")
    out = explained(request_id)
    assert "It is gone." in out
    assert "This version of the site does not use this code." in out


def test_an_open_request(server: Server, provider: FakeProvider) -> None:
    api_key, key = factories.make_key(app=make_app(provider, "slow"))
    Limit.objects.create(team=api_key.team, key=api_key, measure="open", period="now", amount=2)
    connection, request_id = open_stream(server, key, factories.unique("open"))
    out = explained(request_id)
    assert "admitted, and not ended yet" in out
    assert "0 used + 0 reserved + 1 requested = 1 <= 2: fits" in out
    connection.close()


def test_without_limits_and_prices(server: Server, provider: FakeProvider) -> None:
    _, key = factories.make_key(app=make_app(provider))
    out = explained(server.ask(key).headers["x-request-id"])
    assert "charged 0 points" in out
    assert "this model has none" in out
    assert "None applied." in out


def test_json(server: Server, provider: FakeProvider) -> None:
    api_key, key = factories.make_key(app=make_app(provider))
    Limit.objects.create(team=api_key.team, key=api_key, measure="requests", period="total", amount=1)
    first, second = server.ask(key), server.ask(key)
    facts = json.loads(call("explain", "--json", first.headers["x-request-id"])[0])
    assert (facts["state"], facts["prompt_tokens"], facts["limits"][0]["used_after"]) == ("charged", 11, 1)
    assert kept(second.headers["x-request-id"])
    facts = json.loads(call("explain", "--json", second.headers["x-request-id"])[0])
    assert (facts["state"], facts["code"], facts["limits"][0]["used"]) == ("refused", "insufficient_quota", 1)


@pytest.mark.parametrize("request_id", ["0" * 24, "nonsense", "'; --"])
def test_an_unknown_id(request_id: str) -> None:
    assert refusal(manage("explain", request_id)).startswith("No request with this id is known.")


def test_a_typo() -> None:
    assert "the following arguments are required: request_id" in refusal(manage("explain"))
