"""The rows that the demo starts with: a team, an administrator, the local model as a provider, two apps, three keys.

One of the apps has a knowledge base about a film.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction

from apikeys.keys.models import ApiKey
from apikeys.teams import Membership, Team
from chat.catalog import CatalogModel, Provider
from chat.local_model import MODEL
from chat.models import App
from datasets.data import insert
from datasets.models import Collection, Dataset, Kind, PendingVector
from datasets.vectors import sets
from fastgpt_site.demo import film

TEAM = "Demo"
ADMIN = "admin"
PROVIDER = "Local model"
APP = "Demo app"
APP_KEY = "Demo app key"
GLOBAL_KEY = "Demo global key"
SYSTEM_PROMPT = "You are a helpful AI assistant. Answer in a few sentences."
MAX_TOKENS = 256
FILM_APP = "Film guide"
FILM_KEY = "Film guide key"
FILM_DATASET = "Crouching Tiger, Hidden Dragon 卧虎藏龙"
# Little is quoted, and briefly: a model this small loses its way among more.
FILM_SETTINGS = {
    "similarity": 0.3,
    "quote_limit": 120,
    "quote_template": "{{q}} {{a}}",
    "empty_answer": "I know nothing about that. 这个我不知道。",
    "history_length": 0,
    "max_tokens": 64,
}
# A model this small talks nonsense at a higher temperature.
TEMPERATURE = 0.2


@dataclass(frozen=True, repr=False)
class Demo:
    """The seeded rows. A password or key is there only when this call made it: it cannot be shown again."""

    team: Team
    app: App
    film_app: App
    app_key_id: str
    film_key_id: str
    global_key_id: str
    admin_password: str | None
    app_key: str | None
    film_key: str | None
    global_key: str | None
    is_film_new: bool

    def knows_the_film(self) -> bool:
        waiting = PendingVector.objects.filter(vector_set__dataset__apps=self.film_app)
        return not self.is_film_new or not waiting.exists()


@transaction.atomic
def seed(model_url: str) -> Demo:
    """Make what is missing, and point the local model's provider at `model_url`. The rest stays as people left it."""
    team, _ = Team.objects.get_or_create(name=TEAM)
    admin, admin_password = _seed_admin()
    Membership.objects.get_or_create(team=team, user=admin)
    provider, _ = Provider.objects.update_or_create(team=team, name=PROVIDER, defaults={"base_url": model_url})
    model = _seed_model(provider)
    app, _ = _seed_app(model, APP, "Answers from the model on this machine.")
    film_app, is_new = _seed_app(model, FILM_APP, "Answers what it knows about a film.", **FILM_SETTINGS)
    if is_new:
        film_app.datasets.add(_seed_film(team))
    app_key_id, app_key = _seed_key(team, admin, APP_KEY, app)
    film_key_id, film_key = _seed_key(team, admin, FILM_KEY, film_app)
    global_key_id, global_key = _seed_key(team, admin, GLOBAL_KEY, None)
    return Demo(
        team,
        app,
        film_app,
        app_key_id,
        film_key_id,
        global_key_id,
        admin_password,
        app_key,
        film_key,
        global_key,
        is_new,
    )


def _seed_model(provider: Provider) -> CatalogModel:
    model, is_new = CatalogModel.objects.get_or_create(
        team=provider.team, name=MODEL, defaults={"takes_tools": False, "takes_images": False}
    )
    if is_new:
        model.routes.create(provider=provider, upstream_name=MODEL)
    return model


def _seed_app(model: CatalogModel, name: str, intro: str, **settings: Any) -> tuple[App, bool]:
    defaults = {
        "intro": intro,
        "model": model,
        "system_prompt": SYSTEM_PROMPT,
        "max_tokens": MAX_TOKENS,
        "temperature": TEMPERATURE,
    }
    found: tuple[App, bool] = App.objects.get_or_create(team=model.team, name=name, defaults={**defaults, **settings})
    return found


def _seed_film(team: Team) -> Dataset:
    dataset = Dataset(team=team, name=FILM_DATASET, intro="What the film guide answers from.")
    dataset.save()
    sets.create(dataset, None, "")
    collection = Collection(dataset=dataset, kind=Kind.VIRTUAL, name=FILM_DATASET)
    collection.save()
    insert(collection, film.data())
    return dataset


def _seed_admin() -> tuple[User, str | None]:
    existing = User.objects.filter(username=ADMIN).first()
    if existing:
        return existing, None
    password = secrets.token_urlsafe(12)
    return User.objects.create_superuser(ADMIN, password=password), password


def _seed_key(team: Team, owner: User, name: str, app: App | None) -> tuple[str, str | None]:
    """Return the key's id, and its plaintext if it was made now. A revoked one is final: another takes its place."""
    existing = ApiKey.objects.for_team(team.pk).filter(name=name, app=app, revoked_at=None).first()
    if existing:
        return existing.pk, None
    api_key, plaintext = ApiKey.objects.create_key(team=team, owner=owner, name=name, app=app)
    return api_key.pk, plaintext
