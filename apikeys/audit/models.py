"""The audit: entries that nobody can change."""

from __future__ import annotations

from typing import Any, ClassVar

from auditlog.models import AbstractLogEntry, LogEntryManager
from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from apikeys.audit.circumstances import Via, circumstances
from apikeys.teams import unconstrained_key


class AuditEntryManager(LogEntryManager):  # type: ignore[misc]
    def log_create(self, instance: Any, force_log: bool = False, **kwargs: Any) -> Any:
        return super().log_create(instance, force_log, **{**circumstances(instance), **kwargs})

    def log_m2m_changes(
        self, changed_queryset: Any, instance: Any, operation: str, field_name: str, **kwargs: Any
    ) -> Any:
        return super().log_m2m_changes(
            changed_queryset, instance, operation, field_name, **{**circumstances(instance), **kwargs}
        )


class AuditEntry(AbstractLogEntry):  # type: ignore[misc]
    """One change of one row, field by field. The database refuses to change an entry, and to delete a young one.

    Its foreign keys have no constraint: an entry outlives the team and the person that it names.
    """

    team = unconstrained_key("apikeys.Team", _("team"), null=True, help_text=_("Empty: it concerns the whole site."))
    actor = unconstrained_key(settings.AUTH_USER_MODEL, _("actor"), db_index=True, null=True)
    actor_name = models.CharField(
        _("done by"),
        max_length=150,
        help_text=_("The username or, for a command, the operating system login."),
    )
    via = models.CharField(_("via"), max_length=10, choices=Via.choices)

    objects: ClassVar[Any] = AuditEntryManager()

    class Meta:
        verbose_name = _("audit entry")
        verbose_name_plural = _("audit entries")
        ordering = ["-id"]
        indexes = [models.Index(fields=["team", "-id"], name="audit_newest_of_team")]
