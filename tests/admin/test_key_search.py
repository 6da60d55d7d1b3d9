"""Keys in the admin's global search."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from apikeys.accounting.limits import Limit
from apikeys.admin.long_lists import MAXIMUM_WORDS
from apikeys.audit.models import AuditEntry
from apikeys.keys.models import ApiKey
from tests.support import factories
from tests.support.pages import browser, page_of, staff, text, url


@pytest.fixture(autouse=True)
def command(settings):
    settings.UNFOLD = {**settings.UNFOLD, "COMMAND": {"search_callback": "apikeys.admin.keys.search.search"}}


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


@pytest.mark.parametrize("page", ["abc", "999", "0"])
def test_page_that_there_is_not(page):
    api_key, _ = factories.make_key()
    _, client = staff(api_key.team)
    assert client.get(reverse("admin:search"), {"s": api_key.name, "extended": "1", "page": page}).status_code == 404


@pytest.mark.parametrize("model", [ApiKey, AuditEntry, Limit])
def test_only_the_first_of_many_words_are_searched_for(model):
    """Each word is a condition of the query, which would take minutes with all of them."""
    client = browser(factories.make_user(is_superuser=True))
    longest = []
    for number in (MAXIMUM_WORDS, 1_500):
        with CaptureQueriesContext(connection) as queries:
            assert client.get(url(model, "changelist"), {"q": "word " * number}).status_code == 200
        longest.append(max(query["sql"].count("word") for query in queries))
    assert longest[0] == longest[1] > 0


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
