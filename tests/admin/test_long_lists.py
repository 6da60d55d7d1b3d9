"""Lists, and choices from many rows, cost the same however many rows there are."""

import re

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apikeys.access.rules import EndpointRule
from apikeys.accounting.ledger import Outcome, UsageRecord
from apikeys.accounting.limits import Limit
from apikeys.admin import long_lists
from apikeys.admin.scope import MAXIMUM_CHOICES
from apikeys.alerts.webhooks import Webhook
from apikeys.keys.models import ApiKey, KeySecret
from apikeys.object_ids import new_object_id
from apikeys.teams import Membership, Team
from chat.models import App
from tests.support import factories
from tests.support.pages import LIST, browser, staff, text, url

LEDGER = url(UsageRecord, "changelist")
RIGHTS = ("apikeys.view_apikey", "apikeys.view_usagerecord", "apikeys.add_limit", "apikeys.view_limit", "chat.view_app")


def add_rows(team, count):
    """Add keys, each with an owner, an app, a secret and a record of its own."""
    model = factories.make_model(factories.make_provider(team))
    users = User.objects.bulk_create(User(username=factories.unique("user")) for _ in range(count))
    Membership.objects.bulk_create(Membership(team=team, user=user) for user in users)
    apps = App.objects.bulk_create(App(team=team, name=factories.unique("app"), model=model) for _ in range(count))
    keys = ApiKey.objects.bulk_create(
        ApiKey(team=team, owner=user, app=app, name=factories.unique("key"))
        for user, app in zip(users, apps, strict=True)
    )
    KeySecret.objects.bulk_create(
        KeySecret(key=key, digest=key.pk.encode(), pepper_id="p", last_four="abcd") for key in keys
    )
    UsageRecord.objects.bulk_create(record(key) for key in keys)
    return keys


def record(key, **fields):
    return UsageRecord(
        **{
            "id": new_object_id(),
            "team_id": key.team_id,
            "key": key,
            "app_id": key.app_id,
            "endpoint": "chat.completions",
            "status": 200,
            "outcome": Outcome.COMPLETE,
            "duration_ms": 7,
            **fields,
        }
    )


@pytest.mark.parametrize("page", [LIST, LEDGER])
@pytest.mark.parametrize("is_superuser", [False, True])
def test_queries_do_not_grow_with_rows(page, is_superuser):
    team = factories.make_team()
    client = browser(factories.make_user(is_superuser=True)) if is_superuser else staff(team, *RIGHTS)[1]
    counts = []
    # The first count is just over a page; both have more owners, apps and keys than are listed as choices.
    for count in (110, 200):
        add_rows(team, count)
        with CaptureQueriesContext(connection) as queries:
            assert client.get(page).status_code == 200
        counts.append(len(queries))
        statements = [query["sql"] for query in queries]
        assert [sql for sql in statements if "COUNT(*)" in sql and "LIMIT" not in sql] == []
        # Besides the rows of one page, only a few choices may be read.
        lists = [sql for sql in statements if "SELECT" in sql and re.search(r'FROM "(apikeys|chat)_', sql)]
        assert [sql for sql in lists if not re.search(r"LIMIT| IN \(|\"user_id\" = ", sql)] == []
    assert counts[0] == counts[1]


def make_row(model, number):
    if model is User:
        return factories.make_user()
    if model is Group:
        return Group.objects.create(name=factories.unique("group"))
    if model is EndpointRule:
        return EndpointRule.objects.create(endpoint=factories.unique("endpoint"))
    team = factories.make_team()
    if model is App:
        return factories.make_app(team)
    if model is Limit:
        key, _ = factories.make_key(team)
        return Limit.objects.create(team=team, key=key, measure="requests", period="day", amount=number)
    if model is Webhook:
        webhook = Webhook(team=team, url="https://example.org/")
        webhook.make_secret()
        webhook.save(force_insert=True)
    return team


@pytest.mark.parametrize("model", [Team, Webhook, User, Group, App, Limit, EndpointRule])
def test_queries_of_other_lists_do_not_grow_with_rows(model):
    client = browser(factories.make_user(is_superuser=True))
    counts = []
    try:
        for _ in range(2):
            # These are more than are listed as choices, so that filters are the same both times.
            Team.objects.bulk_create(Team(name=factories.unique("team")) for _ in range(MAXIMUM_CHOICES + 1))
            for number in range(5):
                make_row(model, number)
            with CaptureQueriesContext(connection) as queries:
                assert client.get(url(model, "changelist")).status_code == 200
            counts.append(len(queries))
    finally:
        EndpointRule.objects.filter(endpoint__startswith="endpoint-").delete()
    assert counts[0] == counts[1]


@pytest.mark.parametrize("page", [LIST, LEDGER])
def test_count_ends_somewhere(page, monkeypatch):
    monkeypatch.setattr(long_lists, "MAXIMUM_ROWS", 105)
    team = factories.make_team()
    keys = add_rows(team, 105)
    _, client = staff(team, *RIGHTS)
    assert "105 " in text(client.get(page))
    assert "more than" not in text(client.get(page))
    keys += add_rows(team, 1)
    assert "more than 105" in text(client.get(page))
    assert len(re.findall(r'<th class="field-', text(client.get(page, {"p": "2"})))) == 5
    assert client.get(page, {"p": "3"}).status_code == 302


def test_ledger_shows_the_newest_first_to_everybody():
    team = factories.make_team()
    key, _ = factories.make_key(app=factories.make_app(team))
    older, newer = new_object_id(), new_object_id()
    UsageRecord.objects.bulk_create(
        [record(key, id=newer, created_at="2100-01-02T00:00Z"), record(key, id=older, created_at="2100-01-01T00:00Z")]
    )
    _, member = staff(team, *RIGHTS)
    superuser = browser(factories.make_user(is_superuser=True))
    pages = [member.get(LEDGER)]
    pages += [
        superuser.get(LEDGER, {f"{name}__id__exact": pk})
        for name, pk in (("team", team.pk), ("key", key.pk), ("app", key.app_id))
    ]
    for page in map(text, pages):
        assert page.index(newer) < page.index(older)


def test_ledger_is_searched_by_ids():
    team = factories.make_team()
    one, other = add_rows(team, 2)
    _, client = staff(team, *RIGHTS)
    mine, foreign = UsageRecord.objects.get(key=one).pk, UsageRecord.objects.get(key=other).pk
    for words in (mine, mine.upper(), one.pk):
        page = text(client.get(LEDGER, {"q": words}))
        assert url(UsageRecord, "change", mine) in page
        assert url(UsageRecord, "change", foreign) not in page


def test_keys_are_searched_by_app_and_owner():
    team = factories.make_team()
    key, other = add_rows(team, 2)
    _, client = staff(team, *RIGHTS)
    for words in (key.app.name.upper(), key.owner.username, f"{key.owner.username} {key.app.name}"):
        page = text(client.get(LIST, {"q": words}))
        assert url(ApiKey, "change", key.pk) in page
        assert url(ApiKey, "change", other.pk) not in page
    assert url(ApiKey, "change", key.pk) not in text(client.get(LIST, {"q": f"{key.name} {other.name}"}))


def test_filter_lists_few_and_searches_many():
    team = factories.make_team()
    key, *_ = add_rows(team, MAXIMUM_CHOICES)
    _, client = staff(team, *RIGHTS)
    assert f"app__id__exact={key.app_id}" in text(client.get(LIST))
    add_rows(team, 1)
    page = text(client.get(LIST))
    assert f"app__id__exact={key.app_id}" not in page
    assert re.search(r'<select name="app__id__exact"[^>]*admin-autocomplete', page)
    assert "autocomplete.js" in page


def test_searched_filter_keeps_the_others_and_names_what_is_chosen():
    team = factories.make_team()
    key, other, *_ = add_rows(team, MAXIMUM_CHOICES + 1)
    _, client = staff(team, *RIGHTS)
    page = text(client.get(LEDGER, {"app__id__exact": key.app_id, "outcome": "complete"}))
    assert f'<option value="{key.app_id}" selected>{key.app.name} ({team.name})</option>' in page
    assert '<input type="hidden" name="outcome__exact" value="complete">' not in page
    assert '<input type="hidden" name="outcome" value="complete">' in page
    assert UsageRecord.objects.get(key=key).pk in page
    assert UsageRecord.objects.get(key=other).pk not in page


def test_searched_filter_names_nothing_foreign():
    team = factories.make_team()
    add_rows(team, MAXIMUM_CHOICES + 1)
    (foreign,) = add_rows(factories.make_team(), 1)
    _, client = staff(team, *RIGHTS)
    assert foreign.app.name not in text(client.get(LIST, {"app__id__exact": foreign.app_id}))


def test_who_may_not_see_owners_is_offered_no_search_that_refuses():
    team = factories.make_team()
    add_rows(team, MAXIMUM_CHOICES + 1)
    _, client = staff(team, *RIGHTS)
    assert "owner__id__exact" not in text(client.get(LIST))


def test_form_lists_few_and_searches_many():
    team = factories.make_team()
    key, *_ = add_rows(team, MAXIMUM_CHOICES)
    _, client = staff(team, *RIGHTS)
    add = url(Limit, "add")
    assert key.name in text(client.get(add))
    add_rows(team, 1)
    page = text(client.get(add))
    assert key.name not in page
    assert re.search(r'<select name="key"[^>]*admin-autocomplete', page)
    form = {"team": team.pk, "key": key.pk, "measure": "requests", "period": "day", "amount": 7, "time_zone": "UTC"}
    assert client.post(add, form).status_code == 302
    assert Limit.objects.get(key=key).amount == 7


def test_superuser_filters_by_one_of_many_teams():
    Team.objects.bulk_create(Team(name=factories.unique("team")) for _ in range(MAXIMUM_CHOICES + 1))
    (key,), (other,) = add_rows(factories.make_team(), 1), add_rows(factories.make_team(), 1)
    client = browser(factories.make_user(is_superuser=True))
    page = text(client.get(LIST, {"team__id__exact": key.team_id}))
    assert key.name in page
    assert other.name not in page
    assert re.search(r'<select name="team__id__exact"[^>]*admin-autocomplete', page)
