"""Messages of conversations in the admin, with the calls of tools and their results."""

import pytest

from apikeys.object_ids import new_object_id
from chat.models import Conversation, Message
from tests.support import factories
from tests.support.pages import staff, text, url

CALLS = {"tool_calls": [{"id": "c1", "function": {"name": "weather", "arguments": '{"city": "Ulm", "days": 2}'}}]}


@pytest.fixture
def conversation():
    return Conversation.objects.create(app=factories.make_app(factories.make_team()), chat_id=factories.unique("chat"))


@pytest.fixture
def client(conversation):
    return staff(conversation.app.team, "chat.view_conversation", "chat.view_message")[1]


def make_message(conversation, role, content, extras=None):
    fields = {"data_id": new_object_id(), "request_id": new_object_id()}
    return Message.objects.create(conversation=conversation, role=role, content=content, extras=extras, **fields)


def page_of(client, message):
    return text(client.get(url(Message, "change", message.pk)))


def test_it_works(conversation, client):
    make_message(conversation, "user", "How is the weather?")
    called = make_message(conversation, "assistant", "", CALLS)
    told = make_message(conversation, "tool", "Rain.", {"tool_call_id": "c1"})
    page = text(client.get(url(Message, "changelist")))
    for words in ("How is the weather?", 'weather({"city": "Ulm", "days": 2})', "Rain.", "tool"):
        assert words in page
    page = page_of(client, called)
    assert 'weather (c1)\n{\n    "city": "Ulm",\n    "days": 2\n}' in page
    assert "The result of c1" in page_of(client, told)


@pytest.mark.parametrize(
    ("role", "content", "extras", "shown"),
    [
        ("assistant", "", {"function_call": {"name": "f", "arguments": "no <b>JSON</b>"}}, "no <b>JSON</b>"),
        ("function", "Rain.", {"name": "f"}, "The result of f"),
        ("assistant", "", {"refusal": "I cannot."}, "The model refused: I cannot."),
        ("assistant", "", {"tool_calls": [{"id": 7, "function": "f"}, {"function": {"name": "g"}}]}, "g\n"),
        ("assistant", "", {"tool_calls": [{"id": "c", "function": {"arguments": "[" * 100_000}}]}, "[[[["),
        ("user", [{"type": "text", "text": "導演"}, {"type": "unknown"}], None, "unknown"),
        ("user", {"no": "text"}, None, "no"),
    ],
)
def test_whatever_there_is(conversation, client, role, content, extras, shown):
    message = make_message(conversation, role, content, extras)
    assert client.get(url(Message, "changelist")).status_code == 200
    page = client.get(url(Message, "change", message.pk))
    assert shown in text(page)
    assert b"<b>JSON" not in page.content
