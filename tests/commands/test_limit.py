"""`manage.py limit`."""

import json
from datetime import datetime, timedelta

import pytest
from django.core.management.base import CommandError

from apikeys.accounting.limits import Counter, Limit
from tests.support import factories
from tests.support.commands import call


def add(*arguments: str) -> dict[str, object]:
    made: dict[str, object] = json.loads(call("limit", "add", "--json", *arguments)[0])
    return made


def test_it_works() -> None:
    api_key, _ = factories.make_key()
    made = add("--key", api_key.pk, "requests/minute", "60")
    limit = Limit.objects.get(pk=made["id"])
    assert (limit.team, limit.key, limit.measure, limit.period, limit.amount) == (
        api_key.team,
        api_key,
        "requests",
        "minute",
        60,
    )
    assert (made["used"], made["reserved"], made["left"]) == (0, 0, 60)
    assert json.loads(call("limit", "list", "--team", api_key.team.name, "--json")[0])[0]["id"] == limit.pk
    assert api_key.name in call("limit", "list", "--team", api_key.team.name)[0]
    assert "Changed: 5 requests a minute" in call("limit", "change", str(limit.pk), "5")[0]
    limit.refresh_from_db()
    assert limit.amount == 5
    call("limit", "remove", str(limit.pk))
    assert not Limit.objects.filter(pk=limit.pk).exists()


def test_a_soft_amount() -> None:
    api_key, _ = factories.make_key()
    made = add("--key", api_key.pk, "points/month", "10", "--soft", "7.5")
    assert made["softAmount"] == 7_500_000
    assert "10 points a month, alert at 7.5" in call("limit", "list", "--team", api_key.team.pk)[0]
    call("limit", "change", str(made["id"]), "20")
    assert Limit.objects.get(pk=made["id"]).soft_amount == 7_500_000
    call("limit", "change", str(made["id"]), "20", "--no-soft")
    assert Limit.objects.get(pk=made["id"]).soft_amount is None


@pytest.mark.parametrize(
    ("kind", "amount", "soft", "message"),
    [
        ("requests/minute", "10", "5", "Only budgets can have one"),
        ("open/now", "10", "5", "Only budgets can have one"),
        ("requests/day", "10", "11", "It is above the amount"),
        ("requests/day", "10", "0", "greater than or equal to 1"),
        ("requests/day", "10", "1.5", "1.5 cannot be counted"),
    ],
)
def test_a_soft_amount_that_cannot_be(kind: str, amount: str, soft: str, message: str) -> None:
    api_key, _ = factories.make_key()
    with pytest.raises(CommandError, match=message):
        call("limit", "add", "--key", api_key.pk, kind, amount, "--soft", soft)
    assert not Limit.objects.filter(key=api_key).exists()


def test_a_key_shows_its_limits() -> None:
    api_key, _ = factories.make_key()
    assert "Limits:          none" in call("apikey", "show", api_key.pk)[0]
    add("--key", api_key.pk, "requests/minute", "60")
    add("--team", api_key.team.pk, "points/total", "2.5")
    out = call("apikey", "show", api_key.pk)[0]
    assert "key: 60 requests a minute; 0 used, 60 left" in out
    assert "team: 2.5 points in total; 0 used, 2.5 left" in out
    assert len(json.loads(call("apikey", "show", api_key.pk, "--json")[0])["limits"]) == 2


def test_points_of_a_team() -> None:
    team = factories.make_team()
    made = add("--team", team.pk, "points/month", "12.5", "--time-zone", "Asia/Shanghai")
    assert (made["key"], made["measure"], made["amount"]) == (None, "micropoints", 12_500_000)
    assert made["timeZone"] == "Asia/Shanghai"


@pytest.mark.parametrize(
    ("kind", "amount", "complaint"),
    [
        ("requests/minute", "-1", "greater than or equal to 0"),
        ("requests/minute", "1.5", "cannot be counted"),
        ("points/day", "0.0000001", "cannot be counted"),
        ("tokens/day", "nan", "cannot be counted"),
        ("tokens/day", "inf", "cannot be counted"),
        ("tokens/day", str(2**53 + 1), "less than or equal to"),
        ("tokens/day", "many", "is not a number"),
        ("requests/now", "1", "invalid choice"),
        ("open/day", "1", "invalid choice"),
    ],
)
def test_amounts_that_cannot_be(kind: str, amount: str, complaint: str) -> None:
    api_key, _ = factories.make_key()
    with pytest.raises(CommandError, match=complaint):
        call("limit", "add", "--key", api_key.pk, kind, "--", amount)
    assert not Limit.objects.filter(key=api_key).exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["add", "requests/day", "1"], "Name a key"),
        (["add", "--key", "nobody", "requests/day", "1"], "There is no key"),
        (["add", "--team", "nobody", "requests/day", "1"], "There is no team"),
        (["change", "0", "1"], "There is no limit 0"),
        (["remove", "0"], "There is no limit 0"),
        (["add", "--typo"], "required|unrecognized"),
    ],
)
def test_mistakes(arguments: list[str], complaint: str) -> None:
    with pytest.raises(CommandError, match=complaint):
        call("limit", *arguments)


@pytest.mark.parametrize("name", ["Mars/Base", "localtime"])
def test_an_unknown_time_zone(name: str) -> None:
    team = factories.make_team()
    with pytest.raises(CommandError, match="is not a time zone"):
        add("--team", team.pk, "tokens/day", "1", "--time-zone", name)


@pytest.mark.parametrize("period", ["minute", "day", "week", "month"])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai", "America/St_Johns"])
def test_what_nobody_has_used_since(period: str, zone: str) -> None:
    """A counter stands in its old period until the next request; what is shown is the present one."""
    team = factories.make_team()
    limit = Limit.objects.create(team=team, measure="requests", period=period, amount=5, time_zone=zone)
    begun = limit.counter.period_start
    Counter.objects.filter(limit=limit).update(used=3, reserved=1)
    (shown,) = json.loads(call("limit", "list", "--team", team.name, "--json")[0])
    assert (shown["used"], shown["reserved"], shown["left"], shown["since"]) == (3, 1, 1, begun.isoformat())
    Counter.objects.filter(limit=limit).update(period_start=begun - timedelta(seconds=1))
    (shown,) = json.loads(call("limit", "list", "--team", team.name, "--json")[0])
    assert (shown["used"], shown["reserved"], shown["left"]) == (0, 0, 5)
    assert datetime.fromisoformat(shown["since"]) == begun
    limit.delete()
