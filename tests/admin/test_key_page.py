"""A key's page: its state, its limits, its usage and its history."""

from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apikeys.accounting.ledger import Outcome, Refusal, SecretReuse, UsageRecord
from apikeys.accounting.limits import Limit
from apikeys.accounting.periods import period_end
from apikeys.object_ids import new_object_id
from apikeys.statistics.key_series import all_series
from apikeys.statistics.rollup import roll_up
from tests.support import factories
from tests.support.pages import ADD, KEY_RIGHTS, key_form, page_of, staff, text, url

RIGHTS = (
    *KEY_RIGHTS,
    *(f"apikeys.view_{model}" for model in ("usagerecord", "refusal", "limit", "auditentry")),
)


def make_record(api_key, **fields):
    return UsageRecord.objects.create(
        **{
            "id": new_object_id(),
            "team": api_key.team,
            "key": api_key,
            "endpoint": "chat.completions",
            "status": 200,
            "outcome": Outcome.COMPLETE,
            "duration_ms": 7,
            "prompt_tokens": 11,
            "completion_tokens": 31,
            "cost_micropoints": 500_000,
            "client_address": "192.0.2.7",
            **fields,
        }
    )


def make_refusal(api_key, **fields):
    return Refusal.objects.create(
        **{
            "id": new_object_id(),
            "team": api_key.team,
            "key": api_key,
            "endpoint": "app.list",
            "status": 403,
            "code": "wrong_key_kind",
            "message": "no",
            **fields,
        }
    )


def test_it_works():
    team = factories.make_team()
    api_key, key = factories.make_key(app=factories.make_app(team), allowed_networks=["192.0.2.0/24"])
    record, refusal = make_record(api_key), make_refusal(api_key)
    Limit.objects.create(team=team, key=api_key, measure="requests", period="day", amount=8, soft_amount=4)
    SecretReuse.objects.create(secret=api_key.secrets.get(), count=3, last_from="198.51.100.9")
    user, client = staff(team, *RIGHTS)
    LogEntry.objects.log_actions(user.pk, [api_key], 2, "Painted it green.")
    assert client.post(page_of(api_key), key_form(api_key, note="For the website")).status_code == 302
    page = text(client.get(page_of(api_key)))
    for told in (
        "usable",
        "app key",
        api_key.app.name,
        key[-4:],
        "8 requests a day, alert at 4",
        "7 left (used or reserved: 12%)",
        "1 requests, 42 tokens, 0.5 points",
        f"<td>{record.status}</td><td>{record.get_outcome_display()}</td>",
        url(UsageRecord, "change", record.pk),
        url(Refusal, "change", refusal.pk),
        "wrong_key_kind",
        "192.0.2.7",
        "Allowed: 192.0.2.0/24",
        "3 times, last",
        "198.51.100.9",
        "Painted it green.",
        f"{user.username} (admin)",
        "Note: - → For the website",
        f"{ADD}?copy={api_key.pk}",
    ):
        assert told in page


def test_times_are_of_the_viewers_zone():
    api_key, _ = factories.make_key()
    make_record(api_key, created_at=timezone.now().replace(month=1, day=1, hour=12, minute=34))
    _, client = staff(api_key.team, *RIGHTS)
    assert "12:34 p.m." in text(client.get(page_of(api_key)))
    client.cookies["timezone"] = "Asia/Shanghai"
    page = text(client.get(page_of(api_key)))
    assert "8:34 p.m." in page
    assert "12:34 p.m." not in page


def test_says_why_it_is_not_usable():
    api_key, _ = factories.make_key()
    api_key.disable()
    _, client = staff(api_key.team)
    assert '<span class="page-badge bad">It is disabled.</span>' in text(client.get(page_of(api_key)))


def test_query_count_does_not_grow_with_rows():
    team = factories.make_team()
    api_key, _ = factories.make_key(app=factories.make_app(team))
    user, client = staff(team, *RIGHTS)
    counts = []
    for _ in range(2):
        for number in range(3):
            make_record(api_key, app=api_key.app, client_address=f"192.0.2.{number}", endpoint=f"e{number}")
            make_refusal(api_key)
            api_key.rotate()
            Limit.objects.create(team=team, key=api_key, measure="requests", period="day", amount=number)
            LogEntry.objects.log_actions(user.pk, [api_key], 2, "Painted it green.")
        client.get(page_of(api_key))
        with CaptureQueriesContext(connection) as queries:
            assert client.get(page_of(api_key)).status_code == 200
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_only_what_one_may_see():
    api_key, _ = factories.make_key()
    record, refusal = make_record(api_key), make_refusal(api_key)
    Limit.objects.create(team=api_key.team, key=api_key, measure="requests", period="day", amount=8)
    user, client = staff(api_key.team)
    client.post(page_of(api_key), key_form(api_key, note="For the website"))
    page = text(client.get(page_of(api_key)))
    assert record.pk not in page
    assert refusal.pk not in page
    assert "192.0.2.7" not in page
    assert "<canvas" not in page
    assert "8 requests a day" not in page
    assert f"{user.username} (admin)" not in page
    # Django's own history of the key is shown without the audit.
    assert "Changed Note." in page


def test_nothing_of_another_key():
    api_key, _ = factories.make_key()
    other, _ = factories.make_key(api_key.team)
    record, refusal = make_record(other), make_refusal(other)
    _, client = staff(api_key.team, *RIGHTS)
    page = text(client.get(page_of(api_key)))
    assert record.pk not in page
    assert refusal.pk not in page


def test_endpoint_that_it_may_no_longer_call():
    api_key, _ = factories.make_key(allowed_endpoints=["key.self"])
    make_record(api_key, endpoint="app.list")
    _, client = staff(api_key.team, *RIGHTS)
    page = text(client.get(page_of(api_key)))
    assert "<td>key.self</td><td>yes</td>" in page
    assert '<td>app.list</td><td><span class="bad">no longer</span></td>' in page


def test_series_count_the_ledger():
    api_key, _ = factories.make_key()
    now = timezone.now()
    make_record(api_key)
    make_record(api_key, outcome=Outcome.FAILED)
    make_record(api_key, created_at=now - timedelta(days=5))
    make_record(api_key, created_at=now - timedelta(days=100))
    # The job, which runs each minute, takes up late records.
    roll_up()
    series = all_series(api_key)
    assert [(series[span].requests, sum(series[span].others)) for span in ("day", "month", "year")] == [
        (2, 1),
        (3, 1),
        (4, 1),
    ]
    assert [len(series[span].labels) for span in ("day", "month")] == [24, 30]
    # Weeks begin on Mondays, so a year touches 53 or 54 of them.
    assert 53 <= len(series["year"].labels) <= 54
    assert (series["day"].complete[-1], series["day"].others[-1]) == (1, 1)
    assert series["year"].micropoints == 2_000_000


@pytest.mark.parametrize(
    ("period", "ends"), [("day", "2100-02-01"), ("week", "2100-02-07"), ("month", "2100-02-28"), ("total", None)]
)
def test_period_end(period, ends):
    """Periods end at midnight in the limit's time zone, and months have any length."""
    start = timezone.datetime.fromisoformat("2100-01-31T00:00+01:00")
    start = start.replace(day=1) if period == "month" else start
    ends = "2100-02-01" if period == "month" else ends
    end = period_end(period, start, "Europe/Berlin")
    assert (end and f"{end:%Y-%m-%d %H:%M}") == (ends and f"{ends} 00:00")
