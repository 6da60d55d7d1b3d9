"""An app whose provider behaves as a test needs it, and what became of a request to it."""

import json
from typing import Any

import httpx2

from apikeys.accounting.ledger import UsageRecord
from chat.models import App, Message
from tests.support import factories
from tests.support.fake_provider import FakeProvider


def make_app(provider: FakeProvider, model: str = "echo", limits: dict[str, int] | None = None, **fields: Any) -> App:
    team = fields.pop("team", None) or factories.make_team()
    return factories.make_app(
        team, factories.make_provider(team, provider.url, **(limits or {})), model=model, **fields
    )


def make_app_key(provider: FakeProvider, model: str = "echo", **options: Any) -> str:
    """Return the key of a new app whose provider behaves as `model` says."""
    return factories.make_key(app=make_app(provider, model, **options))[1]


def record_of(response: httpx2.Response) -> UsageRecord:
    return UsageRecord.objects.get(pk=response.headers["x-request-id"])


def content_of(response: httpx2.Response) -> str:
    assert response.status_code == 200, response.text
    content: str = response.json()["choices"][0]["message"]["content"]
    return content


def messages_of(key_app: App, chat_id: str) -> list[tuple[str, Any, str]]:
    """Return (role, content, outcome) of each stored message, oldest first."""
    found = Message.objects.filter(conversation__app=key_app, conversation__chat_id=chat_id).order_by("pk")
    return list(found.values_list("role", "content", "outcome"))


def events_of(text: str) -> list[tuple[str | None, Any]]:
    """Return (event, data) of each server-sent event, with data decoded where it is JSON."""
    events: list[tuple[str | None, Any]] = []
    for block in text.split("\n\n"):
        name, data = None, None
        for line in block.split("\n"):
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                data = value if value == "[DONE]" else json.loads(value)
        if data is not None:
            events.append((name, data))
    return events


def text_of(events: list[tuple[str | None, Any]]) -> str:
    chunks = [data for _, data in events if isinstance(data, dict) and data.get("choices")]
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
