"""Messages of each kind of alert for people and programs, and their recipients."""

import json
import re

import pytest
from django.contrib.auth.models import User
from django.utils.translation import override

from apikeys.alerts import deliveries, messages
from apikeys.alerts.deliveries import Delivery
from apikeys.alerts.models import Alert
from apikeys.teams import Membership
from tests.support import factories

BUDGET = {
    "limit_id": 7,
    "measure": "tokens",
    "period": "total",
    "time_zone": "UTC",
    "period_start": "1970-01-01T00:00:00+00:00",
    "amount": 2_000_000,
    "used": 1_000_001,
}
EXPIRY = {"expires_at": "2026-12-24T18:30:00+00:00", "days": 1}
REUSE = {"last_four": "9xQz", "ended_at": "2026-12-01T00:00:00+00:00", "client_address": "203.0.113.7"}


def make_alert(kind, facts, **fields):
    api_key, _ = factories.make_key(name="robot")
    fields = {"team": api_key.team, "key": api_key, **fields}
    return Alert.objects.create(kind=kind, details=facts, dedup_key=factories.unique("dedup_key"), **fields)


@pytest.mark.parametrize(
    ("kind", "facts", "headline", "said"),
    [
        (
            "budget",
            BUDGET | {"percent": 50},
            "has used 50% of its 2,000,000 tokens in total",
            "Used:      1,000,001 tok",
        ),
        ("budget", BUDGET | {"percent": 100}, "has used 100% of its 2,000,000 tokens in total", "are refused."),
        ("budget", BUDGET | {"soft_amount": 9}, "has used its soft amount of 9 tokens in total", "Nothing is refused"),
        ("expiry", EXPIRY, "expires within 1 day", "Expires:   2026-12-24 18:30 UTC"),
        ("reuse", REUSE, ": a secret was used after it expired", "Used from: 203.0.113.7"),
    ],
)
def test_words(kind, facts, headline, said):
    alert = make_alert(kind, facts)
    assert messages.headline(alert) == f'Key "robot" {headline}'.replace('" :', '":')
    assert said in messages.text(alert)
    assert alert.team.name in messages.text(alert)


def test_a_team_is_named_for_what_is_its_own():
    alert = make_alert("budget", BUDGET | {"percent": 80}, key=None)
    assert messages.headline(alert).startswith(f'Team "{alert.team.name}" has used')
    assert json.loads(messages.payload(alert))["data"]["key"] is None


@pytest.mark.parametrize(
    ("kind", "facts", "name"),
    [
        ("budget", BUDGET | {"percent": 80}, "budget.threshold_reached"),
        ("expiry", EXPIRY, "key.expires_soon"),
        ("reuse", REUSE, "secret.reused"),
    ],
)
def test_payload(kind, facts, name):
    alert = make_alert(kind, facts)
    alert.refresh_from_db()
    payload = json.loads(messages.payload(alert))
    assert (payload["type"], payload["timestamp"]) == (name, alert.created_at.isoformat())
    assert payload["data"].items() >= facts.items()


def test_an_owner_who_left_hears_nothing():
    alert = make_alert("expiry", EXPIRY)
    owner = alert.key.owner
    owner.email = "owner@example.org"
    owner.save()
    assert messages.recipients(alert) == ["owner@example.org"]
    Membership.objects.filter(user=owner).delete()
    assert messages.recipients(alert) == []


def test_a_team_tells_its_active_staff():
    alert = make_alert("budget", BUDGET | {"percent": 80}, key=None)
    for name, fields in {"staff": {}, "gone": {"is_active": False}, "clerk": {"is_staff": False}}.items():
        user = factories.make_user(alert.team)
        user.email = f"{name}@example.org"
        for field, value in fields.items():
            setattr(user, field, value)
        user.save()
    assert messages.recipients(alert) == ["staff@example.org"]


@pytest.mark.parametrize(
    ("kind", "facts", "said"),
    [
        ("budget", BUDGET | {"percent": 100}, ["已用：", "超出限额的请求将被拒绝。"]),
        ("expiry", EXPIRY, ["过期时间：", "1 天"]),
        ("reuse", REUSE, ["调用来源：", "过期时间："]),
    ],
)
def test_words_in_chinese(kind, facts, said):
    alert = make_alert(kind, facts)
    with override("zh-hans"):
        told = f"{messages.headline(alert)}\n{messages.text(alert)}"
    assert [words for words in said if words not in told] == []
    assert not re.search(r"[A-Za-z]+ [A-Za-z]+ [A-Za-z]+", told)


def test_a_mail_is_in_the_language_of_the_site(settings):
    alert = make_alert("expiry", EXPIRY)
    User.objects.filter(pk=alert.key.owner_id).update(email="owner@example.org")
    settings.HAS_MAIL = True
    delivery = Delivery(alert=alert, channel="mail")
    with override("en"):
        assert "Expires:" in deliveries._mail(delivery).body
        settings.LANGUAGE_CODE = "zh-hans"
        mail = deliveries._mail(delivery)
    assert "过期时间" in mail.body
    assert "天" in mail.subject
