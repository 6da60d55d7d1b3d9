"""Rows as people name them on a command line: by id, or by a name that only one of them has."""

from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import CommandError
from django.db.models import Q, QuerySet

from apikeys.keys import crypto
from apikeys.keys.models import ApiKey
from apikeys.teams import Team


def find_team(name: str) -> Team:
    team: Team = _find(Team.objects.all(), name, "team")
    return team


def find_owner(username: str) -> User:
    owner = User.objects.filter(username=username).first()
    if owner is None:
        raise CommandError(f"There is no user {username!r}.")
    return owner


def find_app(team: Team, name: str) -> Any:
    # The team's own relation: this package imports nothing of `chat`.
    app = _find(team.apps.all(), name, "app", f" in the team {team.name!r}")
    if app.archived_at:
        raise CommandError(f"The app {name!r} is archived.")
    return app


def find_key(name: str) -> ApiKey:
    if crypto.PATTERN.search(name):
        raise CommandError(
            "That is the key itself. Refer to it by its id, and rotate it: "
            "what is typed on a command line is not secret."
        )
    api_key: ApiKey = _find(ApiKey.objects.with_state(), name, "key")
    return api_key


def _find(rows: QuerySet[Any], name: str, what: str, where: str = "") -> Any:
    found = list(rows.filter(Q(pk=name) | Q(name=name))[:4])
    if not found:
        raise CommandError(f"There is no {what} {name!r}{where}.")
    if len(found) > 1:
        ids = ", ".join(row.pk for row in found[:3]) + (", ..." if len(found) > 3 else "")
        raise CommandError(f"More than one {what}{where} is named {name!r}. Give the id: {ids}.")
    return found[0]
