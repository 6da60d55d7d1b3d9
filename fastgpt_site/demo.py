"""What the demo starts with: a team, an administrator, the local model as a provider, an app and two keys."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from django.contrib.auth.models import User
from django.db import transaction

from apikeys.models import ApiKey, Membership, Team
from chat.management.commands.localmodel import MODEL
from chat.models import App, Provider

TEAM = "Demo"
ADMIN = "admin"
PROVIDER = "Local model"
APP = "Demo app"
APP_KEY = "Demo app key"
GLOBAL_KEY = "Demo global key"
SYSTEM_PROMPT = "You are a helpful AI assistant. Answer in a few sentences."
MAX_TOKENS = 256
# Warmer, a model this small talks nonsense.
TEMPERATURE = 0.2


@dataclass(frozen=True, repr=False)
class Demo:
    """The seeded rows. A password or key is there only when this call made it: it cannot be shown again."""

    team: Team
    app: App
    app_key_id: str
    global_key_id: str
    admin_password: str | None
    app_key: str | None
    global_key: str | None


@transaction.atomic
def seed(model_url: str) -> Demo:
    """Make what is missing, and point the local model's provider at `model_url`. The rest stays as people left it."""
    team, _ = Team.objects.get_or_create(name=TEAM)
    admin, admin_password = _seed_admin()
    Membership.objects.get_or_create(team=team, user=admin)
    provider, _ = Provider.objects.update_or_create(team=team, name=PROVIDER, defaults={"base_url": model_url})
    app, _ = App.objects.get_or_create(
        team=team,
        name=APP,
        defaults={
            "intro": "Answers from the model on this machine.",
            "provider": provider,
            "model": MODEL,
            "system_prompt": SYSTEM_PROMPT,
            "max_tokens": MAX_TOKENS,
            "temperature": TEMPERATURE,
        },
    )
    app_key_id, app_key = _seed_key(team, admin, APP_KEY, app)
    global_key_id, global_key = _seed_key(team, admin, GLOBAL_KEY, None)
    return Demo(team, app, app_key_id, global_key_id, admin_password, app_key, global_key)


def _seed_admin() -> tuple[User, str | None]:
    existing = User.objects.filter(username=ADMIN).first()
    if existing:
        return existing, None
    password = secrets.token_urlsafe(12)
    return User.objects.create_superuser(ADMIN, password=password), password


def _seed_key(team: Team, owner: User, name: str, app: App | None) -> tuple[str, str | None]:
    """The key's id, and its plaintext if it was made now. A revoked one is final, so another takes its place."""
    existing = ApiKey.objects.for_team(team.pk).filter(name=name, app=app, revoked_at=None).first()
    if existing:
        return existing.pk, None
    api_key, plaintext = ApiKey.objects.create_key(team=team, owner=owner, name=name, app=app)
    return api_key.pk, plaintext
