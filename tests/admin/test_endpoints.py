"""The page of endpoints: the inventory of the API, with a switch for each kind of key."""

import re

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from apikeys.access.endpoints import routes
from apikeys.access.rules import EndpointRule
from apikeys.accounting.ledger import Refusal
from apikeys.admin import endpoints
from apikeys.object_ids import new_object_id
from apikeys.teams import Membership
from tests.admin.test_long_lists import record
from tests.support import factories
from tests.support.pages import browser, staff, text, url

PAGE = url(EndpointRule, "inventory")
COMPLETIONS = "chat.completions"


@pytest.fixture
def rules():
    """Delete the rules afterwards, since they apply to the keys of every test."""
    yield EndpointRule.objects
    EndpointRule.objects.all().delete()


@pytest.fixture
def client():
    return browser(factories.make_user(is_superuser=True))


def rows(client) -> dict[str, str]:
    """Return the HTML of each row of the page, by endpoint."""
    page = text(client.get(PAGE))
    found = re.findall(r'<tr>\s*<th scope="row"><span class="endpoint-name">([^<]+)</span>(.*?)</tr>', page, re.DOTALL)
    return dict(found)


def turn(client, endpoint: str, kind: str, is_open: str):
    return client.post(PAGE, {"endpoint": endpoint, "kind": kind, "is_open": is_open})


def test_it_works(client, rules):
    shown = rows(client)
    assert shown.keys() == {route.view.endpoint for route in routes()}
    completions = shown[COMPLETIONS]
    for path in ("/api/v1/chat/completions", "/api/openapi/v1/chat/completions", "/v1/chat/completions"):
        assert f'<span class="method">POST</span> <code>{path}</code>' in completions
    assert completions.count('aria-checked="true"') == 2
    assert "never" in completions
    assert "chat.view_app" in shown["app.list"]
    assert "anybody" in shown["base_url"]
    assert "<form" not in shown["base_url"]


def test_a_key_that_may_name_an_app_is_taken_as_a_global_key(client, rules):
    """It has no switch of its own where the endpoint declares global keys alone, and goes with theirs."""

    def cell() -> str:
        return re.findall(
            r'<td data-label="Global key that may name an app">\s*(.*?)\s*</td>', rows(client)["app.list"]
        )[0]

    assert cell() == "open"
    turn(client, "app.list", "global", "no")
    assert cell() == "<strong>closed</strong>"


def test_switch(client, rules):
    assert turn(client, COMPLETIONS, "app", "no").url == PAGE
    assert rules.get().denied_kinds == ["app"]
    assert rows(client)[COMPLETIONS].count('aria-checked="false"') == 1
    assert turn(client, COMPLETIONS, "global_naming_app", "no").status_code == 302
    assert rules.get().denied_kinds == ["app", "global_naming_app"]
    assert turn(client, COMPLETIONS, "app", "yes").status_code == 302
    assert rules.get().denied_kinds == ["global_naming_app"]
    rule = rules.get()
    turn(client, COMPLETIONS, "global_naming_app", "yes")
    assert not rules.exists()
    history = LogEntry.objects.filter(content_type__model="endpointrule", object_id=rule.pk).order_by("pk")
    assert [entry.change_message for entry in history] == [
        "Closed chat.completions to: app key.",
        "Closed chat.completions to: global key that may name an app.",
        "Opened chat.completions to: app key.",
        "Opened chat.completions to: global key that may name an app.",
    ]


def test_turned_twice(client, rules):
    turn(client, COMPLETIONS, "app", "no")
    before = rules.get()
    turn(client, COMPLETIONS, "app", "no")
    assert rules.get().changed_at == before.changed_at
    turn(client, COMPLETIONS, "app", "yes")
    turn(client, COMPLETIONS, "app", "yes")
    assert not rules.exists()


@pytest.mark.parametrize(
    ("endpoint", "kind", "is_open"),
    [("no.such", "app", "no"), (COMPLETIONS, "robot", "no"), (COMPLETIONS, "global", "no"), (COMPLETIONS, "app", "")],
)
def test_no_such_switch(client, rules, endpoint, kind, is_open):
    response = turn(client, endpoint, kind, is_open)
    assert "That switch does not exist." in text(client.get(response.url))
    assert not rules.exists()


def test_without_a_form_token(rules):
    client = Client(enforce_csrf_checks=True)
    client.force_login(factories.make_user(is_superuser=True))
    assert turn(client, COMPLETIONS, "app", "no").status_code == 403
    assert not rules.exists()


def test_staff_see_and_do_not_switch(rules):
    _, client = staff(factories.make_team(), *(f"apikeys.{do}_endpointrule" for do in ("view", "add", "change")))
    assert client.get(PAGE).status_code == 403
    _, client = staff(factories.make_team(), "apikeys.view_apikey", "apikeys.change_endpointrule")
    page = text(client.get(PAGE))
    assert "Only superusers may use the switches." in page
    assert 'role="switch"' not in page
    assert turn(client, COMPLETIONS, "app", "no").status_code == 403
    assert not rules.exists()


def test_others(rules):
    assert Client().get(PAGE).url.startswith("/admin/login/")
    client = browser(factories.make_user(factories.make_team(), is_staff=False, permissions=("apikeys.view_apikey",)))
    assert client.get(PAGE).url.startswith("/admin/login/")


def counts(client, endpoint: str) -> list[str]:
    return re.findall(r'class="number">([\d,]+)</td>', rows(client)[endpoint])


def refusal(key, **fields):
    fields = {"id": new_object_id(), "team_id": key.team_id, "key": key, "endpoint": COMPLETIONS, **fields}
    return Refusal.objects.create(status=429, code="rate_limit_exceeded", message="no", **fields)


def test_counts_of_own_teams_alone(monkeypatch):
    team = factories.make_team()
    user, member = staff(team, "apikeys.view_apikey", "apikeys.view_usagerecord", "apikeys.view_refusal")
    key, foreign_key = factories.make_key(team)[0], factories.make_key()[0]
    for _ in range(3):
        record(key).save(force_insert=True)
    record(key, endpoint="app.list").save(force_insert=True)
    record(foreign_key).save(force_insert=True)
    # This id and time are older than a day.
    record(key, id=f"{1:08x}{new_object_id()[8:]}", created_at="2020-01-01T00:00:00Z").save(force_insert=True)
    refusal(key)
    refusal(key, sample_weight=10)
    refusal(foreign_key)
    assert counts(member, COMPLETIONS) == ["3", "11"]
    assert counts(member, "app.list") == ["1", "0"]
    Membership.objects.create(team=foreign_key.team, user=user)
    assert counts(member, COMPLETIONS) == ["4", "12"]
    assert "only that many were counted" not in text(member.get(PAGE))
    monkeypatch.setattr(endpoints, "MAXIMUM_COUNTED", 2)
    assert counts(member, COMPLETIONS)[0] in ("1", "2")
    assert "There were more than 2 calls or refusals" in text(member.get(PAGE))


@pytest.mark.parametrize(("right", "column"), [("usagerecord", "Calls, 24 h"), ("refusal", "Refusals, 24 h")])
def test_counts_are_for_those_who_may_see_what_is_counted(right, column):
    team = factories.make_team()
    key, _ = factories.make_key(team)
    record(key).save(force_insert=True)
    refusal(key, sample_weight=2)
    _, member = staff(team, "apikeys.view_apikey", f"apikeys.view_{right}")
    assert counts(member, COMPLETIONS) == ["1" if right == "usagerecord" else "2"]
    assert re.findall(r">(\w+, 24 h)<", text(member.get(PAGE))) == [column]
    _, other = staff(team, "apikeys.view_apikey")
    assert "24 h" not in text(other.get(PAGE))


def test_same_number_of_queries(client, rules):
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert client.get(PAGE).status_code == 200
        return len(captured)

    before = queries()
    for endpoint, kinds in endpoints.declared_kinds().items():
        rules.create(endpoint=endpoint, denied_kinds=sorted(kinds))
    key, _ = factories.make_key()
    for number in range(20):
        record(key, endpoint=f"e{number}").save(force_insert=True)
        refusal(key, endpoint=f"e{number}")
    assert queries() == before
