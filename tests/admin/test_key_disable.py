"""Disabling a key and enabling it again."""

from django.contrib.admin.models import LogEntry

from tests.support import factories
from tests.support.pages import page_of, staff, text


def test_it_works():
    api_key, _ = factories.make_key()
    user, client = staff(api_key.team)
    response = client.post(page_of(api_key, "disable"), {"reason": "under suspicion"}, follow=True)
    assert response.redirect_chain == [(page_of(api_key), 302)]
    assert "It is disabled." in text(response)
    entry = LogEntry.objects.get(object_id=api_key.pk)
    assert (entry.user, entry.change_message) == (user, "Disabled. Reason: under suspicion")
    assert "under suspicion" in text(client.get(page_of(api_key, "history")))
    api_key.refresh_from_db()
    assert api_key.disabled_at


def test_enable():
    api_key, _ = factories.make_key()
    api_key.disable()
    _, client = staff(api_key.team)
    assert "The key will be accepted again." in text(client.get(page_of(api_key, "enable")))
    assert "usable" in text(client.post(page_of(api_key, "enable"), follow=True))
    api_key.refresh_from_db()
    assert api_key.disabled_at is None
    assert LogEntry.objects.get(object_id=api_key.pk).change_message == "Enabled."


def test_looking_changes_nothing():
    api_key, _ = factories.make_key()
    _, client = staff(api_key.team)
    assert client.get(page_of(api_key, "disable")).status_code == 200
    api_key.refresh_from_db()
    assert api_key.disabled_at is None


def test_reason_is_asked_for():
    api_key, _ = factories.make_key()
    _, client = staff(api_key.team)
    for reason in ("", "   ", "x" * 501):
        response = client.post(page_of(api_key, "disable"), {"reason": reason})
        assert response.status_code == 200
        assert "Please correct the error below." in text(response)
    api_key.refresh_from_db()
    assert api_key.disabled_at is None


def test_revoked_key():
    api_key, _ = factories.make_key()
    api_key.revoke(by="ann", reason="leaked")
    _, client = staff(api_key.team)
    for page, form in (("disable", {"reason": "more"}), ("enable", {})):
        response = client.post(page_of(api_key, page), form, follow=True)
        assert "A revoked key cannot be changed." in text(response)
    assert not LogEntry.objects.filter(object_id=api_key.pk).exists()


def test_without_the_permission():
    api_key, _ = factories.make_key()
    _, client = staff(api_key.team, "apikeys.view_apikey", "apikeys.add_apikey")
    for page in ("disable", "enable"):
        assert client.get(page_of(api_key, page)).status_code == 403
        assert client.post(page_of(api_key, page), {"reason": "why not"}).status_code == 403
    api_key.refresh_from_db()
    assert api_key.disabled_at is None
