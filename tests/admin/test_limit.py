"""Limits in the admin."""

from decimal import Decimal
from typing import Any

from django.urls import reverse

from apikeys.accounting.limits import Limit
from tests.support import factories
from tests.support.pages import browser

ADD = reverse("admin:apikeys_limit_add")


def staff_of(team: Any) -> Any:
    rights = ("apikeys.view_limit", "apikeys.add_limit", "apikeys.change_limit", "chat.view_provider")
    return browser(factories.make_user(team, permissions=(*rights, "chat.change_provider")))


def form(team: Any, **fields: Any) -> dict[str, Any]:
    return {
        "team": team.pk,
        "key": "",
        "measure": "requests",
        "period": "day",
        "amount": "5",
        "time_zone": "UTC",
        **fields,
    }


def test_it_works() -> None:
    api_key, _ = factories.make_key()
    client = staff_of(api_key.team)
    assert client.post(ADD, form(api_key.team, key=api_key.pk)).status_code == 302
    limit = Limit.objects.get(key=api_key)
    assert limit.amount == 5
    page = reverse("admin:apikeys_limit_change", args=[limit.pk])
    assert client.post(page, {"amount": "7"}).status_code == 302
    limit.refresh_from_db()
    assert limit.amount == 7
    assert "7 requests a day" in client.get(reverse("admin:apikeys_limit_changelist")).content.decode()


def test_points_have_decimals() -> None:
    team = factories.make_team()
    client = staff_of(team)
    assert client.post(ADD, form(team, measure="micropoints", period="month", amount="1.25")).status_code == 302
    limit = Limit.objects.get(team=team)
    assert limit.amount == 1_250_000
    page = client.get(reverse("admin:apikeys_limit_change", args=[limit.pk]))
    assert page.context["adminform"].form.initial["amount"] == Decimal("1.25")
    assert "millionths" not in page.content.decode()


def test_what_cannot_be_is_refused() -> None:
    team, other = factories.make_team(), factories.make_key()[0]
    client = staff_of(team)
    wrong = [
        ({"amount": "1.5"}, "Requests must be a whole number"),
        ({"amount": "-1"}, "greater than or equal to 0"),
        ({"amount": str(2**53 + 1)}, "The maximum is"),
        ({"measure": "", "amount": "1.5"}, "This field is required"),
        ({"measure": "open"}, "counted at any moment"),
        ({"period": "now"}, "counted at any moment"),
        ({"time_zone": "Mars/Base"}, "is not a time zone"),
        ({"key": other.pk}, "not one of the available choices"),
    ]
    for fields, complaint in wrong:
        assert complaint in client.post(ADD, form(team, **fields)).content.decode(), fields
    assert not Limit.objects.filter(team=team).exists()
