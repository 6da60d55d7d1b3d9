"""Actions that grant rights or reveal secrets need a password entered in the last 15 minutes."""

import time

import pytest
from django.contrib.auth.models import Group, User

from apikeys.access.rules import EndpointRule
from apikeys.accounting.limits import Limit
from apikeys.alerts.webhooks import Webhook
from apikeys.keys.models import ApiKey
from apikeys.sign_in.reauthentication import ENTERED_AT, RECENT_SECONDS
from apikeys.teams import Team
from tests.support import factories
from tests.support.loopback import loopback_allowed
from tests.support.pages import ADD, KEY, browser, hidden, new_key_form, page_of, staff, text, url

PAGE = "/admin/confirm_password/"
NEW_PASSWORD = "another horse battery staple"
LIMIT_RIGHTS = tuple(f"apikeys.{right}_limit" for right in ("view", "change", "delete"))


def grow_stale(client, seconds=RECENT_SECONDS + 1):
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
        # A list has its actions above and below; "index" tells which one was used.
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


def user_form(**fields):
    form = {"username": factories.unique("user"), "date_joined_0": "2030-01-01", "date_joined_1": "00:00"}
    passwords = {"usable_password": "true", "password1": NEW_PASSWORD, "password2": NEW_PASSWORD}
    return form | passwords | fields


@pytest.mark.parametrize("model", [User, Group])
def test_people_are_made_and_changed(model):
    client = browser(factories.make_user(is_superuser=True))
    row = factories.make_user() if model is User else Group.objects.create(name=factories.unique("group"))
    name = "username" if model is User else "name"
    forms = {
        url(model, "add"): user_form(name=factories.unique("new")),
        url(model, "change", row.pk): user_form(name=factories.unique("changed"), is_superuser="on"),
    }
    for page, form in forms.items():
        grow_stale(client)
        said = text(client.post(page, form))
        assert "more than 15 minutes ago" in said
        assert form[name] in said
        assert not model.objects.filter(**{name: form[name]}).exists()
        enter(client)
        assert client.post(page, form).status_code == 302
        assert model.objects.filter(**{name: form[name]}).exists()


def test_password_of_a_user_oneself_not_excepted():
    user = factories.make_user(is_superuser=True)
    client = browser(user)
    grow_stale(client)
    page = f"/admin/auth/user/{user.pk}/password/"
    form = user_form()
    for response in (client.get(page), client.post(page, form)):
        assert response["Location"].startswith(PAGE)
    user.refresh_from_db()
    assert user.check_password(factories.PASSWORD)
    enter(client)
    assert client.post(page, form).status_code == 302
    user.refresh_from_db()
    assert user.check_password(NEW_PASSWORD)


def change_own(client, old):
    form = {"old_password": old, "new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}
    return client.post("/admin/password_change/", form)


def test_own_password_is_changed():
    user, client = staff(factories.make_team())
    assert "old_password" in text(client.get("/admin/password_change/"))
    assert change_own(client, factories.PASSWORD)["Location"] == "/admin/password_change/done/"
    user.refresh_from_db()
    assert user.check_password(NEW_PASSWORD)


def test_old_passwords_are_not_tried_without_end():
    user, client = staff(factories.make_team())
    for _ in range(5):
        assert "Too many attempts" not in text(change_own(client, "wrong"))
    assert "Too many attempts" in text(change_own(client, factories.PASSWORD))
    # They share the counters of the sign-in, so neither form can replace the other for guessing.
    assert "Too many attempts" in text(enter(client))
    user.refresh_from_db()
    assert user.check_password(factories.PASSWORD)


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


def test_enabling_a_key():
    api_key, _ = factories.make_key()
    api_key.disable()
    _, client = staff(api_key.team)
    grow_stale(client)
    assert client.get(page_of(api_key, "enable"))["Location"].startswith(PAGE)
    assert "more than 15 minutes ago" in text(client.post(page_of(api_key, "enable")))
    api_key.refresh_from_db()
    assert api_key.disabled_at is not None
    enter(client)
    client.post(page_of(api_key, "enable"))
    api_key.refresh_from_db()
    assert api_key.disabled_at is None
    # To disable it again has to be quick.
    grow_stale(client)
    client.post(page_of(api_key, "disable"), {"reason": "leaked"})
    api_key.refresh_from_db()
    assert api_key.disabled_at is not None


def test_reopening_an_endpoint():
    client = browser(factories.make_user(is_superuser=True))
    grow_stale(client)
    switch = {"endpoint": "models.list", "kind": "global"}
    inventory = url(EndpointRule, "inventory")
    try:
        assert client.post(inventory, switch | {"is_open": "no"})["Location"] == inventory
        rule = EndpointRule.objects.get(endpoint="models.list")
        assert client.post(inventory, switch | {"is_open": "yes"})["Location"].startswith(PAGE)
        change = url(EndpointRule, "change", rule.pk)
        assert "more than 15 minutes ago" in text(client.post(change, {"denied_kinds": ["app"]}))
        assert client.post(url(EndpointRule, "delete", rule.pk), {"post": "yes"})["Location"].startswith(PAGE)
        delete_selected = {"action": "delete_selected", "_selected_action": [rule.pk], "post": "yes"}
        client.post(url(EndpointRule, "changelist"), delete_selected)
        assert EndpointRule.objects.get(pk=rule.pk).denied_kinds == ["global"]
        enter(client)
        client.post(inventory, switch | {"is_open": "yes"})
        assert not EndpointRule.objects.filter(pk=rule.pk).exists()
    finally:
        EndpointRule.objects.all().delete()


def test_adding_a_member():
    team = factories.make_team()
    user, client = browser_of_superuser()
    grow_stale(client)
    member = {"name": team.name, "membership_set-INITIAL_FORMS": 0}
    added = member | {"membership_set-TOTAL_FORMS": 1, "membership_set-0-user": user.pk}
    assert "more than 15 minutes ago" in text(client.post(url(Team, "change", team.pk), added))
    assert not team.members.exists()
    renamed = member | {"name": "renamed", "membership_set-TOTAL_FORMS": 0}
    assert client.post(url(Team, "change", team.pk), renamed).status_code == 302
    enter(client)
    assert client.post(url(Team, "change", team.pk), added).status_code == 302
    assert list(team.members.all()) == [user]


def browser_of_superuser():
    user = factories.make_user(is_superuser=True)
    return user, browser(user)


def test_a_secret_of_a_webhook():
    team = factories.make_team()
    _, client = staff(team, *(f"apikeys.{right}_webhook" for right in ("view", "add", "change")))
    grow_stale(client)
    with loopback_allowed():
        form = {"team": team.pk, "url": "http://127.0.0.1:9/hooks"}
        assert "more than 15 minutes ago" in text(client.post(url(Webhook, "add"), form))
        assert not Webhook.objects.filter(team=team).exists()
        webhook = Webhook(team=team, url=form["url"])
        webhook.make_secret()
        webhook.save()
        change = url(Webhook, "change", webhook.pk)
        assert "more than 15 minutes ago" in text(client.post(change, {"url": "http://127.0.0.1:9/other"}))
        new_secret = url(Webhook, "new_secret", webhook.pk)
        assert client.get(new_secret)["Location"].startswith(PAGE)
        assert client.post(new_secret, {"replacing": webhook.secret_made_at.isoformat()})["Location"].startswith(PAGE)
        webhook.refresh_from_db()
        assert webhook.url == form["url"]
        # What reveals nothing needs no password.
        assert client.post(change, {"url": form["url"], "disabled_at_0": "", "disabled_at_1": ""}).status_code == 302
