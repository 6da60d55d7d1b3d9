"""Translated names of permissions. The names that Django stores stay in English."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Permission
from django.http import HttpRequest
from django.utils import translation
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy, gettext_noop

from apikeys.admin.scope import AnyModelAdmin, AnyModelMultipleChoiceField

ACTIONS = {
    "add": gettext_lazy("add"),
    "change": gettext_lazy("change"),
    "delete": gettext_lazy("delete"),
    "view": gettext_lazy("view"),
    "try": gettext_lazy("try"),
}
# These models name themselves in English alone, since people see them nowhere else.
UNTRANSLATED = [
    gettext_noop("hourly refusals"),
    gettext_noop("hourly total"),
    gettext_noop("hourly usage"),
    gettext_noop("late hour"),
    gettext_noop("leader"),
    gettext_noop("leaderboard"),
    gettext_noop("rollup watermark"),
    gettext_noop("sign in count"),
    gettext_noop("procrastinate event"),
    gettext_noop("procrastinate periodic defer"),
    gettext_noop("procrastinate worker"),
]


def name_of(permission: Permission) -> str:
    """Return a name such as "API key | add", or Django's own if the permission is of an app that is gone."""
    action = ACTIONS.get(permission.codename.partition("_")[0])
    model: Any = permission.content_type.model_class()
    if action is None or model is None:
        return permission.name
    return f"{capfirst(translation.gettext(str(model._meta.verbose_name)))} | {action}"


class PermissionChoice(AnyModelMultipleChoiceField):
    def label_from_instance(self, obj: Permission) -> str:
        return name_of(obj)


class PermissionsNamed(AnyModelAdmin):
    """Offers permissions under their translated names."""

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.related_model is Permission:
            kwargs["form_class"] = PermissionChoice
        return super().formfield_for_manytomany(db_field, request, **kwargs)
