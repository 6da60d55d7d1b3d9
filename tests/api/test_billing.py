"""`dashboard/billing/...`: a key's balance, where clients of OpenAI's older API and of one-api look for it."""

from datetime import timedelta

import pytest
from django.utils import timezone

from apikeys.accounting.limits import Limit
from apikeys.keys.models import ApiKey
from tests.conftest import Server
from tests.support import factories
from tests.support.conversations import make_app
from tests.support.fake_provider import FakeProvider
from tests.support.refusals import check_refusal

SUBSCRIPTION, USAGE = "/api/v1/dashboard/billing/subscription", "/api/v1/dashboard/billing/usage"


def budget(api_key: ApiKey, points: float, period: str = "total", *, of_team: bool = False) -> Limit:
    return Limit.objects.create(
        team=api_key.team,
        key=None if of_team else api_key,
        measure="micropoints",
        period=period,
        amount=round(points * 1_000_000),
    )


def balance(server: Server, key: str) -> tuple[float, float]:
    """Return what the key may spend and what is spent, in US dollars, as clients read them."""
    used = server.get(f"{USAGE}?start_date=2026-01-01&end_date=2026-12-31", key)
    return server.get(SUBSCRIPTION, key).json()["hard_limit_usd"], round(used.json()["total_usage"] / 100, 6)


@pytest.fixture
def priced(provider: FakeProvider) -> tuple[ApiKey, str]:
    """A key of an app whose answers cost 0.018 points."""
    app = make_app(provider, max_tokens=10)
    factories.set_prices(factories.provider_of(app), "echo", 10**6, 10**6)
    return factories.make_key(app=app)


def test_it_works(server: Server, priced: tuple[ApiKey, str]) -> None:
    api_key, key = priced
    budget(api_key, 12.5)
    assert server.ask(key).status_code == 200
    assert server.get(SUBSCRIPTION, key).json() == {
        "object": "billing_subscription",
        "has_payment_method": True,
        "soft_limit_usd": 12.5,
        "hard_limit_usd": 12.5,
        "system_hard_limit_usd": 12.5,
        "access_until": 0,
    }
    assert server.get(USAGE, key).json() == {"object": "list", "total_usage": 1.8}


@pytest.mark.parametrize("root", ["/api", "/api/v1", "/v1", "/api/openapi/v1"])
@pytest.mark.parametrize("name", ["subscription", "usage"])
def test_every_kind_of_key_and_path(server: Server, provider: FakeProvider, root: str, name: str) -> None:
    app = make_app(provider)
    for _, key in (factories.make_key(app=app), factories.make_key(), factories.make_key(can_name_app=True)):
        assert "object" in server.get(f"{root}/dashboard/billing/{name}/", key).json()


def test_without_a_budget(server: Server, priced: tuple[ApiKey, str]) -> None:
    """As one-api has it: no end of money, and all that the key has used."""
    api_key, key = priced
    assert balance(server, key) == (100_000_000, 0)
    assert server.ask(key).status_code == 200
    assert balance(server, key) == (100_000_000, 0.018)
    # These limit no spending in the long run.
    budget(api_key, 1, "minute")
    Limit.objects.create(team=api_key.team, key=api_key, measure="tokens", period="day", amount=10**6)
    assert balance(server, key) == (100_000_000, 0.018)


def test_the_tightest_budget(server: Server, priced: tuple[ApiKey, str]) -> None:
    api_key, key = priced
    _, other = factories.make_key(app=api_key.app)
    budget(api_key, 5), budget(api_key, 3, "month"), budget(factories.make_key()[0], 1)
    assert balance(server, key) == (3, 0)
    budget(api_key, 1, "day", of_team=True)
    for each in (key, other, other):
        assert server.ask(each).status_code == 200
    # What others of its team have used of it is gone for this key too.
    assert balance(server, key) == (1, 0.054)
    assert balance(server, other) == (1, 0.054)


def test_a_budget_that_is_spent(server: Server, priced: tuple[ApiKey, str]) -> None:
    api_key, key = priced
    budget(api_key, 0.04)
    assert server.ask(key).status_code == 200
    check_refusal(server.ask(key, "x" * 20), "insufficient_quota")
    assert balance(server, key) == (0.04, 0.018)


def test_when_the_key_ends(server: Server) -> None:
    ends = timezone.now() + timedelta(days=30)
    api_key, key = factories.make_key(expires_at=ends)
    assert server.get(SUBSCRIPTION, key).json()["access_until"] == int(ends.timestamp())
    api_key.rotate(timedelta(hours=1))
    assert server.get(SUBSCRIPTION, key).json()["access_until"] < ends.timestamp() - 10**6


@pytest.mark.parametrize("path", [SUBSCRIPTION, USAGE])
def test_who_may_not(server: Server, path: str) -> None:
    check_refusal(server.get(path), "missing_api_key")
    check_refusal(server.get(path, factories.make_key(allowed_endpoints=["key.self"])[1]), "endpoint_not_allowed")
    check_refusal(server.post(path, factories.make_key()[1]), "method_not_allowed")
