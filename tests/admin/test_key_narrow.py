"""Narrowing a key to what it uses: it is proposed first, and never widens the key."""

import pytest
from django.contrib.admin.models import LogEntry

from apikeys.lifecycle.least_privilege import networks_of, propose
from tests.admin.test_key_page import make_record
from tests.support import factories
from tests.support.pages import KEY_RIGHTS, page_of, staff, text


def test_it_works():
    api_key, _ = factories.make_key()
    for address in ("192.0.2.6", "192.0.2.7", "2001:db8::1"):
        make_record(api_key, endpoint="embeddings.create", client_address=address)
    _, client = staff(api_key.team)
    page = text(client.get(page_of(api_key, "narrow")))
    assert "192.0.2.6/31, 2001:db8::1/128" in page
    assert "app.list (not used)" in page
    assert "key.self (its use is not recorded)" in page
    api_key.refresh_from_db()
    assert (api_key.allowed_endpoints, api_key.allowed_networks) == ([], [])
    form = {"endpoints": ["embeddings.create", "key.self"], "networks": "192.0.2.6/31\r\n2001:db8::1/128"}
    assert client.post(page_of(api_key, "narrow"), form).status_code == 302
    api_key.refresh_from_db()
    assert api_key.allowed_endpoints == ["embeddings.create", "key.self"]
    assert api_key.allowed_networks == ["192.0.2.6/31", "2001:db8::1/128"]
    message = LogEntry.objects.get(object_id=api_key.pk).change_message
    assert message == "Narrowed to embeddings.create, key.self, from 192.0.2.6/31, 2001:db8::1/128."


def test_many_addresses_become_networks_then_none():
    assert networks_of(f"192.0.2.{number}" for number in range(0, 60, 2)) == ["192.0.2.0/24"]
    assert networks_of(f"10.{number}.0.1" for number in range(0, 60, 2)) == []


def test_proposal_stays_within_what_is_allowed():
    api_key, _ = factories.make_key(allowed_endpoints=["embeddings.create"], allowed_networks=["192.0.2.0/25"])
    make_record(api_key, endpoint="app.list", client_address="198.51.100.1")
    assert (propose(api_key).endpoints, propose(api_key).networks) == ([], [])


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"endpoints": []}, "Choose at least one."),
        ({"endpoints": ["app.list"]}, "app.list is not one of the available choices"),
        ({"networks": "192.0.0.0/16"}, "That would widen its access."),
        ({"networks": "2001:db8::/32"}, "That would widen its access."),
        ({"networks": ""}, "That would widen its access."),
        ({"networks": "home"}, "is not a network in CIDR notation"),
    ],
)
def test_refused(fields, complaint):
    api_key, _ = factories.make_key(allowed_endpoints=["key.self"], allowed_networks=["192.0.2.0/24"])
    _, client = staff(api_key.team)
    form = {"endpoints": ["key.self"], "networks": "192.0.2.0/25"} | fields
    assert complaint in text(client.post(page_of(api_key, "narrow"), form))
    api_key.refresh_from_db()
    assert api_key.allowed_networks == ["192.0.2.0/24"]


def test_revoked_key():
    api_key, _ = factories.make_key()
    api_key.revoke(by="ann", reason="leaked")
    _, client = staff(api_key.team)
    response = client.post(page_of(api_key, "narrow"), {"endpoints": ["key.self"]}, follow=True)
    assert "A revoked key cannot be changed." in text(response)


def test_without_the_permission():
    api_key, _ = factories.make_key()
    _, client = staff(api_key.team, *[right for right in KEY_RIGHTS if "change" not in right])
    assert client.get(page_of(api_key, "narrow")).status_code == 403
    assert client.post(page_of(api_key, "narrow"), {"endpoints": ["key.self"]}).status_code == 403
