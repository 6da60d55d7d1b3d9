"""Making a key: shown once, made once."""

import re
import threading
from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.db import connection
from django.utils import timezone

from apikeys.accounting.limits import Limit
from apikeys.keys import crypto
from apikeys.keys.models import ApiKey
from tests.support import factories
from tests.support.pages import ADD, KEY, KEY_RIGHTS, LIST, browser, new_key_form, page_of, staff, text


def test_it_works():
    team = factories.make_team()
    user, client = staff(team)
    app = factories.make_app(team)
    form = new_key_form(
        client,
        team=team.pk,
        app=app.pk,
        owner=user.pk,
        name="first",
        note="for the shop",
        expires_at_0="2099-12-31",
        expires_at_1="18:00",
        allowed_networks="10.0.0.0/8\r\n\r\n 2001:db8::/32 \r\n10.0.0.0/8\r\n",
        allowed_endpoints=["chat.completions"],
        allowed_models="one\r\ntwo",
    )
    response = client.post(ADD, form)
    assert response.status_code == 200
    plaintext = KEY.search(text(response))[0]
    assert crypto.is_ours(plaintext)
    api_key = ApiKey.objects.get(team=team)
    assert (api_key.name, api_key.note, api_key.app, api_key.owner) == ("first", "for the shop", app, user)
    assert api_key.expires_at.isoformat() == "2099-12-31T18:00:00+00:00"
    assert api_key.allowed_networks == ["10.0.0.0/8", "2001:db8::/32"]
    assert api_key.allowed_endpoints == ["chat.completions"]
    assert api_key.allowed_models == ["one", "two"]
    assert api_key.last_four == plaintext[-4:]
    assert api_key.why_unusable is None


@pytest.mark.parametrize("is_app_key", [True, False])
def test_page_says_how_to_use_it(is_app_key):
    team = factories.make_team()
    user, client = staff(team)
    app = {"app": factories.make_app(team).pk} if is_app_key else {}
    page = text(client.post(ADD, new_key_form(client, team=team.pk, owner=user.pk, **app)))
    plaintext = KEY.search(page)[0]
    assert f'value="{plaintext}"' in page
    assert 'value="http://testserver/api"' in page
    assert f"Authorization: Bearer {plaintext}" in page
    path = "/api/v1/chat/completions" if is_app_key else "/api/v1/key"
    assert f"curl 'http://testserver{path}'" in page


@pytest.mark.parametrize("kind", ["app", "global", "global that may name an app"])
def test_snippets_hold_the_key(kind):
    team = factories.make_team()
    user, client = staff(team)
    fields = {"app": factories.make_app(team).pk} if kind == "app" else {}
    fields |= {"can_name_app": "on"} if kind.endswith("an app") else {}
    page = text(client.post(ADD, new_key_form(client, team=team.pk, owner=user.pk, **fields)))
    plaintext = KEY.search(page)[0]
    codes = re.findall(r"<textarea[^>]*>(.*?)</textarea>", page, re.DOTALL)
    assert [code.count(plaintext) for code in codes] == [1, 1, 1, 1]
    assert all("http://testserver/api" in code for code in codes)
    assert ('"stream":true,"detail":true' in codes[3]) == (kind != "global")
    assert ("APP_ID" in page) == (kind == "global that may name an app")


def test_global_key_has_no_app():
    team = factories.make_team()
    user, client = staff(team)
    form = new_key_form(client, team=team.pk, owner=user.pk, app=factories.make_app(team).pk, kind="global")
    assert "A global key has no app." in text(client.post(ADD, form))
    assert not ApiKey.objects.filter(team=team).exists()


@pytest.mark.parametrize("days", [30, 90, 365])
def test_ends_in_so_many_days(days):
    team = factories.make_team()
    user, client = staff(team)
    before = timezone.now()
    # A date that was entered before is ignored.
    form = new_key_form(client, team=team.pk, owner=user.pk, expires_at_0="2099-12-31", expires_at_1="18:00")
    client.post(ADD, form | {"ends": str(days)})
    assert before <= ApiKey.objects.get(team=team).expires_at - timedelta(days=days) <= timezone.now()


def test_first_limits():
    team = factories.make_team()
    user, client = staff(team, *KEY_RIGHTS, "apikeys.add_limit")
    limits = {"requests_per_minute": 60, "tokens_per_minute": 1000, "points": "2.5", "points_period": "week"}
    client.post(ADD, new_key_form(client, team=team.pk, owner=user.pk, **limits))
    api_key = ApiKey.objects.get(team=team)
    assert set(api_key.limits.values_list("measure", "period", "amount")) == {
        ("requests", "minute", 60),
        ("tokens", "minute", 1000),
        ("micropoints", "week", 2_500_000),
    }
    assert all(limit.counter.used == 0 for limit in api_key.limits.all())


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"requests_per_minute": 0}, "greater than or equal to 1"),
        ({"points": "0.0000001"}, "no more than 6 decimal places"),
        ({"points": "9999999999999999"}, "The maximum is"),
        ({"points": 1, "points_period": "minute"}, "not one of the available choices"),
    ],
)
def test_wrong_first_limit_makes_no_key(fields, complaint):
    team = factories.make_team()
    user, client = staff(team, *KEY_RIGHTS, "apikeys.add_limit")
    response = client.post(ADD, new_key_form(client, team=team.pk, owner=user.pk, **fields))
    assert complaint in text(response)
    assert not ApiKey.objects.filter(team=team).exists()


def test_first_limits_without_the_permission():
    team = factories.make_team()
    user, client = staff(team)
    assert "requests_per_minute" not in text(client.get(ADD))
    client.post(ADD, new_key_form(client, team=team.pk, owner=user.pk, requests_per_minute=60))
    assert not ApiKey.objects.get(team=team).limits.exists()


def test_copy_of_a_key():
    team = factories.make_team()
    app = factories.make_app(team)
    api_key, _ = factories.make_key(app=app, note="for the shop", allowed_networks=["192.0.2.0/24"])
    Limit.objects.create(team=team, key=api_key, measure="micropoints", period="month", amount=7_500_000)
    _, client = staff(team, *KEY_RIGHTS, "apikeys.add_limit")
    page = text(client.get(ADD, {"copy": api_key.pk}))
    for told in (f'value="Copy of {api_key.name}"', "for the shop", "192.0.2.0/24", f'value="{app.pk}" selected'):
        assert told in page
    assert re.search(r'name="points" value="7.5', page)
    foreign, _ = factories.make_key(note="secret plans")
    for absent in (foreign.pk, "0" * 24):
        page = text(client.get(ADD, {"copy": absent}))
        assert "Copy of" not in page
        assert "secret plans" not in page


def test_copy_needs_to_see_the_key():
    api_key, _ = factories.make_key(note="secret plans")
    _, client = staff(api_key.team, "apikeys.add_apikey")
    assert "secret plans" not in text(client.get(ADD, {"copy": api_key.pk}))


def test_plaintext_is_in_this_answer_and_nowhere_else():
    team = factories.make_team()
    user, client = staff(team)
    response = client.post(ADD, new_key_form(client, team=team.pk, owner=user.pk))
    plaintext = KEY.search(text(response))[0]
    assert "no-store" in response["Cache-Control"]
    assert response["Referrer-Policy"] == "no-referrer"
    assert "Location" not in response
    api_key = ApiKey.objects.get(team=team)
    for page in (LIST, page_of(api_key), page_of(api_key, "history"), "/admin/"):
        assert not KEY.search(text(client.get(page)))
    assert not KEY.search(str(client.cookies))
    assert all(not KEY.search(str(session.get_decoded())) for session in Session.objects.all())
    entry = LogEntry.objects.get(object_id=api_key.pk)
    assert entry.user == user
    assert not KEY.search(f"{entry.change_message} {entry.object_repr}")
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_jsonb(k)::text, to_jsonb(s)::text FROM apikeys_apikey k, apikeys_keysecret s")
        assert all(plaintext not in cell for row in cursor.fetchall() for cell in row)


def test_reload_makes_no_second_key():
    team = factories.make_team()
    user, client = staff(team)
    form = new_key_form(client, team=team.pk, owner=user.pk)
    assert KEY.search(text(client.post(ADD, form)))
    api_key = ApiKey.objects.get(team=team)
    for changed in ({}, {"name": "another"}):
        response = client.post(ADD, form | changed)
        assert response.status_code == 302
        assert response["Location"] == page_of(api_key)
    page = text(client.get(page_of(api_key)))
    assert "which was shown once" in page
    assert not KEY.search(page)
    assert ApiKey.objects.get(team=team) == api_key
    assert api_key.secrets.count() == 1


def test_same_form_many_times_at_once_makes_one_key():
    team = factories.make_team()
    user, client = staff(team)
    form = new_key_form(client, team=team.pk, owner=user.pk)
    clients = [browser(user) for _ in range(6)]
    together = threading.Barrier(len(clients))
    answers = []

    def send(mine):
        try:
            together.wait(30)
            answers.append(mine.post(ADD, form))
        finally:
            connection.close()

    threads = [threading.Thread(target=send, args=[mine]) for mine in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(answer.status_code for answer in answers) == [200, 302, 302, 302, 302, 302]
    api_key = ApiKey.objects.get(team=team)
    assert api_key.secrets.count() == 1
    assert LogEntry.objects.filter(object_id=api_key.pk).count() == 1
    assert {answer["Location"] for answer in answers if answer.status_code == 302} == {page_of(api_key)}


def test_two_forms_make_two_keys():
    team = factories.make_team()
    user, client = staff(team)
    for _ in range(2):
        assert KEY.search(text(client.post(ADD, new_key_form(client, team=team.pk, owner=user.pk))))
    assert ApiKey.objects.filter(team=team).count() == 2


@pytest.mark.parametrize("reservation", ["", "made up", "WzEsImEiXQ:1x:abc"])
def test_reservation_is_not_ours(reservation):
    team = factories.make_team()
    user, client = staff(team)
    form = new_key_form(client, team=team.pk, owner=user.pk) | {"reservation": reservation}
    response = client.post(ADD, form)
    assert (response.status_code, response["Location"]) == (302, ADD)
    assert not ApiKey.objects.filter(team=team).exists()


def test_sent_again_by_who_has_left_the_team():
    """They may no longer see the key that the form made."""
    team = factories.make_team()
    user, client = staff(team)
    form = new_key_form(client, team=team.pk, owner=user.pk)
    assert client.post(ADD, form).status_code == 200
    team.members.remove(user)
    response = client.post(ADD, form)
    assert (response.status_code, response["Location"]) == (302, ADD)
    assert "That form is no longer valid." in text(client.get(ADD))
    assert ApiKey.objects.filter(team=team).count() == 1


def test_reservation_of_somebody_else():
    team = factories.make_team()
    user, client = staff(team)
    _, other = staff(team)
    form = new_key_form(other, team=team.pk, owner=user.pk)
    assert client.post(ADD, form)["Location"] == ADD
    assert not ApiKey.objects.filter(team=team).exists()


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"name": ""}, "This field is required."),
        ({"name": "x" * 101}, "at most 100 characters"),
        ({"note": "x" * 2001}, "at most 2000 characters"),
        ({"team": ""}, "This field is required."),
        ({"owner": ""}, "This field is required."),
        ({"allowed_networks": "10.0.0.300/8"}, "is not a network in CIDR notation"),
        ({"allowed_networks": "fe80::1%eth0"}, "has no percent sign"),
        ({"allowed_networks": "10.0.0.0/8\r\nhome"}, "'home' is not a network in CIDR notation"),
        ({"allowed_models": "x" * 201}, "at most 200 characters"),
        ({"allowed_endpoints": ["no.such"]}, "no.such is not one of the available choices"),
        ({"ends": "date", "expires_at_0": "soon", "expires_at_1": ""}, "Enter a valid date."),
        ({"ends": "date", "expires_at_0": "", "expires_at_1": ""}, "Enter a date."),
        ({"ends": "date", "expires_at_0": "2020-01-01", "expires_at_1": "00:00"}, "It is in the past."),
        ({"ends": "date", "expires_at_0": "9999-12-31", "expires_at_1": "00:00"}, "in the years 2000 to 9998"),
        ({"ends": "tomorrow"}, "tomorrow is not one of the available choices"),
        ({"ends": ""}, "This field is required."),
        ({"kind": ""}, "This field is required."),
        ({"kind": "global_naming_app"}, "is not one of the available choices"),
        ({"kind": "app"}, "Choose the app that the key talks to."),
    ],
)
def test_wrong_field_is_named_and_the_form_stays_good(fields, complaint):
    team = factories.make_team()
    user, client = staff(team)
    form = new_key_form(client, team=team.pk, owner=user.pk)
    response = client.post(ADD, form | fields)
    assert response.status_code == 200
    assert complaint in text(response)
    assert not ApiKey.objects.filter(team=team).exists()
    assert KEY.search(text(client.post(ADD, form)))


def test_app_of_another_of_my_teams():
    team = factories.make_team()
    user = factories.make_user(team, is_superuser=True)
    foreign = factories.make_app(factories.make_team())
    client = browser(user)
    response = client.post(ADD, new_key_form(client, team=team.pk, owner=user.pk, app=foreign.pk))
    assert "The app belongs to another team." in text(response)


def test_owner_is_not_a_member():
    team = factories.make_team()
    user = factories.make_user(is_superuser=True)
    client = browser(user)
    response = client.post(ADD, new_key_form(client, team=team.pk, owner=user.pk))
    assert "The owner must be a member of the team." in text(response)


def test_app_key_cannot_name_apps():
    team = factories.make_team()
    user, client = staff(team)
    form = new_key_form(client, team=team.pk, owner=user.pk, app=factories.make_app(team).pk, can_name_app="on")
    assert "only a global key can name one" in text(client.post(ADD, form))


def test_archived_app_is_no_choice():
    team = factories.make_team()
    user, client = staff(team)
    app = factories.make_app(team, archived_at="2020-01-01T00:00Z")
    assert app.name not in text(client.get(ADD))
    form = new_key_form(client, team=team.pk, owner=user.pk, app=app.pk)
    assert "not one of the available choices" in text(client.post(ADD, form))


def test_without_the_permission():
    team = factories.make_team()
    user, client = staff(team, "apikeys.view_apikey", "apikeys.change_apikey")
    assert ADD not in text(client.get(LIST))
    assert client.get(ADD).status_code == 403
    _, other = staff(team)
    assert client.post(ADD, new_key_form(other, team=team.pk, owner=user.pk)).status_code == 403
    assert not ApiKey.objects.filter(team=team).exists()


def test_save_as_new_is_an_addition_too():
    """Django takes this button's name for an addition on any page, which then needs a reserved id as well."""
    team = factories.make_team()
    user, client = staff(team)
    api_key, _ = factories.make_key(team, owner=user)
    form = {"_saveasnew": "1", "team": team.pk, "owner": user.pk, "name": "copy"}
    assert client.post(page_of(api_key), form)["Location"] == ADD
    assert ApiKey.objects.get(team=team) == api_key


def test_without_a_form_token():
    team = factories.make_team()
    user, client = staff(team)
    form = new_key_form(client, team=team.pk, owner=user.pk)
    client.handler.enforce_csrf_checks = True
    assert client.post(ADD, form).status_code == 403
    assert not ApiKey.objects.filter(team=team).exists()
