"""Alerts: each is raised once. `messages` has the recipients and the words."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from apikeys.keys.models import ApiKey
from apikeys.teams import Team, TeamOwnedQuerySet


class AlertKind(models.TextChoices):
    BUDGET = "budget", _("a budget reached a threshold")
    EXPIRY = "expiry", _("a key expires soon")
    REUSE = "reuse", _("a rotated secret was used after it expired")


class Alert(models.Model):
    """Something that happened to a key, or to a team's own limit, and was noticed once.

    Budgets are watched by the database's function `settle`, at the moment when a charge crosses a threshold.
    """

    team = models.ForeignKey(Team, verbose_name=_("team"), on_delete=models.CASCADE, related_name="alerts")
    key = models.ForeignKey(
        ApiKey,
        verbose_name=_("key"),
        on_delete=models.CASCADE,
        null=True,
        related_name="alerts",
        help_text=_("Empty: the team as a whole."),
    )
    kind = models.CharField(_("kind"), max_length=10, choices=AlertKind.choices)
    # The key is one of "budget:<limit>:<period's start>:<threshold>", "expiry:<key>:<end>:<days>", "reuse:<secret>".
    dedup_key = models.CharField(_("deduplication key"), max_length=120, unique=True)
    details = models.JSONField(
        _("details"),
        help_text=_(
            "Budget: limit_id, measure, period, time_zone, period_start, amount, used, and percent (50, 80, "
            "100) or soft_amount. Expiry: expires_at, days. Reuse: last_four, ended_at, client_address."
        ),
    )
    created_at = models.DateTimeField(_("created at"), db_default=Now())
    delivered_at = models.DateTimeField(
        _("delivered at"), null=True, help_text=_("When it was delivered to every recipient.")
    )

    objects: ClassVar[Any] = TeamOwnedQuerySet.as_manager()

    class Meta:
        verbose_name = _("alert")
        verbose_name_plural = _("alerts")
        ordering = ["-pk"]
        indexes = [models.Index(fields=["id"], condition=Q(delivered_at=None), name="alert_open")]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} ({self.pk})"
