"""Keys raise alerts before they expire, once for each threshold."""

from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from apikeys.alerts import expiry
from apikeys.teams import Membership
from tests.support import factories


def end_in(days):
    return (timezone.now() + timedelta(days=days)).replace(microsecond=0)


def key_with(days):
    return factories.make_key(expires_at=end_in(days))[0]


def days_of(api_key):
    """Return the thresholds of a key's alerts in the order of their creation."""
    return [alert.details["days"] for alert in api_key.alerts.filter(kind="expiry").order_by("pk")]


@pytest.mark.parametrize(
    ("days", "raised"), [(0.5, [1]), (0.99, [1]), (1.01, [7]), (5, [7]), (7.01, [30]), (29.9, [30]), (30.1, [])]
)
def test_only_the_nearest_threshold_is_raised(days, raised):
    api_key = key_with(days)
    expiry.raise_alerts()
    assert days_of(api_key) == raised


def test_an_alert_holds_what_people_need():
    api_key = key_with(5)
    expiry.raise_alerts()
    alert = api_key.alerts.get()
    assert alert.team == api_key.team
    assert alert.kind == "expiry"
    assert alert.details == {"expires_at": api_key.expires_at.isoformat(), "days": 7}


def move_end(api_key, days):
    """Simulate passing time: move the key's end closer, and its alerts' dedup keys with it."""
    before, api_key.expires_at = api_key.expires_at, end_in(days)
    api_key.save(update_fields=["expires_at"])
    for alert in api_key.alerts.all():
        alert.dedup_key = alert.dedup_key.replace(f"{before.timestamp():.0f}", f"{api_key.expires_at.timestamp():.0f}")
        alert.save()


def test_each_threshold_is_raised_once():
    api_key = key_with(20)
    for days in (20, 19, 6, 5, 0.5, 0.4):
        move_end(api_key, days)
        expiry.raise_alerts()
        expiry.raise_alerts()
    assert days_of(api_key) == [30, 7, 1]


def test_another_end_raises_another_alert():
    api_key = key_with(5)
    expiry.raise_alerts()
    api_key.expires_at += timedelta(days=1)
    api_key.save(update_fields=["expires_at"])
    expiry.raise_alerts()
    assert days_of(api_key) == [7, 7]


def end(api_key):
    api_key.expires_at = timezone.now() - timedelta(minutes=1)
    api_key.save(update_fields=["expires_at"])


def disable_team(api_key):
    api_key.team.disabled_at = timezone.now()
    api_key.team.save()


def dismiss_owner(api_key):
    api_key.owner.is_active = False
    api_key.owner.save()


@pytest.mark.parametrize(
    "make_unusable",
    [
        end,
        disable_team,
        dismiss_owner,
        lambda api_key: api_key.disable(),
        lambda api_key: api_key.revoke(by="somebody", reason="test"),
        lambda api_key: Membership.objects.filter(user=api_key.owner).delete(),
        lambda api_key: api_key.secrets.update(expires_at=timezone.now()),
    ],
    ids=["expired", "team", "owner", "disabled", "revoked", "left", "no secret"],
)
def test_a_key_that_does_not_work_anyway(make_unusable):
    api_key = key_with(5)
    make_unusable(api_key)
    expiry.raise_alerts()
    assert days_of(api_key) == []


def test_keys_are_found_by_their_index():
    with connection.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")
        try:
            sql, parameters = expiry.statement()
            cursor.execute(f"EXPLAIN {sql}", parameters)
            plan = "\n".join(row[0] for row in cursor.fetchall())
        finally:
            cursor.execute("RESET enable_seqscan")
    assert "apikey_by_end" in plan
