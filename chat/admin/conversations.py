"""The admin of conversations and their messages, which people only read."""

from __future__ import annotations

from django.contrib import admin
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from apikeys.admin.filters import ScopedListFilter
from apikeys.admin.scope import (
    ReadOnlyAdmin,
)
from chat.models import Conversation, Message


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
        "response_data",
        "outcome",
        "request_id",
        "created_at",
    )
    list_display = ("data_id", "conversation", "role", "outcome", "created_at")
    list_filter = ("role", "outcome")
    list_select_related = ("conversation",)
    search_fields = ("=data_id", "=conversation__chat_id", "=request_id")
    ordering = ("-pk",)
    show_full_result_count = False
