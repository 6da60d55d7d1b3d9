"""The kinds of keys that endpoints distinguish."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class AccessKind(models.TextChoices):
    APP = "app", _("app key")
    GLOBAL = "global", _("global key")
    GLOBAL_NAMING_APP = "global_naming_app", _("global key that may name an app")
