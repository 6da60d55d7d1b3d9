"""Rules by which an administrator closes endpoints to kinds of keys at run time."""

from __future__ import annotations

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models, transaction
from django.utils.translation import gettext_lazy as _

from apikeys.keys.kinds import AccessKind


class EndpointRuleManager(models.Manager["EndpointRule"]):
    def denied_kinds(self) -> dict[str, list[str]]:
        """By endpoint, as `policy.may_call` asks for them."""
        return dict(self.values_list("endpoint", "denied_kinds"))

    @transaction.atomic
    def set_open(self, endpoint: str, kind: str, *, is_open: bool) -> EndpointRule | None:
        """Open an endpoint to a kind of key, or close it. Return the rule that changed; None if none had to.

        A rule that denies nothing is deleted.
        """
        rule = self.select_for_update().filter(endpoint=endpoint).first()
        if rule is None and is_open:
            return None
        if rule is None:
            # Where two do this at the same time, one makes it and the other waits for it here.
            self.bulk_create([EndpointRule(endpoint=endpoint)], ignore_conflicts=True)
            rule = self.select_for_update().get(endpoint=endpoint)
        if (kind not in rule.denied_kinds) == is_open:
            return None
        rule.denied_kinds = [known for known in AccessKind.values if (known == kind) != (known in rule.denied_kinds)]
        if rule.denied_kinds:
            rule.save(update_fields=["denied_kinds", "changed_at"])
        else:
            # Its id is kept for the history.
            self.filter(pk=rule.pk).delete()
        return rule


class EndpointRule(models.Model):
    """An administrator has lowered what keys may do at one endpoint. No row: what the code declares."""

    endpoint = models.CharField(_("endpoint"), max_length=100, unique=True)
    denied_kinds = ArrayField(
        models.CharField(max_length=20, choices=AccessKind.choices),
        verbose_name=_("denied kinds"),
        default=list,
        blank=True,
        help_text=_("Kinds of key that may no longer call this endpoint."),
    )
    changed_at = models.DateTimeField(_("changed at"), auto_now=True)

    objects: ClassVar[EndpointRuleManager] = EndpointRuleManager()

    class Meta:
        verbose_name = _("endpoint rule")
        verbose_name_plural = _("endpoint rules")
        ordering = ["endpoint"]

    def __str__(self) -> str:
        return self.endpoint
