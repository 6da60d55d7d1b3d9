"""Keys in the admin's search over everything."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from tests import factories
from tests.admin.pages import page_of, staff, text


@pytest.fixture(autouse=True)
def command(settings):
    settings.UNFOLD = {**settings.UNFOLD, "COMMAND": {"search_callback": "apikeys.key_search.search"}}


def found(client, words):
    return text(client.get(reverse("admin:search"), {"s": words, "extended": "1"}))


def test_it_works():
    team = factories.make_team()
    app = factories.make_app(team)
    api_key, key = factories.make_key(app=app)
    other, _ = factories.make_key(team)
    _, client = staff(team)
    for words in (api_key.name, app.name, api_key.owner.username, api_key.pk, key[-4:]):
        page = found(client, words)
        assert page_of(api_key) in page
        assert page_of(other) not in page


def test_nothing_foreign():
    api_key, key = factories.make_key(app=factories.make_app(factories.make_team()))
    _, client = staff(factories.make_team())
    for words in (api_key.name, api_key.app.name, api_key.owner.username, api_key.pk, key[-4:]):
        assert page_of(api_key) not in found(client, words)


def test_without_the_permission():
    api_key, _ = factories.make_key()
    _, client = staff(api_key.team, "apikeys.view_limit")
    assert page_of(api_key) not in found(client, api_key.name)


def test_ten_at_most_in_the_same_number_of_queries():
    team = factories.make_team()
    user, client = staff(team)
    name = factories.unique("many")
    counts = []
    for number in (2, 12):
        for _ in range(number):
            factories.make_key(team, owner=user, name=f"{name}-{number}")
        client.get("/admin/")
        with CaptureQueriesContext(connection) as queries:
            page = found(client, f"{name}-{number}")
        counts.append(len(queries))
    assert page.count('data-title="many-') == 10
    assert counts[0] == counts[1]
