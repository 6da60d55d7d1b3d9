"""The ledger: what keys used, one row for each accepted request or day, and when each was last used."""

from typing import Any, ClassVar

from django.db import models
from django.db.models import Q
from django.db.models.functions import Coalesce, Now
from django.utils.translation import gettext_lazy as _

from apikeys.keys.models import ApiKey, KeySecret
from apikeys.teams import Team, TeamOwnedQuerySet, unconstrained_key


class KeyActivity(models.Model):
    """When a key was last used. A table of its own, so that the write on every request wakes no trigger."""

    key = models.OneToOneField(
        ApiKey, verbose_name=_("key"), on_delete=models.CASCADE, primary_key=True, related_name="activity"
    )
    last_used_at = models.DateTimeField(_("last used at"))
    last_used_from = models.GenericIPAddressField(_("last used from"), null=True)

    class Meta:
        verbose_name = _("key activity")
        verbose_name_plural = _("key activity")

    def __str__(self) -> str:
        return str(self.key)


class Outcome(models.TextChoices):
    """How an accepted request ended."""

    COMPLETE = "complete", _("complete")
    CANCELLED = "cancelled", _("cancelled by the caller")
    TERMINATED = "terminated", _("terminated by an administrator")
    FAILED = "failed", _("failed")
    LOST = "lost", _("lost with its server")


class TokenSource(models.TextChoices):
    """Where a token count comes from."""

    PROVIDER = "provider", _("reported by the provider")
    BOUND = "bound", _("our upper bound from the text")


class UsageRecord(models.Model):
    """One accepted request, written once. Its id is the answer's X-Request-Id.

    The foreign keys have no database constraint: what they point at is never removed, and checking
    them would lock the row of a busy key in every batch. Nor has each an index: every index is written to with
    every record, and those by time serve all who ask.
    """

    id = models.CharField(_("ID"), max_length=24, primary_key=True)
    # It is indexed together with the time, below.
    team = unconstrained_key(Team, _("team"))
    key = unconstrained_key(ApiKey, _("key"), related_name="usage")
    app = unconstrained_key("chat.App", _("app"), null=True)
    endpoint = models.CharField(_("endpoint"), max_length=100)
    model = models.CharField(_("model"), max_length=200, blank=True)
    prompt_tokens = models.PositiveIntegerField(_("prompt tokens"), default=0)
    completion_tokens = models.PositiveIntegerField(_("completion tokens"), default=0)
    token_source = models.CharField(_("token source"), max_length=10, choices=TokenSource.choices, blank=True)
    cost_micropoints = models.PositiveBigIntegerField(_("cost micropoints"), default=0)
    prompt_price = models.PositiveBigIntegerField(
        _("prompt price"),
        db_default=0,
        help_text=_("The price of 1,000 prompt tokens at that time, in millionths of a point."),
    )
    completion_price = models.PositiveBigIntegerField(
        _("completion price"),
        db_default=0,
        help_text=_("The price of 1,000 completion tokens at that time, in millionths of a point."),
    )
    limits = models.JSONField(
        _("limits"),
        null=True,
        help_text=_("Each limit as the request found it and how much it requested, then limits created while it ran."),
    )
    charges = models.JSONField(
        _("charges"),
        null=True,
        help_text=_("By limit id: what was charged, and what was used and reserved afterwards."),
    )
    status = models.PositiveSmallIntegerField(_("status"), help_text=_("The HTTP status of the response."))
    outcome = models.CharField(_("outcome"), max_length=10, choices=Outcome.choices)
    failure = models.JSONField(
        _("failure"), null=True, help_text=_("What the provider said when it failed: its status, code and message.")
    )
    attempts = models.JSONField(
        _("attempts"),
        null=True,
        help_text=_("The routes that were tried, in order, if the model has several: the last one gave the answer."),
    )
    details = models.JSONField(
        _("details"),
        null=True,
        help_text=_("Cached and reasoning tokens, which are part of the counts above, and images, with their prices."),
    )
    time_to_first_byte_ms = models.PositiveIntegerField(_("time to first byte ms"), null=True)
    duration_ms = models.PositiveIntegerField(_("duration ms"))
    client_address = models.GenericIPAddressField(_("client address"), null=True)
    created_at = models.DateTimeField(_("created at"), db_default=Now())

    class Meta:
        verbose_name = _("usage record")
        verbose_name_plural = _("usage records")
        indexes = [
            models.Index(fields=["key", "-created_at"], name="usage_by_key"),
            models.Index(fields=["team", "-created_at"], name="usage_by_team"),
            models.Index(fields=["app", "-created_at"], name="usage_by_app"),
            models.Index(fields=["outcome", "-id"], condition=~Q(outcome="complete"), name="usage_not_complete"),
        ]

    def __str__(self) -> str:
        return self.id


class DailyUsage(models.Model):
    """The sums that are left of one UTC day's usage records once they are pruned, for each way to distinguish them.

    A request is either here or a usage record, never both: `retention` moves it in one transaction.
    """

    day = models.DateField(_("day"), help_text=_("In UTC."))
    # It is indexed together with the day, below; foreign keys have no constraint, as in UsageRecord.
    team = unconstrained_key(Team, _("team"))
    key = unconstrained_key(ApiKey, _("key"), related_name="daily_usage")
    app = unconstrained_key("chat.App", _("app"), null=True)
    endpoint = models.CharField(_("endpoint"), max_length=100)
    model = models.CharField(_("model"), max_length=200, blank=True)
    outcome = models.CharField(_("outcome"), max_length=10, choices=Outcome.choices)
    token_source = models.CharField(_("token source"), max_length=10, choices=TokenSource.choices, blank=True)
    requests = models.PositiveBigIntegerField(_("requests"))
    prompt_tokens = models.PositiveBigIntegerField(_("prompt tokens"))
    completion_tokens = models.PositiveBigIntegerField(_("completion tokens"))
    cost_micropoints = models.PositiveBigIntegerField(_("cost micropoints"))
    duration_ms = models.PositiveBigIntegerField(_("duration ms"), help_text=_("The total of all its requests."))

    class Meta:
        verbose_name = _("daily usage")
        verbose_name_plural = _("daily usage")
        constraints = [
            # Two absent apps are the same app here; PostgreSQL has another way to declare it only from version 15 on.
            models.UniqueConstraint(
                "day",
                "team",
                "key",
                Coalesce("app", models.Value(""), output_field=models.CharField()),
                "endpoint",
                "model",
                "outcome",
                "token_source",
                name="daily_usage_once",
            ),
        ]
        indexes = [
            models.Index(fields=["team", "day"], name="daily_usage_by_team"),
            models.Index(fields=["key", "day"], name="daily_usage_by_key"),
        ]

    def __str__(self) -> str:
        return f"{self.day}, {self.model or self.endpoint}"


class Refusal(models.Model):
    """One refused request, of a key that is known or of none. Its id is the answer's X-Request-Id.

    Above a rate only one of many is kept, and says for how many it stands. Foreign keys as in UsageRecord.
    """

    id = models.CharField(_("ID"), max_length=24, primary_key=True)
    team = unconstrained_key(Team, _("team"), null=True)
    key = unconstrained_key(ApiKey, _("key"), null=True, related_name="refusals")
    endpoint = models.CharField(_("endpoint"), max_length=100, blank=True)
    status = models.PositiveSmallIntegerField(_("status"), help_text=_("The HTTP status of the response."))
    code = models.CharField(_("code"), max_length=50, help_text=_("The error.code of the response."))
    message = models.CharField(_("message"), max_length=1000, help_text=_("The error.message of the response."))
    requested = models.JSONField(
        _("requested"), null=True, help_text=_("The most that it could have used, if limits were checked.")
    )
    limits = models.JSONField(_("limits"), null=True, help_text=_("Each limit as the request found it."))
    refused_by = models.BigIntegerField(
        _("refused by"), null=True, help_text=_("The id of the limit that refused the request.")
    )
    sample_weight = models.PositiveIntegerField(
        _("sample weight"), default=1, help_text=_("How many similar refusals this record represents.")
    )
    client_address = models.GenericIPAddressField(_("client address"), null=True)
    created_at = models.DateTimeField(_("created at"), db_default=Now())

    objects: ClassVar[Any] = TeamOwnedQuerySet.as_manager()

    class Meta:
        verbose_name = _("refusal")
        verbose_name_plural = _("refusals")
        indexes = [
            models.Index(fields=["key", "-created_at"], name="refusal_by_key"),
            models.Index(fields=["team", "-created_at"], name="refusal_by_team"),
        ]

    def __str__(self) -> str:
        return self.id


class SecretReuse(models.Model):
    """A secret that was presented after its end by rotation: somebody still has it, and perhaps should not."""

    secret = models.OneToOneField(
        KeySecret, verbose_name=_("secret"), on_delete=models.CASCADE, primary_key=True, related_name="reuse"
    )
    count = models.PositiveBigIntegerField(_("count"))
    first_at = models.DateTimeField(_("first at"), db_default=Now())
    last_at = models.DateTimeField(_("last at"), db_default=Now())
    last_from = models.GenericIPAddressField(_("last from"), null=True)

    class Meta:
        verbose_name = _("reuse of a secret")
        verbose_name_plural = _("reuses of secrets")

    def __str__(self) -> str:
        return f"{self.count} times"
