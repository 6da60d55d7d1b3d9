"""The kinds of keys, as endpoints see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import models
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    pass


class AccessKind(models.TextChoices):
    """What a key is, as endpoints see it."""

    APP = "app", _("app key")
    GLOBAL = "global", _("global key")
    GLOBAL_NAMING_APP = "global_naming_app", _("global key that may name an app")
