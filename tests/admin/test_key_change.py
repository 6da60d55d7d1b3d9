"""A key's page, where its policy is edited."""

import re

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apikeys.audit.models import AuditEntry
from apikeys.keys.models import ApiKey
from tests.admin.test_fresh_password import enter, grow_stale
from tests.support import factories
from tests.support.pages import KEY, LIST, FilledForm, browser, key_form, page_of, staff, text


def test_it_works():
    api_key, _ = factories.make_key()
    _, client = staff(api_key.team)
    form = key_form(api_key, name="renamed", allowed_networks="192.0.2.0/24", can_name_app="on")
    assert client.post(page_of(api_key), form)["Location"] == LIST
    api_key.refresh_from_db()
    assert (api_key.name, api_key.allowed_networks, api_key.can_name_app) == ("renamed", ["192.0.2.0/24"], True)


def test_unchanged_form_changes_nothing():
    endpoints, models = ["chat.completions", "key.self"], ["one", "two"]
    api_key, _ = factories.make_key(
        allowed_endpoints=endpoints, allowed_models=models, allowed_networks=["10.0.0.0/8", "::1/128"]
    )
    _, client = staff(api_key.team)
    before = ApiKey.objects.values().get(pk=api_key.pk)
    assert client.post(page_of(api_key), key_form(api_key)).status_code == 302
    assert ApiKey.objects.values().get(pk=api_key.pk) == before


def test_as_a_browser_sends_it():
    """Whatever hidden fields the page has, an untouched form changes nothing, and emptied fields are cleared."""
    api_key, _ = factories.make_key(
        note="kept",
        expires_at="2099-01-02T03:04:05Z",
        allowed_networks=["192.0.2.0/24", "::1/128"],
        allowed_endpoints=["chat.completions"],
        allowed_models=["one", "two"],
    )
    _, client = staff(api_key.team)
    form = FilledForm(client.get(page_of(api_key)).content.decode(), "apikey_form").fields
    before = ApiKey.objects.values().get(pk=api_key.pk)
    assert form["allowed_networks"] == ["192.0.2.0/24\r\n::1/128"]
    assert client.post(page_of(api_key), form).status_code == 302
    assert ApiKey.objects.values().get(pk=api_key.pk) == before
    assert [entry.action for entry in AuditEntry.objects.get_for_object(api_key)] == [AuditEntry.Action.CREATE]
    assert client.post(page_of(api_key), form | {"allowed_networks": [""]}).status_code == 302
    assert ApiKey.objects.values().get(pk=api_key.pk) == before | {"allowed_networks": []}


def test_networks_are_cleared():
    api_key, _ = factories.make_key(allowed_networks=["192.0.2.0/24"], allowed_models=["one"])
    _, client = staff(api_key.team)
    assert client.post(page_of(api_key), key_form(api_key, allowed_networks="")).status_code == 302
    api_key.refresh_from_db()
    assert (api_key.allowed_networks, api_key.allowed_models) == ([], ["one"])


@pytest.mark.parametrize(
    "meanwhile",
    [
        {"allowed_networks": ["192.0.2.0/25"]},
        {"allowed_endpoints": ["key.self"]},
        {"expires_at": "2030-01-01T00:00Z"},
        {"name": "other"},
    ],
)
def test_page_that_was_opened_before_the_key_changed(meanwhile):
    api_key, _ = factories.make_key(allowed_networks=["192.0.2.0/24"])
    _, client = staff(api_key.team)
    form = key_form(api_key, note="late")
    ApiKey.objects.filter(pk=api_key.pk).update(**meanwhile)
    before = ApiKey.objects.values().get(pk=api_key.pk)
    page = text(client.post(page_of(api_key), form))
    assert "This key has changed since the page was opened, so nothing was saved." in page
    assert ApiKey.objects.values().get(pk=api_key.pk) == before


@pytest.mark.parametrize("etag", ["", "made up", "of another key"])
def test_seal_that_is_not_of_this_page(etag):
    api_key, _ = factories.make_key()
    _, client = staff(api_key.team)
    if etag == "of another key":
        etag = key_form(factories.make_key(name=api_key.name)[0])["etag"]
    assert "nothing was saved" in text(client.post(page_of(api_key), key_form(api_key, name="x", etag=etag)))


def test_disabled_meanwhile():
    """A change of columns that the page does not edit is no conflict, and stays."""
    api_key, _ = factories.make_key()
    _, client = staff(api_key.team)
    form = key_form(api_key, note="late")
    api_key.disable()
    assert client.post(page_of(api_key), form).status_code == 302
    api_key.refresh_from_db()
    assert (api_key.note, bool(api_key.disabled_at)) == ("late", True)


def test_team_and_app_stay():
    app = factories.make_app(factories.make_team())
    api_key, _ = factories.make_key(app=app)
    client = browser(factories.make_user(is_superuser=True))
    form = key_form(api_key, name="renamed", team=factories.make_team().pk, app=factories.make_app(app.team).pk)
    assert client.post(page_of(api_key), form).status_code == 302
    api_key.refresh_from_db()
    assert (api_key.name, api_key.team, api_key.app) == ("renamed", app.team, app)


def test_owner_must_be_a_member():
    api_key, _ = factories.make_key()
    client = browser(factories.make_user(is_superuser=True))
    response = client.post(page_of(api_key), key_form(api_key, owner=factories.make_user().pk))
    assert "The owner must be a member of the team." in text(response)


def test_endpoint_that_is_gone_is_kept():
    """If the form dropped it silently, the list would become empty, which allows everything."""
    api_key, _ = factories.make_key(allowed_endpoints=["gone.endpoint"])
    _, client = staff(api_key.team)
    assert "gone.endpoint (no longer exists)" in text(client.get(page_of(api_key)))
    assert client.post(page_of(api_key), key_form(api_key, name="renamed")).status_code == 302
    api_key.refresh_from_db()
    assert (api_key.name, api_key.allowed_endpoints) == ("renamed", ["gone.endpoint"])


def test_edit_writes_only_what_was_edited():
    """Written as a whole, the row would undo a disabling between its reading and its writing."""
    api_key, _ = factories.make_key()
    _, client = staff(api_key.team)
    with CaptureQueriesContext(connection) as queries:
        assert client.post(page_of(api_key), key_form(api_key, name="renamed")).status_code == 302
    updates = [query["sql"] for query in queries if query["sql"].startswith('UPDATE "apikeys_apikey"')]
    assert [update.partition(" WHERE ")[0] for update in updates] == [
        """UPDATE "apikeys_apikey" SET "name" = 'renamed'"""
    ]


def test_secrets_are_listed_without_digest_or_plaintext():
    api_key, key = factories.make_key()
    new = api_key.rotate()
    _, client = staff(api_key.team)
    page = text(client.get(page_of(api_key)))
    assert f"******{key[-4:]}" in page
    assert f"******{new[-4:]}" in page
    for pages in (page, text(client.get(LIST)), text(client.get(page_of(api_key, "history")))):
        assert not KEY.search(pages)
        assert "digest" not in pages
        assert all(bytes(secret.digest).hex() not in pages for secret in api_key.secrets.all())


def test_secrets_cannot_be_added_changed_or_deleted():
    api_key, _ = factories.make_key()
    secret = api_key.secrets.get()
    client = browser(factories.make_user(is_superuser=True))
    forged = {
        "secrets-TOTAL_FORMS": 2,
        "secrets-INITIAL_FORMS": 1,
        "secrets-0-id": secret.pk,
        "secrets-0-key": api_key.pk,
        "secrets-0-last_four": "evil",
        "secrets-0-DELETE": "on",
        "secrets-1-id": "",
        "secrets-1-key": api_key.pk,
        "secrets-1-last_four": "evil",
    }
    assert client.post(page_of(api_key), key_form(api_key, **forged)).status_code == 302
    assert [row.last_four for row in api_key.secrets.all()] == [secret.last_four]


def test_revoked_key_is_read_only():
    api_key, _ = factories.make_key()
    api_key.revoke(by="ann", reason="leaked in a log")
    client = browser(factories.make_user(is_superuser=True))
    page = text(client.get(page_of(api_key)))
    assert "It was revoked." in page
    assert "leaked in a log" in page
    assert 'name="name"' not in page
    assert client.post(page_of(api_key), key_form(api_key, name="renamed")).status_code == 403


def buttons(page):
    return set(re.findall(r"/(rotate|disable|enable|narrow|revoke|delete)/", page))


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("usable", {"rotate", "disable", "narrow", "revoke"}),
        ("disabled", {"rotate", "enable", "narrow", "revoke"}),
        ("revoked", set()),
    ],
)
def test_buttons_by_state(state, expected):
    api_key, _ = factories.make_key()
    if state == "disabled":
        api_key.disable()
    elif state == "revoked":
        api_key.revoke(by="ann", reason="leaked")
    _, client = staff(api_key.team, "apikeys.view_apikey", "apikeys.change_apikey", "apikeys.delete_apikey")
    assert buttons(text(client.get(page_of(api_key)))) == expected


def test_without_the_permission():
    api_key, _ = factories.make_key()
    _, client = staff(api_key.team, "apikeys.view_apikey")
    page = text(client.get(page_of(api_key)))
    assert api_key.name in page
    assert buttons(page) == set()
    assert client.post(page_of(api_key), key_form(api_key, name="renamed")).status_code == 403


def test_no_key_is_deleted():
    api_key, _ = factories.make_key()
    client = browser(factories.make_user(is_superuser=True))
    assert client.get(page_of(api_key, "delete")).status_code == 403
    assert client.post(page_of(api_key, "delete"), {"post": "yes"}).status_code == 403
    client.post(LIST, {"action": "delete_selected", "_selected_action": [api_key.pk], "post": "yes"})
    assert ApiKey.objects.filter(pk=api_key.pk).exists()
    assert "delete_selected" not in text(client.get(LIST))


POLICY = {
    "expires_at_0": "2100-01-01",
    "expires_at_1": "00:00",
    "allowed_networks": "192.0.2.0/24",
    "allowed_endpoints": ["key.self", "app.list"],
    "allowed_models": "one\r\ntwo",
}


@pytest.mark.parametrize(
    ("changes", "is_wider"),
    [
        ({}, False),
        ({"note": "new"}, False),
        ({"expires_at_0": "2099-01-01"}, False),
        ({"allowed_networks": "192.0.2.7/32", "allowed_endpoints": ["key.self"], "allowed_models": "one"}, False),
        ({"expires_at_0": "2100-01-02"}, True),
        ({"expires_at_0": "", "expires_at_1": ""}, True),
        ({"can_name_app": "on"}, True),
        ({"allowed_networks": "192.0.2.0/24\r\n198.51.100.7/32"}, True),
        ({"allowed_networks": "192.0.0.0/16"}, True),
        ({"allowed_networks": ""}, True),
        ({"allowed_endpoints": ["key.self", "app.list", "models.list"]}, True),
        ({"allowed_endpoints": []}, True),
        ({"allowed_models": "one\r\nthree"}, True),
        ({"allowed_models": ""}, True),
    ],
)
def test_stale_password_narrows_and_does_not_widen(changes, is_wider):
    api_key, _ = factories.make_key(
        expires_at="2100-01-01T00:00Z",
        allowed_networks=["192.0.2.0/24"],
        allowed_endpoints=["key.self", "app.list"],
        allowed_models=["one", "two"],
    )
    api_key.refresh_from_db()
    _, client = staff(api_key.team)
    grow_stale(client)
    form = key_form(api_key, **{**POLICY, **changes})
    before = ApiKey.objects.values().get(pk=api_key.pk)
    response = client.post(page_of(api_key), form)
    if not is_wider:
        assert response.status_code == 302
        return
    assert "more than 15 minutes ago" in text(response)
    assert ApiKey.objects.values().get(pk=api_key.pk) == before
    enter(client)
    assert client.post(page_of(api_key), form).status_code == 302
    assert ApiKey.objects.values().get(pk=api_key.pk) != before


def test_stale_password_and_a_wrong_network():
    api_key, _ = factories.make_key(allowed_networks=["192.0.2.0/24"])
    _, client = staff(api_key.team)
    grow_stale(client)
    assert "is not a network" in text(client.post(page_of(api_key), key_form(api_key, allowed_networks="x")))
