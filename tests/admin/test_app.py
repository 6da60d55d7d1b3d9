"""Apps: made, changed, archived, never deleted."""

import pytest
from django.contrib.admin.models import LogEntry

from chat.models import App
from tests.support import factories
from tests.support.pages import FilledForm, app_form, browser, staff, text, url

RIGHTS = ("chat.view_app", "chat.add_app", "chat.change_app", "chat.delete_app")
LIST = url(App, "changelist")


@pytest.fixture
def app():
    return factories.make_app(factories.make_team())


@pytest.fixture
def client(app):
    return staff(app.team, *RIGHTS)[1]


def test_it_works(app, client):
    form = app_form(team=app.team_id, model=app.model_id, system_prompt="Be kind to {{name}}.")
    assert client.post(url(App, "add"), form).status_code == 302
    made = App.objects.get(team=app.team, name="new")
    assert (made.model, made.system_prompt) == (app.model, "Be kind to {{name}}.")


def test_change_keeps_the_team(app, client):
    form = app_form(name="renamed", model=app.model_id, team=factories.make_team().pk)
    assert client.post(url(App, "change", app.pk), form).status_code == 302
    assert (App.objects.get(pk=app.pk).name, App.objects.get(pk=app.pk).team) == ("renamed", app.team)


def test_model_of_another_team(app):
    foreign = factories.make_model(factories.make_provider(factories.make_team()))
    client = browser(factories.make_user(is_superuser=True))
    answers = [
        client.post(url(App, "add"), app_form(team=app.team_id, model=foreign.pk)),
        client.post(url(App, "change", app.pk), app_form(model=foreign.pk)),
    ]
    assert "The model belongs to another team." in text(answers[0])
    assert "not one of the available choices" in text(answers[1])


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


KNOWLEDGE = {
    "search_mode": "mixedRecall",
    "similarity": "0.3",
    "quote_limit": "700",
    "uses_rerank": "on",
    "quote_template": "{{q}}: {{a}}",
    "quote_prompt": "{{quote}} / {{question}}",
    "empty_answer": "我不知道",
}


def test_datasets(app, client):
    datasets = [factories.make_dataset(app.team) for _ in range(3)]
    chosen = [dataset.pk for dataset in datasets[:2]]
    form = app_form(team=app.team_id, model=app.model_id, name="film", datasets=chosen, **KNOWLEDGE)
    assert client.post(url(App, "add"), form).status_code == 302
    made = App.objects.get(team=app.team, name="film")
    assert set(made.datasets.all()) == set(datasets[:2])
    assert {name: getattr(made, name) for name in KNOWLEDGE} == {
        **KNOWLEDGE,
        "similarity": 0.3,
        "quote_limit": 700,
        "uses_rerank": True,
    }
    page = client.get(url(App, "change", made.pk)).content.decode()
    assert sorted(FilledForm(page, "app_form").fields["datasets"]) == sorted(chosen)
    form = FilledForm(page, "app_form").fields | {"datasets": [datasets[2].pk]}
    assert client.post(url(App, "change", made.pk), form).status_code == 302
    assert list(made.datasets.all()) == [datasets[2]]


def test_who_only_sees_apps_sees_their_datasets(app):
    dataset = factories.make_dataset(app.team)
    app.datasets.add(dataset)
    _, client = staff(app.team, "chat.view_app")
    assert dataset.name in text(client.get(url(App, "change", app.pk)))


def test_datasets_of_another_team(app, client):
    foreign = factories.make_dataset()
    superuser = browser(factories.make_user(is_superuser=True))
    new = app_form(team=app.team_id, model=app.model_id, name="thief", datasets=[foreign.pk])
    changed = app_form(model=app.model_id, datasets=[foreign.pk])
    assert "A dataset belongs to another team." in text(superuser.post(url(App, "add"), new))
    answers = [
        superuser.post(url(App, "change", app.pk), changed),
        client.post(url(App, "add"), new),
        client.post(url(App, "change", app.pk), changed),
    ]
    assert all("is not one of the available choices" in text(answer) for answer in answers)
    absent = client.post(url(App, "add"), new | {"datasets": ["0" * 24]})
    assert text(absent).replace("0" * 24, foreign.pk).count(foreign.pk) == text(answers[1]).count(foreign.pk)
    assert foreign.name not in text(client.get(url(App, "add")))
    assert foreign.name not in text(superuser.get(url(App, "change", app.pk)))
    assert not App.objects.filter(team=app.team, name="thief").exists()


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("similarity", "1.1", "less than or equal to 1"),
        ("similarity", "nan", "Enter a number"),
        ("quote_limit", "99", "greater than or equal to 100"),
        ("quote_limit", "20001", "less than or equal to 20000"),
        ("search_mode", "psychic", "not one of the available choices"),
        ("quote_prompt", "{{quote}}", "It must contain {{quote}} once and {{question}} once."),
        ("empty_answer", "x" * 10_001, "at most 10000 characters"),
        ("datasets", "\x00", "Bad Request"),
    ],
)
def test_search_settings_that_cannot_be(app, client, field, value, complaint):
    form = app_form(model=app.model_id, **{field: value})
    assert complaint in text(client.post(url(App, "change", app.pk), form))


def test_passes_tools(app, client):
    page = client.get(url(App, "change", app.pk)).content.decode()
    form = FilledForm(page, "app_form").fields
    for chosen, kept in (("True", True), ("False", False), ("", None)):
        assert client.post(url(App, "change", app.pk), form | {"passes_tools": chosen}).status_code == 302
        app.refresh_from_db()
        assert app.passes_tools is kept
    assert all(label in page for label in ("unless it has datasets", "always", "never"))
