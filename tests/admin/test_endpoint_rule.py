"""Rules that close an endpoint to kinds of keys, for the whole site."""

import pytest

from apikeys.access.rules import EndpointRule
from tests.support import factories
from tests.support.pages import browser, staff, text, url


@pytest.fixture
def rules():
    """Delete the rules afterwards, since they apply to the keys of every test."""
    yield EndpointRule.objects
    EndpointRule.objects.all().delete()


@pytest.fixture
def client():
    return browser(factories.make_user(is_superuser=True))


def test_it_works(client, rules):
    page = text(client.get(url(EndpointRule, "add")))
    assert "chat.completions: app key, global key that may name an app" in page
    assert "base_url" not in page
    form = {"endpoint": "chat.completions", "denied_kinds": ["global_naming_app"]}
    assert client.post(url(EndpointRule, "add"), form).status_code == 302
    rule = rules.get()
    assert (rule.endpoint, rule.denied_kinds) == ("chat.completions", ["global_naming_app"])
    page = text(client.get(url(EndpointRule, "change", rule.pk)))
    assert 'value="app"' in page
    assert 'value="global"' not in page
    assert client.post(url(EndpointRule, "change", rule.pk), {"endpoint": "app.list"}).status_code == 302
    rule.refresh_from_db()
    assert (rule.endpoint, rule.denied_kinds) == ("chat.completions", [])


@pytest.mark.parametrize(
    ("form", "complaint"),
    [
        ({"endpoint": "no.such", "denied_kinds": []}, "no.such is not one of the available choices"),
        ({"endpoint": "app.list", "denied_kinds": ["robot"]}, "robot is not one of the available choices"),
        ({"endpoint": "app.list", "denied_kinds": ["global", "app"]}, "This endpoint never accepts: app key."),
        ({"denied_kinds": []}, "This field is required."),
    ],
)
def test_wrong_field(client, rules, form, complaint):
    assert complaint in text(client.post(url(EndpointRule, "add"), form))
    assert not rules.exists()


def test_kind_that_the_endpoint_never_takes_cannot_be_added_later(client, rules):
    rule = rules.create(endpoint="app.list")
    response = client.post(url(EndpointRule, "change", rule.pk), {"denied_kinds": ["app"]})
    assert "app is not one of the available choices" in text(response)


def test_rule_for_an_endpoint_that_is_gone(client, rules):
    rule = rules.create(endpoint="gone.endpoint", denied_kinds=["app"])
    assert client.get(url(EndpointRule, "change", rule.pk)).status_code == 200
    assert client.post(url(EndpointRule, "delete", rule.pk), {"post": "yes"}).status_code == 302
    assert not rules.exists()


def test_second_rule_for_one_endpoint(client, rules):
    rules.create(endpoint="app.list")
    response = client.post(url(EndpointRule, "add"), {"endpoint": "app.list", "denied_kinds": ["global"]})
    assert "already exists" in text(response)


def test_staff_with_every_permission(rules):
    rights = [f"apikeys.{right}_endpointrule" for right in ("view", "add", "change", "delete")]
    _, client = staff(factories.make_team(), *rights)
    rule = rules.create(endpoint="gone.endpoint")
    for page in ("changelist", "add"):
        assert client.get(url(EndpointRule, page)).status_code == 403
        assert client.post(url(EndpointRule, page), {"endpoint": "app.list"}).status_code == 403
    for page in ("change", "delete", "history"):
        assert client.get(url(EndpointRule, page, rule.pk)).status_code == 403
    assert "Endpoint rules" not in text(client.get("/admin/"))
