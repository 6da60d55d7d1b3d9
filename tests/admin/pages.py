"""What tests of the admin share: signed-in people, and its forms as a browser would send them."""

import html
import re
from typing import Any

from django.db.models import Model
from django.test import Client
from django.urls import reverse

from apikeys.models import ApiKey, Team
from tests import factories

KEY_RIGHTS = ("apikeys.view_apikey", "apikeys.add_apikey", "apikeys.change_apikey")
KEY = re.compile(r"fastgpt-[a-z][0-9A-Za-z]{51}")


def url(model: type[Model], page: str, *arguments: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=arguments)


ADD = url(ApiKey, "add")
LIST = url(ApiKey, "changelist")


def page_of(api_key: ApiKey, page: str = "change") -> str:
    return url(ApiKey, page, api_key.pk)


def browser(user: Any) -> Client:
    client = Client()
    client.force_login(user)
    return client


def staff(team: Team, *permissions: str) -> tuple[Any, Client]:
    """A member of the team with these permissions, or those over keys."""
    user = factories.make_user(team, permissions=permissions or KEY_RIGHTS)
    return user, browser(user)


def hidden(page: str, name: str) -> str:
    """The value of a hidden field of a page."""
    found = re.search(rf'<input type="hidden" name="{name}" value="([^"]*)"', page)
    assert found, f"no hidden field {name}"
    return html.unescape(found[1])


def text(response: Any) -> str:
    """A page as a person reads it, or nearly so."""
    return html.unescape(response.content.decode())


def new_key_form(client: Client, **fields: Any) -> dict[str, Any]:
    """The form of a new key as its page gives it, filled in."""
    reservation = hidden(client.get(ADD).content.decode(), "reservation")
    kind = "app" if "app" in fields else "global"
    ends = "date" if "expires_at_0" in fields else "never"
    return {"reservation": reservation, "name": factories.unique("key"), "kind": kind, "ends": ends, **fields}


def key_form(api_key: ApiKey, **fields: Any) -> dict[str, Any]:
    """The form on a key's page, unchanged but for `fields`."""
    form = {
        "owner": api_key.owner_id,
        "name": api_key.name,
        "note": api_key.note,
        "allowed_networks": "\r\n".join(api_key.allowed_networks),
        "allowed_endpoints": api_key.allowed_endpoints,
        "allowed_models": "\r\n".join(api_key.allowed_models),
    }
    return form | ({"can_name_app": "on"} if api_key.can_name_app else {}) | fields
