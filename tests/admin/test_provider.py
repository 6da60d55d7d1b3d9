"""A provider's page: its secret can be entered, but is never shown."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apikeys import encryption
from chat.models import Provider
from tests.support import factories
from tests.support.pages import staff, text, url

RIGHTS = ("chat.view_provider", "chat.add_provider", "chat.change_provider", "chat.delete_provider")
SECRET = "sk-of-the-provider"
LIMITS = ("connect_seconds", "first_byte_seconds", "between_chunks_seconds", "total_seconds")


def page_of(provider):
    return url(Provider, "change", provider.pk)


def provider_form(provider, **fields):
    return {name: getattr(provider, name) for name in ("name", "base_url", "query", "auth_header", *LIMITS)} | fields


def secret_of(provider):
    """Return the stored secret; check that it is sealed for the provider's present URL."""
    provider.refresh_from_db()
    if provider.encrypted_secret is None:
        return None
    base_url, _, secret = encryption.decrypt(provider.encrypted_secret).partition("\n")
    assert base_url == provider.base_url
    return secret


@pytest.fixture
def provider():
    provider = factories.make_provider(factories.make_team())
    provider.set_secret(SECRET)
    provider.save()
    return provider


@pytest.fixture
def client(provider):
    return staff(provider.team, *RIGHTS)[1]


def test_it_works(provider, client):
    form = {
        "team": provider.team_id,
        "name": "new",
        "base_url": "https://api.example.com/v1/",
        "secret": "sk-1",
        "auth_header": "Authorization",
        **dict.fromkeys(LIMITS, 10),
    }
    assert client.post(url(Provider, "add"), form).status_code == 302
    made = Provider.objects.get(team=provider.team, name="new")
    assert made.base_url == "https://api.example.com/v1"
    assert secret_of(made) == "sk-1"


def test_secret_is_never_shown(provider, client):
    stored = bytes(provider.encrypted_secret)
    pages = [page_of(provider), url(Provider, "changelist"), url(Provider, "history", provider.pk)]
    answers = [client.get(page) for page in pages]
    # A form that comes back with an error must not show a typed secret either.
    answers.append(client.post(page_of(provider), provider_form(provider, name="", secret="sk-just-typed")))
    assert "This field is required." in text(answers[-1])
    for answer in answers:
        assert SECRET not in text(answer)
        assert "sk-just-typed" not in text(answer)
        assert stored not in answer.content
        assert "encrypted" not in text(answer).replace("stored encrypted", "")


def test_empty_field_leaves_it(provider, client):
    assert client.post(page_of(provider), provider_form(provider, name="renamed", secret="")).status_code == 302
    assert secret_of(provider) == SECRET
    assert provider.name == "renamed"


def test_edit_writes_only_what_was_edited(provider, client):
    """Written as a whole, the row would restore a secret that was replaced between its reading and its writing."""
    with CaptureQueriesContext(connection) as queries:
        client.post(page_of(provider), provider_form(provider, name="renamed"))
    updates = [query["sql"] for query in queries if query["sql"].startswith('UPDATE "chat_provider"')]
    assert [update.partition(" WHERE ")[0] for update in updates] == [
        """UPDATE "chat_provider" SET "name" = 'renamed'"""
    ]


def test_replace_and_clear(provider, client):
    client.post(page_of(provider), provider_form(provider, secret="sk-2"))
    assert secret_of(provider) == "sk-2"
    client.post(page_of(provider), provider_form(provider, clear_secret="on"))
    assert secret_of(provider) is None


def test_replace_and_clear_at_once(provider, client):
    response = client.post(page_of(provider), provider_form(provider, secret="sk-2", clear_secret="on"))
    assert "not both" in text(response)
    assert secret_of(provider) == SECRET


def test_new_url_clears_it(provider, client):
    form = provider_form(provider, base_url="https://other.example/v1")
    response = client.post(page_of(provider), form, follow=True)
    assert "The base URL changed, so the secret was cleared." in text(response)
    assert secret_of(provider) is None
    assert provider.base_url == "https://other.example/v1"


def test_new_url_with_a_new_secret(provider, client):
    client.post(page_of(provider), provider_form(provider, base_url="https://other.example/v1", secret="sk-2"))
    assert secret_of(provider) == "sk-2"


@pytest.mark.parametrize("secret", ["two words", "line\nline", "schlüssel", "x" * 2001])
def test_secret_that_fits_no_header(provider, client, secret):
    response = client.post(page_of(provider), provider_form(provider, secret=secret))
    assert response.status_code == 200
    assert secret not in text(response)
    assert secret_of(provider) == SECRET


@pytest.mark.parametrize("base_url", ["ftp://x.example", "https://me:pw@x.example/v1", "https://x.example/?k=1", "x"])
def test_wrong_url(provider, client, base_url):
    response = client.post(page_of(provider), provider_form(provider, base_url=base_url))
    assert "Enter an http or https URL" in text(response)


def test_name_is_taken(provider, client):
    other = factories.make_provider(provider.team)
    response = client.post(page_of(provider), provider_form(provider, name=other.name))
    assert "already exists" in text(response)


def test_team_stays(provider, client):
    team = factories.make_team()
    assert client.post(page_of(provider), provider_form(provider, team=team.pk)).status_code == 302
    provider.refresh_from_db()
    assert provider.team != team


def test_stored_secret_cannot_be_guessed_by_a_filter(provider, client):
    assert client.get(url(Provider, "changelist"), {"encrypted_secret__gt": "a"}).status_code == 400


def test_provider_with_routes_is_protected(provider, client):
    app = factories.make_app(provider.team, provider)
    page = text(client.get(url(Provider, "delete", provider.pk)))
    assert "protected" in page
    assert str(app.model.routes.get()) in page
    assert client.post(url(Provider, "delete", provider.pk), {"post": "yes"}).status_code in (200, 403)
    assert Provider.objects.filter(pk=provider.pk).exists()


def test_without_the_permission(provider):
    _, client = staff(provider.team, "chat.view_provider")
    page = text(client.get(page_of(provider)))
    assert provider.base_url in page
    assert 'name="secret"' not in page
    assert client.post(page_of(provider), provider_form(provider, secret="sk-2")).status_code == 403
    assert secret_of(provider) == SECRET
