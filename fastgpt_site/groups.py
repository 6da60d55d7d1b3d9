"""Groups that are ready to be given to people. Their members act in their own teams alone."""

from typing import Any

from django.apps import AppConfig
from django.apps import apps as installed
from django.contrib.auth.management import create_permissions
from django.db import DEFAULT_DB_ALIAS

READ_ABOUT_KEYS = [
    f"apikeys.view_{model}"
    for model in (
        "team",
        "membership",
        "apikey",
        "keyactivity",
        "limit",
        "usagerecord",
        "dailyusage",
        "refusal",
        "alert",
        "delivery",
        "auditentry",
    )
]
READ_KNOWLEDGE = [f"datasets.view_{model}" for model in ("dataset", "collection", "datum")]
MANAGE_KNOWLEDGE = [
    f"datasets.{right}_{model}"
    for model in ("dataset", "collection", "datum")
    for right in ("view", "add", "change", "delete")
]
# Only permissions of these packages are given here.
LABELS = ("apikeys", "datasets", "chat")
GROUPS = {
    "Key administrator": [
        *READ_ABOUT_KEYS,
        "apikeys.add_apikey",
        "apikeys.change_apikey",
        "apikeys.add_limit",
        "apikeys.change_limit",
        "apikeys.delete_limit",
        "chat.view_app",
    ],
    "Auditor": [
        *READ_ABOUT_KEYS,
        "apikeys.view_webhook",
        "chat.view_app",
        "chat.view_provider",
        "chat.view_catalogmodel",
        "chat.view_route",
        "chat.view_conversation",
        "chat.view_message",
        *READ_KNOWLEDGE,
    ],
    "App editor": [
        "apikeys.view_team",
        "chat.view_app",
        "chat.add_app",
        "chat.change_app",
        "chat.try_app",
        "chat.view_provider",
        "chat.view_catalogmodel",
        "chat.view_route",
        "chat.view_conversation",
        "chat.view_message",
        *MANAGE_KNOWLEDGE,
    ],
}


def complete_groups(apps: Any, using: str = DEFAULT_DB_ALIAS, verbosity: int = 0, **kwargs: Any) -> None:
    """Make the groups, and give them what they lack. Called after each migration, so also with each new version.

    It takes nothing away: who wants a group that may do more adds to it, who wants less makes another.
    """
    try:
        group_model, permission_model = apps.get_model("auth", "Group"), apps.get_model("auth", "Permission")
    except LookupError:
        # A migration backwards may end before there were any permissions.
        return
    for label in LABELS:
        create_permissions(installed.get_app_config(label), verbosity=0, using=using, apps=apps)
    permissions = {
        f"{app}.{codename}": pk
        for app, codename, pk in permission_model.objects.using(using)
        .filter(content_type__app_label__in=LABELS)
        .values_list("content_type__app_label", "codename", "pk")
    }
    for name, names in GROUPS.items():
        group, _ = group_model.objects.using(using).get_or_create(name=name)
        held = set(group.permissions.values_list("pk", flat=True))
        lacking = [permissions[one] for one in names if one in permissions and permissions[one] not in held]
        if lacking:
            group.permissions.add(*lacking)


def after_migration(sender: AppConfig, **kwargs: Any) -> None:
    complete_groups(**kwargs)
