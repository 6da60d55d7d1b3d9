"""Making and rotating a key, and raising or removing a limit, need a password entered in the last 15 minutes."""

import time

import pytest

from apikeys.fresh_password import ENTERED_AT, FRESH_SECONDS
from apikeys.limits import Limit
from apikeys.models import ApiKey
from tests import factories
from tests.admin.pages import ADD, KEY, browser, hidden, new_key_form, page_of, staff, text, url

PAGE = "/admin/confirm_password/"
LIMIT_RIGHTS = tuple(f"apikeys.{right}_limit" for right in ("view", "change", "delete"))


def grow_stale(client, seconds=FRESH_SECONDS + 1):
    session = client.session
    session[ENTERED_AT] = int(time.time()) - seconds
    session.save()


def enter(client, page=PAGE, password=factories.PASSWORD):
    return client.post(page, {"password": password})


def make_limit(team):
    return Limit.objects.create(team=team, measure="requests", period="day", amount=10)


def test_it_works():
    team = factories.make_team()
    user, client = staff(team)
    form = new_key_form(client, team=team.pk, owner=user.pk)
    grow_stale(client)
    response = client.get(f"{ADD}?name=a+name")
    assert response.status_code == 302
    page = response["Location"]
    assert page.startswith(PAGE)
    response = enter(client, page)
    assert response["Location"] == f"{ADD}?name=a+name"
    assert KEY.search(text(client.post(ADD, form)))
    assert factories.PASSWORD not in str(dict(client.session))


def test_signing_in_counts():
    user = factories.make_user(factories.make_team(), permissions=("apikeys.add_apikey",))
    client = browser(factories.make_user())
    client.logout()
    client.post("/admin/login/", {"username": user.username, "password": factories.PASSWORD})
    assert client.get(ADD).status_code == 200


def test_form_sent_too_late_is_shown_again_with_what_was_filled_in():
    team = factories.make_team()
    user, client = staff(team)
    form = new_key_form(client, team=team.pk, owner=user.pk, note="a long story")
    grow_stale(client)
    page = text(client.post(ADD, form))
    assert "more than 15 minutes ago" in page
    assert "a long story" in page
    assert f'href="{PAGE}"' in page
    assert not ApiKey.objects.filter(team=team).exists()
    assert enter(client)["Location"] == "/admin/"
    assert KEY.search(text(client.post(ADD, form)))
    assert ApiKey.objects.get(team=team).note == "a long story"


def test_rotation():
    api_key, key = factories.make_key()
    _, client = staff(api_key.team)
    form = {"overlap": "24", "replacing": hidden(text(client.get(page_of(api_key, "rotate"))), "replacing")}
    grow_stale(client)
    assert client.get(page_of(api_key, "rotate"))["Location"].startswith(PAGE)
    page = text(client.post(page_of(api_key, "rotate"), form))
    assert "more than 15 minutes ago" in page
    assert '<option value="24" selected>' in page
    assert api_key.secrets.get().last_four == key[-4:]
    enter(client)
    assert KEY.search(text(client.post(page_of(api_key, "rotate"), form)))


def test_what_ends_a_key_asks_for_nothing():
    api_key, _ = factories.make_key()
    _, client = staff(api_key.team)
    grow_stale(client)
    assert client.post(page_of(api_key, "revoke"), {"reason": "leaked", "typed_name": api_key.name})[
        "Location"
    ] == page_of(api_key)
    api_key.refresh_from_db()
    assert api_key.revoked_at


@pytest.mark.parametrize(("amount", "is_done"), [("9", True), ("11", False)])
def test_limit_is_lowered_and_not_raised(amount, is_done):
    limit = make_limit(factories.make_team())
    _, client = staff(limit.team, *LIMIT_RIGHTS)
    grow_stale(client)
    page = url(Limit, "change", limit.pk)
    assert client.get(page).status_code == 200
    response = client.post(page, {"amount": amount})
    limit.refresh_from_db()
    assert limit.amount == (9 if is_done else 10)
    if not is_done:
        assert "more than 15 minutes ago" in text(response)
        enter(client)
        client.post(page, {"amount": amount})
        limit.refresh_from_db()
        assert limit.amount == 11


def test_limit_is_removed():
    limit = make_limit(factories.make_team())
    _, client = staff(limit.team, *LIMIT_RIGHTS)
    grow_stale(client)
    page = url(Limit, "delete", limit.pk)
    for response in (
        client.get(page),
        client.post(page, {"post": "yes"}),
        client.post(
            url(Limit, "changelist"),
            {"action": "delete_selected", "_selected_action": [limit.pk], "post": "yes"},
        ),
        # A list has its actions above and below; "index" says which one was meant.
        client.post(
            url(Limit, "changelist"),
            {"action": ["delete_selected", ""], "index": "0", "_selected_action": [limit.pk], "post": "yes"},
        ),
    ):
        assert response["Location"].startswith(PAGE)
    limit.refresh_from_db()
    enter(client)
    client.post(page, {"post": "yes"})
    assert not Limit.objects.filter(pk=limit.pk).exists()


def test_wrong_password():
    _, client = staff(factories.make_team())
    grow_stale(client)
    assert "This is not your password." in text(enter(client, password="wrong"))
    assert client.get(ADD)["Location"].startswith(PAGE)


def test_passwords_are_not_tried_without_end():
    _, client = staff(factories.make_team())
    grow_stale(client)
    for _ in range(5):
        enter(client, password="wrong")
    assert "Too many attempts" in text(enter(client))
    assert client.get(ADD)["Location"].startswith(PAGE)


def test_time_from_the_future_is_not_believed():
    _, client = staff(factories.make_team())
    grow_stale(client, -60)
    assert client.get(ADD)["Location"].startswith(PAGE)


@pytest.mark.parametrize("elsewhere", ["https://evil.example/", "//evil.example/", "javascript:alert(1)"])
def test_goes_on_to_this_site_alone(elsewhere):
    _, client = staff(factories.make_team())
    assert enter(client, f"{PAGE}?next={elsewhere}")["Location"] == "/admin/"


def test_who_is_not_signed_in():
    client = browser(factories.make_user(is_staff=False))
    assert client.get(PAGE)["Location"].startswith("/admin/login/")
