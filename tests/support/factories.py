"""Rows for tests. Everything is really committed and shared by the session, so each has names of its own."""

import itertools
import os
from typing import Any

from django.contrib.auth.models import Permission, User

from apikeys.keys.models import ApiKey
from apikeys.teams import Membership, Team
from chat.catalog import CatalogModel, Provider, Route
from chat.models import App
from datasets.models import Collection, Dataset, Kind
from datasets.vectors import sets

PASSWORD = "correct horse battery staple"
numbers = itertools.count(1)


def unique(name: str) -> str:
    return f"{name}-{os.getpid()}-{next(numbers)}"


def make_team(**fields: Any) -> Team:
    return Team.objects.create(**{"name": unique("team"), **fields})


def make_user(
    team: Team | None = None, *, is_staff: bool = True, is_superuser: bool = False, permissions: tuple[str, ...] = ()
) -> User:
    """Make a user; `permissions` are spelled as Django does: "chat.view_app"."""
    user = User.objects.create_user(unique("user"), password=PASSWORD, is_staff=is_staff, is_superuser=is_superuser)
    for permission in permissions:
        app_label, codename = permission.split(".")
        user.user_permissions.add(Permission.objects.get(content_type__app_label=app_label, codename=codename))
    if team is not None:
        Membership.objects.create(team=team, user=user)
    return user


def make_provider(team: Team, base_url: str = "http://127.0.0.1:9/v1", **fields: Any) -> Provider:
    return Provider.objects.create(**{"team": team, "name": unique("provider"), "base_url": base_url, **fields})


def make_model(provider: Provider, upstream_name: str = "echo", **fields: Any) -> CatalogModel:
    """Make a model of the provider's team with one route. It has the provider's name for it, if that is not taken."""
    name = upstream_name
    if CatalogModel.objects.for_team(provider.team_id).filter(name=name).exists():
        name = unique(name)
    model = CatalogModel.objects.create(**{"team": provider.team, "name": name, **fields})
    model.routes.create(provider=provider, upstream_name=upstream_name)
    return model


def make_app(team: Team, provider: Provider | None = None, model: CatalogModel | str = "echo", **fields: Any) -> App:
    """Make an app of a model; where a name is given, of the provider's model of that name, made if need be."""
    if isinstance(model, str):
        provider = provider or make_provider(team)
        routes = Route.objects.filter(provider=provider, upstream_name=model)
        model = routes[0].model if routes else make_model(provider, model)
    return App.objects.create(**{"team": team, "name": unique("app"), "model": model, **fields})


def provider_of(app: App) -> Provider:
    """Return the one provider of an app's model."""
    provider: Provider = app.model.routes.get().provider
    return provider


def set_prices(provider: Provider, model: str, prompt: int, completion: int = 0) -> None:
    """Price a provider's model, in millionths of a point for 1,000 tokens."""
    route = Route.objects.filter(provider=provider, upstream_name=model).first()
    entry = route.model if route else make_model(provider, model)
    CatalogModel.objects.filter(pk=entry.pk).update(prompt_price=prompt, completion_price=completion)


def make_key(
    team: Team | None = None, app: App | None = None, owner: User | None = None, **policy: Any
) -> tuple[ApiKey, str]:
    """Return a key and its plaintext. Its team is by default the app's or a new one, its owner a new member."""
    team = team or (app.team if app else make_team())
    owner = owner or make_user(team)
    return ApiKey.objects.create_key(**{"team": team, "owner": owner, "name": unique("key"), "app": app, **policy})


def make_dataset(team: Team | None = None, provider: Provider | None = None, model: str = "", **fields: Any) -> Dataset:
    """Make a dataset with its vector set, of the static model or of the provider's."""
    dataset = Dataset.objects.create(**{"team": team or make_team(), "name": unique("dataset"), **fields})
    sets.create(dataset, provider, model)
    return dataset


def make_collection(dataset: Dataset | None = None, **fields: Any) -> Collection:
    fields = {"name": unique("collection"), "kind": Kind.VIRTUAL, **fields}
    return Collection.objects.create(dataset=dataset or make_dataset(), **fields)
