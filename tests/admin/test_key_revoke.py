"""Revoking a key, for good."""

from django.contrib.admin.models import LogEntry

from tests import factories
from tests.admin.pages import page_of, staff, text


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
    assert "The key was revoked already, by ann: leaked" in text(response)
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
