"""Apps: made, changed, archived, never deleted."""

import pytest
from django.contrib.admin.models import LogEntry

from chat.models import App
from tests import factories
from tests.admin.pages import browser, staff, text, url

RIGHTS = ("chat.view_app", "chat.add_app", "chat.change_app", "chat.delete_app")
LIST = url(App, "changelist")


def app_form(**fields):
    return {"name": "new", "model": "echo", "max_tokens": 10, "history_length": 2, "dialect": "4.14", **fields}


@pytest.fixture
def app():
    return factories.make_app(factories.make_team())


@pytest.fixture
def client(app):
    return staff(app.team, *RIGHTS)[1]


def test_it_works(app, client):
    form = app_form(team=app.team_id, provider=app.provider_id, system_prompt="Be kind to {{name}}.")
    assert client.post(url(App, "add"), form).status_code == 302
    made = App.objects.get(team=app.team, name="new")
    assert (made.provider, made.system_prompt) == (app.provider, "Be kind to {{name}}.")


def test_change_keeps_the_team(app, client):
    form = app_form(name="renamed", provider=app.provider_id, team=factories.make_team().pk)
    assert client.post(url(App, "change", app.pk), form).status_code == 302
    assert (App.objects.get(pk=app.pk).name, App.objects.get(pk=app.pk).team) == ("renamed", app.team)


def test_provider_of_another_team(app):
    foreign = factories.make_provider(factories.make_team())
    client = browser(factories.make_user(is_superuser=True))
    answers = [
        client.post(url(App, "add"), app_form(team=app.team_id, provider=foreign.pk)),
        client.post(url(App, "change", app.pk), app_form(provider=foreign.pk)),
    ]
    assert all("The provider belongs to another team." in text(answer) for answer in answers)


def test_archive_and_unarchive(app, client):
    response = client.post(LIST, {"action": "archive", "_selected_action": [app.pk]}, follow=True)
    assert f"Archived {app}." in text(response)
    assert App.objects.get(pk=app.pk).archived_at
    client.post(LIST, {"action": "unarchive", "_selected_action": [app.pk]})
    assert App.objects.get(pk=app.pk).archived_at is None
    entries = LogEntry.objects.filter(object_id=app.pk).order_by("pk")
    assert [entry.change_message for entry in entries] == ["Archived.", "Unarchived."]


def test_archive_without_the_permission(app):
    _, client = staff(app.team, "chat.view_app")
    assert "archive" not in text(client.get(LIST)).replace("archived", "")
    client.post(LIST, {"action": "archive", "_selected_action": [app.pk]})
    assert App.objects.get(pk=app.pk).archived_at is None


def test_no_app_is_deleted(app):
    client = browser(factories.make_user(is_superuser=True))
    assert client.post(url(App, "delete", app.pk), {"post": "yes"}).status_code == 403
    client.post(LIST, {"action": "delete_selected", "_selected_action": [app.pk], "post": "yes"})
    assert App.objects.filter(pk=app.pk).exists()
