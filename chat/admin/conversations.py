"""The admin of conversations and their messages, which people only read."""

from __future__ import annotations

import json

from django.contrib import admin
from django.urls import reverse
from django.utils.html import format_html
from django.utils.text import Truncator
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from apikeys.admin.filters import ScopedListFilter
from apikeys.admin.scope import (
    ReadOnlyAdmin,
)
from chat.completions.request import RESULT_ROLES
from chat.completions.tool_calls import ToolCall, calls_in
from chat.models import Conversation, Message

# The list shows so much of a message: a narrow screen has two lines for it.
SHOWN_CHARACTERS = 55


@admin.register(Conversation)
class ConversationAdmin(ReadOnlyAdmin):
    team_path = "app__team"
    list_display = ("chat_id", "app", "custom_uid", "created_at", "updated_at")
    list_filter = (("app", ScopedListFilter),)
    list_select_related = ("app",)
    search_fields = ("chat_id", "custom_uid", "app__name")
    fields = ("app", "chat_id", "custom_uid", "metadata", "variables", "created_at", "updated_at", "its_messages")
    show_full_result_count = False

    @admin.display(description=_("messages"))
    def its_messages(self, conversation: Conversation) -> str:
        url = reverse("admin:chat_message_changelist")
        return format_html(
            '<a class="site-link" href="{}?conversation__id__exact={}">{}</a>',
            url,
            conversation.pk,
            gettext("Show them"),
        )


@admin.register(Message)
class MessageAdmin(ReadOnlyAdmin):
    team_path = "conversation__app__team"
    fields = readonly_fields = (
        "conversation",
        "data_id",
        "role",
        "content",
        "tools",
        "response_data",
        "outcome",
        "request_id",
        "created_at",
    )
    list_display = ("data_id", "conversation", "role", "text", "outcome", "created_at")
    list_filter = ("role", "outcome")
    list_select_related = ("conversation",)
    search_fields = ("=data_id", "=conversation__chat_id", "=request_id")
    ordering = ("-pk",)
    show_full_result_count = False

    @admin.display(description=_("text"))
    def text(self, message: Message) -> str:
        content, extras = message.content, message.extras or {}
        said = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        calls = [call.text for call in calls_in(extras)]
        return Truncator(" ".join(filter(None, [said, extras.get("refusal"), *calls]))).chars(SHOWN_CHARACTERS)

    @admin.display(description=_("tools"))
    def tools(self, message: Message) -> str | None:
        extras = message.extras
        if not extras:
            return None
        lines = [describe_call(call) for call in calls_in(extras)]
        if message.role in RESULT_ROLES:
            named = extras.get("tool_call_id") or extras.get("name") or ""
            lines.append(gettext("The result of %(call)s") % {"call": named})
        if extras.get("refusal"):
            lines.append(gettext("The model refused: %(text)s") % {"text": extras["refusal"]})
        return format_html('<pre class="explanation">{}</pre>', "\n\n".join(lines))


def describe_call(call: ToolCall) -> str:
    try:
        arguments = json.dumps(json.loads(call.arguments), ensure_ascii=False, indent=4)
    except (ValueError, RecursionError):
        arguments = call.arguments
    heading = f"{call.name} ({call.id})" if call.id else call.name
    return f"{heading}\n{arguments}"
