"""Pages of the admin: people who are signed in, and forms as a browser sends them."""

import html
import re
from html.parser import HTMLParser
from typing import Any

from django.db.models import Model
from django.test import Client
from django.urls import reverse

from apikeys.admin.keys.forms import policy_etag
from apikeys.keys.models import ApiKey
from apikeys.teams import Team
from tests.support import factories

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
    """Return a new member of the team with these permissions, by default those over keys, and a browser."""
    user = factories.make_user(team, permissions=permissions or KEY_RIGHTS)
    return user, browser(user)


def hidden(page: str, name: str) -> str:
    """Return the value of a hidden field of a page."""
    found = re.search(rf'<input type="hidden" name="{name}" value="([^"]*)"', page)
    assert found, f"no hidden field {name}"
    return html.unescape(found[1])


class FilledForm(HTMLParser):
    """The first form of a page whose id is given, as a browser sends it when nobody touches it."""

    def __init__(self, page: str, form_id: str) -> None:
        super().__init__()
        self.fields: dict[str, list[str]] = {}
        self.form_id, self.is_in, self.open, self.is_text = form_id, False, "", False
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        told = dict(attributes)
        if tag == "form":
            self.is_in = told.get("id") == self.form_id
        name, kind = told.get("name") or "", told.get("type")
        if not self.is_in or "disabled" in told:
            return
        if tag in ("textarea", "select"):
            self.open, self.is_text = name, tag == "textarea"
            if self.is_text:
                self.fields[name] = [""]
        elif tag == "option" and "selected" in told:
            self.fields.setdefault(self.open, []).append(told.get("value") or "")
        elif name and is_sent(kind, told):
            self.fields.setdefault(name, []).append(told.get("value") or "on" * (kind == "checkbox"))

    def handle_data(self, data: str) -> None:
        if self.is_in and self.is_text:
            # The first line break after the tag is no part of the text.
            self.fields[self.open] = [data.removeprefix("\r").removeprefix("\n").replace("\n", "\r\n")]

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self.is_in = False
        elif tag == "textarea":
            self.is_text = False


def is_sent(kind: str | None, told: dict[str, str | None]) -> bool:
    return "checked" in told if kind in ("checkbox", "radio") else kind in ("hidden", "number", "text")


def text(response: Any) -> str:
    """Return a page nearly as a person reads it."""
    return html.unescape(response.content.decode())


def app_form(**fields: Any) -> dict[str, Any]:
    """Return the form of an app with all required fields but team and model."""
    form = {"name": "new", "max_tokens": 10, "history_length": 2, "dialect": "4.14"}
    return form | {"search_mode": "embedding", "similarity": 0, "quote_limit": 1000} | fields


def new_key_form(client: Client, **fields: Any) -> dict[str, Any]:
    """Return the form of a new key as its page gives it, filled in."""
    reservation = hidden(client.get(ADD).content.decode(), "reservation")
    kind = "app" if "app" in fields else "global"
    ends = "date" if "expires_at_0" in fields else "never"
    return {"reservation": reservation, "name": factories.unique("key"), "kind": kind, "ends": ends, **fields}


def key_form(api_key: ApiKey, **fields: Any) -> dict[str, Any]:
    """Return the form on a key's page, unchanged but for `fields`."""
    form = {
        "etag": policy_etag(ApiKey.objects.get(pk=api_key.pk)),
        "owner": api_key.owner_id,
        "name": api_key.name,
        "note": api_key.note,
        "allowed_networks": "\r\n".join(api_key.allowed_networks),
        "allowed_endpoints": api_key.allowed_endpoints,
        "allowed_models": "\r\n".join(api_key.allowed_models),
    }
    return form | ({"can_name_app": "on"} if api_key.can_name_app else {}) | fields
