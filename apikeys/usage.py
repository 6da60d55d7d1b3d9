"""The ledger: what keys used, one row for each accepted request, and when each was last used."""

from django.db import models
from django.db.models.functions import Now

from apikeys.models import ApiKey, Team


class KeyActivity(models.Model):
    """When a key was last used. A table of its own, so that the write on every request wakes no trigger."""

    key = models.OneToOneField(ApiKey, on_delete=models.CASCADE, primary_key=True, related_name="activity")
    last_used_at = models.DateTimeField()
    last_used_from = models.GenericIPAddressField(null=True)

    class Meta:
        verbose_name_plural = "key activity"

    def __str__(self) -> str:
        return f"{self.key_id} at {self.last_used_at}"


class Ending(models.TextChoices):
    """How an accepted request ended."""

    COMPLETE = "complete", "complete"
    CANCELLED = "cancelled", "cancelled by the caller"
    FAILED = "failed", "failed"
    LOST = "lost", "lost with its server"


class TokenSource(models.TextChoices):
    """Where a token count comes from."""

    PROVIDER = "provider", "reported by the provider"
    BOUND = "bound", "our upper bound from the text"


class UsageRecord(models.Model):
    """One accepted request, written once. Its id is the answer's X-Request-Id.

    The foreign keys have no database constraint: what they point at is never removed, and checking
    them would lock the row of a busy key in every batch.
    """

    id = models.CharField(max_length=24, primary_key=True)
    team = models.ForeignKey(Team, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+")
    key = models.ForeignKey(ApiKey, on_delete=models.DO_NOTHING, db_constraint=False, related_name="usage")
    app = models.ForeignKey("chat.App", on_delete=models.DO_NOTHING, db_constraint=False, null=True, related_name="+")
    endpoint = models.CharField(max_length=100)
    model = models.CharField(max_length=200, blank=True)
    prompt_tokens = models.PositiveIntegerField(default=0)
    completion_tokens = models.PositiveIntegerField(default=0)
    token_source = models.CharField(max_length=10, choices=TokenSource.choices, blank=True)
    cost_micropoints = models.PositiveBigIntegerField(default=0)
    status = models.PositiveSmallIntegerField(help_text="The HTTP status of the answer.")
    ending = models.CharField(max_length=10, choices=Ending.choices)
    time_to_first_byte_ms = models.PositiveIntegerField(null=True)
    duration_ms = models.PositiveIntegerField()
    client_address = models.GenericIPAddressField(null=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = [
            models.Index(fields=["key", "-created_at"], name="usage_by_key"),
            models.Index(fields=["team", "-created_at"], name="usage_by_team"),
        ]

    def __str__(self) -> str:
        return self.id
