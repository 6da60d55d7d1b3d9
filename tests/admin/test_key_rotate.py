"""Rotating a key: the new secret is shown once, and one form rotates once."""

import threading
from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.utils import timezone

from apikeys.keys import crypto
from tests.support import factories
from tests.support.pages import KEY, browser, hidden, page_of, staff, text


def rotation(client, api_key, overlap="0"):
    page = client.get(page_of(api_key, "rotate")).content.decode()
    return {"overlap": overlap, "replacing": hidden(page, "replacing")}


def live(api_key):
    return list(api_key.secrets.live().order_by("-pk").values_list("last_four", flat=True))


def test_it_works():
    api_key, old = factories.make_key()
    user, client = staff(api_key.team)
    response = client.post(page_of(api_key, "rotate"), rotation(client, api_key))
    assert response.status_code == 200
    new = KEY.search(text(response))[0]
    assert crypto.is_ours(new)
    assert new != old
    assert live(api_key) == [new[-4:]]
    assert "no-store" in response["Cache-Control"]
    assert response["Referrer-Policy"] == "no-referrer"
    entry = LogEntry.objects.get(object_id=api_key.pk)
    assert (entry.user, entry.change_message) == (user, "Rotated. The old secret expires at once.")


@pytest.mark.parametrize("hours", [1, 24, 168])
def test_overlap(hours):
    api_key, old = factories.make_key()
    _, client = staff(api_key.team)
    before = timezone.now()
    new = KEY.search(text(client.post(page_of(api_key, "rotate"), rotation(client, api_key, str(hours)))))[0]
    assert live(api_key) == [new[-4:], old[-4:]]
    ends = api_key.secrets.order_by("pk").first().expires_at
    assert before <= ends - timedelta(hours=hours) <= timezone.now()


def test_reload_rotates_no_second_time():
    api_key, _ = factories.make_key()
    _, client = staff(api_key.team)
    form = rotation(client, api_key)
    new = KEY.search(text(client.post(page_of(api_key, "rotate"), form)))[0]
    response = client.post(page_of(api_key, "rotate"), form, follow=True)
    assert response.redirect_chain == [(page_of(api_key), 302)]
    assert "The key was rotated in the meantime" in text(response)
    assert not KEY.search(text(response))
    assert live(api_key) == [new[-4:]]


def test_same_form_many_times_at_once_rotates_once():
    api_key, _ = factories.make_key()
    user, client = staff(api_key.team)
    form = rotation(client, api_key, "24")
    clients = [browser(user) for _ in range(6)]
    together = threading.Barrier(len(clients))
    statuses = []

    def send(mine):
        try:
            together.wait(30)
            statuses.append(mine.post(page_of(api_key, "rotate"), form).status_code)
        finally:
            connection.close()

    threads = [threading.Thread(target=send, args=[mine]) for mine in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(statuses) == [200, 302, 302, 302, 302, 302]
    assert api_key.secrets.count() == 2
    assert LogEntry.objects.filter(object_id=api_key.pk).count() == 1


@pytest.mark.parametrize("fields", [{"overlap": "720"}, {"overlap": ""}, {"replacing": ""}, {"replacing": "x"}])
def test_wrong_field(fields):
    api_key, key = factories.make_key()
    _, client = staff(api_key.team)
    response = client.post(page_of(api_key, "rotate"), rotation(client, api_key) | fields)
    assert response.status_code == 200
    assert "Please correct the error below." in text(response)
    assert live(api_key) == [key[-4:]]


def test_revoked_key():
    api_key, _ = factories.make_key()
    _, client = staff(api_key.team)
    form = rotation(client, api_key)
    api_key.revoke(by="ann", reason="leaked")
    response = client.post(page_of(api_key, "rotate"), form, follow=True)
    assert "A revoked key cannot be rotated." in text(response)
    assert api_key.secrets.count() == 1


def test_plaintext_is_in_this_answer_and_nowhere_else():
    api_key, _ = factories.make_key()
    _, client = staff(api_key.team)
    client.post(page_of(api_key, "rotate"), rotation(client, api_key))
    for page in ("change", "history", "rotate"):
        assert not KEY.search(text(client.get(page_of(api_key, page))))
    assert not KEY.search(str(client.cookies) + str(dict(client.session)))


def test_without_the_permission():
    api_key, key = factories.make_key()
    _, client = staff(api_key.team, "apikeys.view_apikey", "apikeys.add_apikey")
    assert client.get(page_of(api_key, "rotate")).status_code == 403
    form = {"overlap": "0", "replacing": api_key.newest_secret_id}
    assert client.post(page_of(api_key, "rotate"), form).status_code == 403
    assert live(api_key) == [key[-4:]]
