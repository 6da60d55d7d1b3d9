"""The list of keys."""

from datetime import timedelta

from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apikeys.accounting.ledger import KeyActivity
from tests.support import factories
from tests.support.pages import LIST, page_of, staff, text


def test_it_works():
    team = factories.make_team()
    app = factories.make_app(team)
    used, key = factories.make_key(app=app)
    KeyActivity.objects.create(key=used, last_used_at="2020-02-03T04:05Z", last_used_from="192.0.2.7")
    disabled, _ = factories.make_key(team, can_name_app=True)
    disabled.disable()
    expired, _ = factories.make_key(team)
    expired.expires_at = timezone.now() - timedelta(days=1)
    expired.save()
    _, client = staff(team)
    page = text(client.get(LIST))
    for told in (used.name, ">app<", app.name, used.owner.username, key[-4:], "usable", "2020-02-03 04:05"):
        assert told in page
    for told in (disabled.name, "It is disabled.", "global that may name an app", "It has expired.", "never"):
        assert told in page


def test_latest_end_in_the_easternmost_time_zone():
    api_key, _ = factories.make_key(expires_at="9998-12-31T23:59:59Z")
    _, client = staff(api_key.team)
    client.cookies["timezone"] = "Pacific/Kiritimati"
    assert "9999-01-01 13:59" in text(client.get(LIST))
    assert client.get(page_of(api_key)).status_code == 200


def test_query_count_does_not_grow_with_rows():
    team = factories.make_team()
    user, client = staff(team)
    counts = []
    for _ in range(2):
        for _ in range(3):
            api_key, _ = factories.make_key(app=factories.make_app(team), owner=user)
            KeyActivity.objects.create(key=api_key, last_used_at=timezone.now())
            factories.make_key(team, owner=user)
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert client.get(LIST).status_code == 200
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_found_by_name_id_and_last_four():
    team = factories.make_team()
    api_key, key = factories.make_key(team)
    other, _ = factories.make_key(team)
    _, client = staff(team)
    for words in (api_key.name, api_key.pk, key[-4:]):
        page = text(client.get(LIST, {"q": words}))
        assert api_key.name in page
        assert other.name not in page


def test_sorted_by_last_use():
    team = factories.make_team()
    _, client = staff(team)
    names = []
    for day in (1, 2):
        api_key, _ = factories.make_key(team)
        KeyActivity.objects.create(key=api_key, last_used_at=f"2020-01-0{day}T00:00Z")
        names.append(api_key.name)
    page = text(client.get(LIST, {"o": "8"}))
    assert page.index(names[0]) < page.index(names[1])
