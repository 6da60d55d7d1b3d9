"""Models of a team's catalog in the admin: their prices, their routes, and what is refused."""

import pytest
from django.urls import reverse

from apikeys.audit.models import AuditEntry
from chat.catalog import CatalogModel, Route
from chat.models import App
from tests.support import factories
from tests.support.pages import staff, text, url

RIGHTS = ("chat.view_catalogmodel", "chat.add_catalogmodel", "chat.change_catalogmodel", "chat.delete_catalogmodel")


@pytest.fixture
def provider():
    return factories.make_provider(factories.make_team())


@pytest.fixture
def client(provider):
    return staff(provider.team, *RIGHTS)[1]


def model_form(*routes, **fields):
    form = {"name": "gpt", "kind": "chat", "takes_tools": "on", "prompt_price": "1.5", "completion_price": "0.000333"}
    form |= {"image_price": "0", "routes-TOTAL_FORMS": len(routes), "routes-INITIAL_FORMS": 0}
    for number, route in enumerate(routes):
        shape = {"upstream_name": "gpt-x", "priority": 1, "weight": 1, "tokens_field": "", **route}
        form |= {f"routes-{number}-{name}": value for name, value in shape.items()}
    return form | fields


def page_of(model):
    return url(CatalogModel, "change", model.pk)


def test_it_works(provider, client):
    route = {"provider": provider.pk, "weight": 3, "tokens_field": "max_completion_tokens"}
    response = client.post(url(CatalogModel, "add"), model_form(route, team=provider.team_id))
    assert response.status_code == 302, text(response)
    model = CatalogModel.objects.get(team=provider.team)
    assert (model.name, model.prompt_price, model.completion_price) == ("gpt", 1_500_000, 333)
    assert (model.takes_tools, model.takes_images, model.cached_prompt_price) == (True, False, None)
    made = model.routes.get()
    assert (made.provider, made.weight, made.tokens_field, made.team) == (
        provider,
        3,
        "max_completion_tokens",
        provider.team,
    )
    assert 'value="1.5"' in text(client.get(page_of(model)))
    assert "gpt-x" in text(client.get(url(CatalogModel, "changelist")))


def test_changes_are_in_the_audit(provider, client):
    client.post(url(CatalogModel, "add"), model_form({"provider": provider.pk}, team=provider.team_id))
    model = CatalogModel.objects.get(team=provider.team)
    for row in (model, model.routes.get()):
        entry = AuditEntry.objects.filter(object_pk=str(row.pk), content_type__model=row._meta.model_name).latest("pk")
        assert (entry.team, entry.get_action_display()) == (provider.team, "create")


def test_routes_of_one_provider_and_name(provider, client):
    routes = [{"provider": provider.pk}, {"provider": provider.pk}]
    response = client.post(url(CatalogModel, "add"), model_form(*routes, team=provider.team_id))
    assert response.status_code == 200
    assert "duplicate" in text(response)
    assert not CatalogModel.objects.filter(team=provider.team).exists()


def test_name_is_taken(provider, client):
    factories.make_model(provider, "gpt")
    response = client.post(url(CatalogModel, "add"), model_form(team=provider.team_id))
    assert "already exists" in text(response)
    other = factories.make_model(provider, "other")
    assert "already exists" in text(client.post(page_of(other), model_form()))


def test_provider_of_another_team(provider):
    foreign = factories.make_provider(factories.make_team())
    user, client = staff(provider.team, *RIGHTS)
    foreign.team.members.add(user)
    form = model_form({"provider": foreign.pk}, team=provider.team_id)
    assert "The provider belongs to another team." in text(client.post(url(CatalogModel, "add"), form))
    model = factories.make_model(provider, "mine")
    form = model_form({"provider": foreign.pk})
    assert "not one of the available choices" in text(client.post(page_of(model), form))
    assert not Route.objects.filter(provider=foreign).exists()


def test_archive_and_unarchive(provider, client):
    model = factories.make_model(provider)
    for action, is_archived in (("archive", True), ("unarchive", False)):
        client.post(url(CatalogModel, "changelist"), {"action": action, "_selected_action": [model.pk]})
        model.refresh_from_db()
        assert (model.archived_at is not None) == is_archived


def test_a_model_that_apps_use_is_not_deleted(provider, client):
    app = factories.make_app(provider.team, provider)
    response = client.post(url(CatalogModel, "delete", app.model_id), {"post": "yes"})
    assert response.status_code == 200
    assert App.objects.filter(pk=app.pk).exists()
    unused = factories.make_model(provider, "unused")
    assert client.post(url(CatalogModel, "delete", unused.pk), {"post": "yes"}).status_code == 302


@pytest.mark.parametrize(
    "fields", [{"prompt_price": "-1"}, {"prompt_price": "0.0000001"}, {"name": ""}, {"kind": "video"}]
)
def test_what_is_refused(provider, client, fields):
    response = client.post(url(CatalogModel, "add"), model_form(team=provider.team_id, **fields))
    assert response.status_code == 200
    assert not CatalogModel.objects.filter(team=provider.team).exists()


def test_an_app_needs_a_model_that_chats(provider):
    _, client = staff(provider.team, "chat.view_app", "chat.add_app", "chat.change_app")
    embedder = factories.make_model(provider, "embedder", kind="embedding")
    assert "embedder" not in text(client.get(reverse("admin:chat_app_add")))
    form = {"name": "x", "team": provider.team_id, "model": embedder.pk, "max_tokens": 10}
    assert "not one of the available choices" in text(client.post(reverse("admin:chat_app_add"), form))


def test_only_who_may(provider):
    _, client = staff(provider.team, "chat.view_catalogmodel")
    model = factories.make_model(provider)
    assert client.get(page_of(model)).status_code == 200
    assert client.post(page_of(model), model_form()).status_code == 403
    assert client.post(url(CatalogModel, "add"), model_form(team=provider.team_id)).status_code == 403
