"""Revoking a key, for good."""

import pytest
from django.contrib.admin.models import LogEntry

from apikeys.accounting.ledger import Outcome
from tests.api.test_completions_leaving import open_stream, recorded
from tests.commands.test_apikey_revoke import rest_of
from tests.support import factories
from tests.support.conversations import events_of, make_app
from tests.support.pages import page_of, staff, text


def revocation(api_key, reason="leaked"):
    return {"reason": reason, "typed_name": api_key.name}


def test_it_works():
    api_key, _ = factories.make_key()
    user, client = staff(api_key.team)
    assert "cannot be undone" in text(client.get(page_of(api_key, "revoke")))
    response = client.post(page_of(api_key, "revoke"), revocation(api_key), follow=True)
    assert "It was revoked." in text(response)
    api_key.refresh_from_db()
    assert api_key.revoked_at
    assert (api_key.revoked_by, api_key.revoked_reason) == (user.username, "leaked")
    assert LogEntry.objects.get(object_id=api_key.pk).change_message == "Revoked. Reason: leaked"


@pytest.mark.parametrize(("page", "reason"), [("revoke", "revoked_api_key"), ("disable", "disabled_api_key")])
def test_what_is_being_answered_is_cut_when_asked(server, provider, page, reason):
    keys = [factories.make_key(app=make_app(provider, "slow")) for _ in range(2)]
    streams = [open_stream(server, key, factories.unique("cut")) for _, key in keys]
    for (api_key, _), cut in zip(keys, ({}, {"terminate_streams": "on"}), strict=True):
        _, client = staff(api_key.team)
        assert client.post(page_of(api_key, page), revocation(api_key) | cut).status_code == 302
    (going, _), (cut_off, request_id) = streams
    name, body = events_of(rest_of(cut_off).replace("\r\n", "\n"))[-1]
    assert (name, body["error"]["code"]) == ("error", reason)
    assert recorded(request_id).outcome == Outcome.TERMINATED
    with going:
        assert b"data: " in going.recv(65536)


def test_reason_is_asked_for():
    api_key, _ = factories.make_key()
    _, client = staff(api_key.team)
    for reason in ("", " \n "):
        assert "This field is required." in text(client.post(page_of(api_key, "revoke"), revocation(api_key, reason)))
    api_key.refresh_from_db()
    assert api_key.revoked_at is None


def test_name_is_typed():
    api_key, _ = factories.make_key()
    _, client = staff(api_key.team)
    for typed in ("", api_key.name.upper(), api_key.name[:-1]):
        response = client.post(page_of(api_key, "revoke"), {"reason": "leaked", "typed_name": typed})
        assert ("This is not the name of the key." if typed else "This field is required.") in text(response)
    api_key.refresh_from_db()
    assert api_key.revoked_at is None


def test_revoked_already():
    api_key, _ = factories.make_key()
    api_key.revoke(by="ann", reason="leaked")
    _, client = staff(api_key.team)
    response = client.post(page_of(api_key, "revoke"), revocation(api_key, "again"), follow=True)
    assert "The key was already revoked, by ann: leaked" in text(response)
    assert not LogEntry.objects.filter(object_id=api_key.pk).exists()
    api_key.refresh_from_db()
    assert (api_key.revoked_by, api_key.revoked_reason) == ("ann", "leaked")


def test_what_people_write_is_text():
    api_key, _ = factories.make_key(name="<b>bold</b>")
    _, client = staff(api_key.team)
    assert b"<b>bold" not in client.get(page_of(api_key, "revoke")).content
    client.post(page_of(api_key, "revoke"), revocation(api_key, "<script>alert(1)</script>"))
    for page in ("change", "history"):
        content = client.get(page_of(api_key, page)).content
        assert b"<script>alert" not in content
        assert b"<b>bold" not in content


def test_without_the_permission():
    api_key, _ = factories.make_key()
    _, client = staff(api_key.team, "apikeys.view_apikey", "apikeys.add_apikey")
    assert client.get(page_of(api_key, "revoke")).status_code == 403
    assert client.post(page_of(api_key, "revoke"), revocation(api_key)).status_code == 403
    api_key.refresh_from_db()
    assert api_key.revoked_at is None
