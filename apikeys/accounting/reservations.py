"""Reservations: the most that requests under way may still use."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.utils.translation import gettext_lazy as _

from apikeys.keys.models import ApiKey
from apikeys.teams import Team, unconstrained_key


class Reservation(models.Model):
    """The most that one admitted request may still use, at every limit it met: its prompt's bound and longest answer.

    Its foreign keys have no constraint and no index: the row comes and goes with a request, found by its id.
    """

    id = models.CharField(_("ID"), max_length=24, primary_key=True)
    server_id = models.CharField(_("server ID"), max_length=24)
    # The row is written and removed with every request and found by its id, so no index is kept of these.
    team = unconstrained_key(Team, _("team"))
    key = unconstrained_key(ApiKey, _("key"))
    app = unconstrained_key("chat.App", _("app"), null=True)
    endpoint = models.CharField(_("endpoint"), max_length=100)
    model = models.CharField(_("model"), max_length=200, blank=True)
    prompt_tokens = models.PositiveIntegerField(_("prompt tokens"))
    prompt_micropoints = models.PositiveBigIntegerField(_("prompt micropoints"))
    prompt_price = models.PositiveBigIntegerField(_("prompt price"), db_default=0)
    completion_price = models.PositiveBigIntegerField(_("completion price"), db_default=0)
    # The ledger explains the record by each limit as the request found it, and by what was requested there.
    limits_seen = models.JSONField(_("limits seen"), null=True)
    limit_ids = ArrayField(models.BigIntegerField(), verbose_name=_("limit ids"))
    amounts = ArrayField(models.BigIntegerField(), verbose_name=_("amounts"))
    period_starts = ArrayField(models.DateTimeField(), verbose_name=_("period starts"))
    admitted_at = models.DateTimeField(_("admitted at"))

    class Meta:
        verbose_name = _("reservation")
        verbose_name_plural = _("reservations")
        indexes = [models.Index(fields=["server_id"], name="reservation_by_server")]

    def __str__(self) -> str:
        return self.id
