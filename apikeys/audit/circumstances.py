"""Who made a change, from where, in which request."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Model
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from apikeys.client_address import address_of


class Via(models.TextChoices):
    ADMIN = "admin", _("admin")
    API = "api", _("API")
    COMMAND = "command", _("command")


TeamOf = Callable[[Any], "str | None"]
team_of_model: dict[type[Model], TeamOf] = {}
# Set while this thread handles a request; a command has none.
current_request: ContextVar[HttpRequest | None] = ContextVar("audited_request", default=None)


def circumstances(instance: Any) -> dict[str, Any]:
    """Return an entry's columns besides the change itself: its team, who made it, from where, in which request."""
    team_of = team_of_model.get(type(instance))
    facts: dict[str, Any] = {"team_id": team_of(instance) if team_of else None}
    request = current_request.get()
    if request is None:
        return facts | {"actor_name": login(), "via": Via.COMMAND}
    address, trace = address_of(request), getattr(request, "trace", None)
    return facts | {
        **actor_of(request, None if trace is None else trace.policy),
        "via": Via.API if request.path.startswith(tuple(f"/{root}" for root in settings.API_ROOTS)) else Via.ADMIN,
        "remote_addr": None if address is None else str(address),
        "cid": None if trace is None else trace.request_id,
    }


def actor_of(request: HttpRequest, policy: Any) -> dict[str, Any]:
    user: Any = getattr(request, "user", None)
    if policy is not None:
        # A change by a key is not its owner's, so the entry names the key.
        return {"actor_name": f"API key {policy.name} ******{policy.last_four}"}
    if user is None or not user.is_authenticated:
        return {"actor_name": ""}
    return {"actor_id": user.pk, "actor_email": user.email, "actor_name": user.get_username()}


def login() -> str:
    """Return the operating system's name of who runs this, which no environment variable can change."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return "command line"
