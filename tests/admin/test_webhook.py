"""A webhook's page: its secret is shown once, in the response that made it."""

import html
import re

import pytest
from django.contrib.admin.models import LogEntry
from django.utils import timezone

from apikeys import encryption
from apikeys.alerts.webhooks import Webhook
from tests.support import factories
from tests.support.loopback import loopback_allowed
from tests.support.pages import hidden, staff, text, url

RIGHTS = tuple(f"apikeys.{right}_webhook" for right in ("view", "add", "change", "delete"))
ADD = url(Webhook, "add")
LIST = url(Webhook, "changelist")
SECRET = re.compile(r"whsec_[0-9A-Za-z+/]{43}=")
ADDRESS = "http://127.0.0.1:9/hooks/x?token=1"


@pytest.fixture(autouse=True)
def loopback():
    """Allow webhooks to call loopback, which is a refused private address otherwise."""
    with loopback_allowed():
        yield


@pytest.fixture
def team():
    return factories.make_team()


@pytest.fixture
def client(team):
    return staff(team, *RIGHTS)[1]


def page_of(webhook, page="change"):
    return url(Webhook, page, webhook.pk)


def make_webhook(team):
    webhook = Webhook(team=team, url=ADDRESS)
    webhook.make_secret()
    webhook.save()
    return webhook


def form_of(webhook, **fields):
    return {"url": webhook.url, "disabled_at_0": "", "disabled_at_1": "", **fields}


def shown(response):
    """Return the one secret on a page; check that no cache may store it."""
    (secret,) = SECRET.findall(html.unescape(response.content.decode()))
    assert "no-store" in response["Cache-Control"]
    assert response["Referrer-Policy"] == "no-referrer"
    return secret


def secret_of(webhook):
    webhook.refresh_from_db()
    address, _, secret = encryption.decrypt(bytes(webhook.encrypted_secret)).partition("\n")
    assert address == webhook.url
    return f"whsec_{secret}"


def test_it_works(team, client):
    response = client.post(ADD, {"team": team.pk, "url": ADDRESS})
    assert response.status_code == 200
    webhook = Webhook.objects.get(team=team)
    secret = shown(response)
    assert secret == secret_of(webhook)
    for page in (page_of(webhook), LIST, url(Webhook, "history", webhook.pk), page_of(webhook, "new_secret")):
        assert secret[6:] not in text(client.get(page))
    assert ADDRESS not in str(LogEntry.objects.get(object_id=webhook.pk, content_type__model="webhook").object_repr)


def test_one_for_a_team(team, client):
    webhook = make_webhook(team)
    before = secret_of(webhook)
    response = client.post(ADD, {"team": team.pk, "url": ADDRESS})
    assert "already exists" in text(response)
    assert not SECRET.search(text(response))
    assert secret_of(webhook) == before


def test_new_secret(team, client):
    webhook = make_webhook(team)
    before = secret_of(webhook)
    assert page_of(webhook, "new_secret") in text(client.get(page_of(webhook)))
    replacing = hidden(client.get(page_of(webhook, "new_secret")).content.decode(), "replacing")
    response = client.post(page_of(webhook, "new_secret"), {"replacing": replacing})
    assert shown(response) == secret_of(webhook) != before
    entry = LogEntry.objects.get(object_id=webhook.pk, content_type__model="webhook")
    assert entry.change_message == "Generated a new secret. The old one expired at once."


def test_reload_makes_no_second_secret(team, client):
    webhook = make_webhook(team)
    replacing = hidden(client.get(page_of(webhook, "new_secret")).content.decode(), "replacing")
    secret = shown(client.post(page_of(webhook, "new_secret"), {"replacing": replacing}))
    response = client.post(page_of(webhook, "new_secret"), {"replacing": replacing}, follow=True)
    assert response.redirect_chain == [(page_of(webhook), 302)]
    assert "The secret was replaced in the meantime" in text(response)
    assert secret_of(webhook) == secret


@pytest.mark.parametrize("replacing", ["", "yesterday"])
def test_form_without_what_it_replaces(team, client, replacing):
    webhook = make_webhook(team)
    before = secret_of(webhook)
    assert "Reload this page" in text(client.post(page_of(webhook, "new_secret"), {"replacing": replacing}))
    assert secret_of(webhook) == before


def test_new_url_makes_a_new_secret(team, client):
    webhook = make_webhook(team)
    before = secret_of(webhook)
    response = client.post(page_of(webhook), form_of(webhook, url="http://127.0.0.1:9/other"))
    assert shown(response) == secret_of(webhook) != before
    assert webhook.url == "http://127.0.0.1:9/other"


def test_disabling_keeps_the_secret(team, client):
    webhook = make_webhook(team)
    before = secret_of(webhook)
    now = timezone.now()
    form = form_of(webhook, disabled_at_0=f"{now:%Y-%m-%d}", disabled_at_1=f"{now:%H:%M:%S}")
    assert client.post(page_of(webhook), form).status_code == 302
    assert secret_of(webhook) == before
    assert webhook.disabled_at


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("ftp://127.0.0.1/x", "Enter an http or https URL"),
        ("http://me:pw@127.0.0.1/x", "Enter an http or https URL"),
        ("http://127.0.0.1/x#y", "Enter an http or https URL"),
        ("http://127.0.0.1/x y", "Enter an http or https URL"),
        ("http://127.0.0.1:99999/x", "Enter an http or https URL"),
        ("http:///x", "Enter an http or https URL"),
        ("http://[::1", "Enter an http or https URL"),
        ("x", "Enter an http or https URL"),
        ("https://nowhere.invalid/x", "Its host name cannot be resolved."),
        ("http://10.0.0.1/x", "Its address is private."),
        ("http://169.254.169.254/latest", "Its address is private."),
        ("http://[::ffff:10.0.0.1]/x", "Its address is private."),
        ("http://167772161/x", "Its address is private."),
    ],
)
def test_wrong_url(team, client, address, complaint):
    response = client.post(ADD, {"team": team.pk, "url": address})
    assert complaint in text(response)
    assert not Webhook.objects.filter(team=team).exists()


def test_url_that_was_moved_behind_the_admin_has_no_secret(team):
    """A secret that was made for one receiver must sign nothing for another."""
    webhook = make_webhook(team)
    webhook.url = "http://127.0.0.1:9/other"
    with pytest.raises(Exception, match="Its secret belongs to another URL"):
        webhook.signature("id", 1, b"body")


def test_stored_secret_cannot_be_guessed_by_a_filter(client):
    assert client.get(LIST, {"encrypted_secret__gt": "a"}).status_code == 400


def test_without_the_permission(team):
    webhook = make_webhook(team)
    before = secret_of(webhook)
    _, client = staff(team, "apikeys.view_webhook")
    page = text(client.get(page_of(webhook)))
    assert ADDRESS in page
    assert page_of(webhook, "new_secret") not in page
    form = {"replacing": webhook.secret_made_at.isoformat()}
    assert client.post(page_of(webhook, "new_secret"), form).status_code == 403
    assert client.get(page_of(webhook, "new_secret")).status_code == 403
    assert secret_of(webhook) == before
