"""Bulk changes of keys, confirmed once and applied in portions."""

from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.urls import reverse
from django.utils import timezone

from apikeys.admin.keys import bulk
from apikeys.keys.models import ApiKey
from tests.admin.test_fresh_password import enter, grow_stale
from tests.support import factories
from tests.support.pages import KEY_RIGHTS, LIST, staff, text

JSON = {"Accept": "application/json"}


@pytest.fixture
def team():
    return factories.make_team()


@pytest.fixture
def keys(team):
    return [factories.make_key(team)[0] for _ in range(3)]


@pytest.fixture
def client(team):
    return staff(team)[1]


def portion(client, name, keys, **fields):
    form = {"key": [getattr(key, "pk", key) for key in keys], **fields}
    return client.post(reverse("admin:apikeys_apikey_bulk", args=[name]), form, headers=JSON)


def test_it_works(client, keys):
    """The list's action asks for details; the page's form applies the change, also without a script."""
    chosen = {"action": "bulk_disable", "_selected_action": [key.pk for key in keys[:2]]}
    page = text(client.post(LIST, chosen))
    assert "2 keys" in page
    assert page.count('name="key"') == 2
    assert not ApiKey.objects.filter(pk__in=[key.pk for key in keys]).exclude(disabled_at=None).exists()
    form = {"key": [key.pk for key in keys[:2]], "reason": "spring cleaning"}
    page = text(client.post(reverse("admin:apikeys_apikey_bulk", args=["disable"]), form))
    assert page.count("Disabled. Reason: spring cleaning") == 2
    for key in keys:
        key.refresh_from_db()
    assert [bool(key.disabled_at) for key in keys] == [True, True, False]
    assert LogEntry.objects.filter(object_id__in=[key.pk for key in keys]).count() == 2


def test_revoke_and_again(client, keys):
    first = portion(client, "revoke", keys, reason="leaked").json()
    assert [line["is_done"] for line in first["lines"]] == [True, True, True]
    again = portion(client, "revoke", keys, reason="other").json()
    assert [line["result"] for line in again["lines"]] == ["It was revoked."] * 3
    assert set(ApiKey.objects.filter(pk__in=[key.pk for key in keys]).values_list("revoked_reason")) == {("leaked",)}
    assert LogEntry.objects.filter(object_id__in=[key.pk for key in keys]).count() == 3


def test_enable_leaves_what_is_enabled(client, keys):
    keys[0].disable()
    lines = portion(client, "enable", keys).json()["lines"]
    assert [line["result"] for line in lines] == ["Enabled.", "No change was needed.", "No change was needed."]


@pytest.mark.parametrize(
    ("fields", "end"),
    [
        ({"ends": "never"}, None),
        ({"ends": "date", "expires_at_0": "2099-01-02", "expires_at_1": "03:04"}, "2099-01-02"),
    ],
)
def test_set_the_end(client, keys, fields, end):
    ApiKey.objects.filter(pk=keys[0].pk).update(expires_at="2050-01-01T00:00Z")
    assert portion(client, "expire", keys[:1], **fields).json()["lines"][0]["is_done"]
    keys[0].refresh_from_db()
    assert (keys[0].expires_at and keys[0].expires_at.date().isoformat()) == end


@pytest.mark.parametrize(
    ("name", "fields", "complaint"),
    [
        ("revoke", {}, "This field is required."),
        ("disable", {"reason": "x" * 501}, "at most 500 characters"),
        ("expire", {"ends": "date"}, "Enter a date."),
        ("expire", {"ends": "date", "expires_at_0": "9999-12-31", "expires_at_1": "23:59"}, "the years 2000 to 9998"),
        ("expire", {"ends": "soon"}, "not one of the available choices"),
    ],
)
def test_wrong_field(client, keys, name, fields, complaint):
    response = portion(client, name, keys, **fields)
    assert response.status_code == 400
    assert complaint in " ".join(response.json()["errors"])
    before = set(ApiKey.objects.filter(pk__in=[key.pk for key in keys]).values_list("revoked_at", "expires_at"))
    assert before == {(None, None)}


@pytest.mark.parametrize("name", ["disable", "enable", "revoke", "expire"])
def test_foreign_key_answers_like_an_absent_one(client, name):
    foreign, _ = factories.make_key()
    fields = {"reason": "revenge", "ends": "30"}
    lines = portion(client, name, [foreign, "0" * 24], **fields).json()["lines"]
    assert [(line["name"], line["result"]) for line in lines] == [
        (foreign.pk, "There is no such key."),
        ("0" * 24, "There is no such key."),
    ]
    before = ApiKey.objects.values().get(pk=foreign.pk)
    assert (before["revoked_at"], before["disabled_at"], before["expires_at"]) == (None, None, None)


def test_action_does_not_take_a_foreign_key(client):
    foreign, _ = factories.make_key()
    chosen = {"action": "bulk_revoke", "_selected_action": [foreign.pk], "select_across": "1"}
    assert foreign.pk not in text(client.post(LIST, chosen, follow=True))


@pytest.mark.parametrize("count", [0, 51])
def test_portion_is_bounded(client, count):
    response = portion(client, "enable", [f"{number:024}" for number in range(count)])
    assert (response.status_code, response.json()["errors"]) == (400, ["Choose between 1 and 50 keys."])


def test_action_is_bounded(client, keys, monkeypatch):
    monkeypatch.setattr(bulk, "MAXIMUM_KEYS", 2)
    chosen = {"action": "bulk_revoke", "_selected_action": [key.pk for key in keys]}
    assert "At most 2 keys at once." in text(client.post(LIST, chosen, follow=True))


def test_unknown_change(client, keys):
    assert portion(client, "rotate", keys).status_code == 404


def test_without_the_permission(team, keys):
    _, client = staff(team, *[right for right in KEY_RIGHTS if "change" not in right])
    assert "bulk_revoke" not in text(client.get(LIST))
    assert portion(client, "revoke", keys, reason="leaked").status_code == 403
    assert not ApiKey.objects.filter(pk__in=[key.pk for key in keys]).exclude(revoked_at=None).exists()


def test_stale_password_sets_no_later_end(client, keys):
    keys[0].set_end(timezone.now() + timedelta(days=60))
    keys[1].revoke(by="x", reason="x")
    grow_stale(client)
    assert portion(client, "expire", keys, ends="30").json()["lines"][0]["is_done"]
    refused = portion(client, "expire", keys, ends="90")
    assert refused.status_code == 400
    (said,) = refused.json()["errors"]
    assert "more than 15 minutes ago" in said
    assert "<" not in said
    form = {"key": [key.pk for key in keys], "ends": "never"}
    page = text(client.post(reverse("admin:apikeys_apikey_bulk", args=["expire"]), form))
    assert 'href="/admin/confirm_password/"' in page
    assert ApiKey.objects.get(pk=keys[0].pk).expires_at < timezone.now() + timedelta(days=31)
    enter(client)
    assert portion(client, "expire", keys, ends="90").json()["lines"][0]["is_done"]
