"""What a key talks to: providers, apps, and the conversations with them."""

from __future__ import annotations

from typing import Any, ClassVar

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models.functions import Now

from apikeys import encryption
from apikeys.models import ObjectIdField, Team, TeamOwnedQuerySet
from apikeys.usage import Ending


class Provider(models.Model):
    """An OpenAI-compatible service of one team, and the secret that opens it."""

    id = ObjectIdField()
    team = models.ForeignKey(Team, on_delete=models.PROTECT, related_name="providers")
    name = models.CharField(max_length=100)
    # A plain text column: Django's URL field would refuse single-label hosts such as http://ollama:11434/v1.
    base_url = models.CharField(
        "base URL",
        max_length=500,
        help_text="Up to and including /v1, such as https://api.example.com/v1. Changing it clears the secret.",
    )
    encrypted_secret = models.BinaryField(null=True, editable=False)
    connect_seconds = models.PositiveSmallIntegerField(
        default=5, validators=[MinValueValidator(1)], help_text="Time limit for opening a connection."
    )
    first_byte_seconds = models.PositiveSmallIntegerField(
        default=60,
        validators=[MinValueValidator(1)],
        help_text="Time limit for the first byte of a streamed answer.",
    )
    between_chunks_seconds = models.PositiveSmallIntegerField(
        default=60, validators=[MinValueValidator(1)], help_text="Time limit between two chunks of a streamed answer."
    )
    total_seconds = models.PositiveSmallIntegerField(
        default=600, validators=[MinValueValidator(1)], help_text="Time limit for a whole answer, streamed or not."
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    objects: ClassVar[Any] = TeamOwnedQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["team", "name"], name="provider_name_once_a_team"),
            # What the composite foreign key (provider, team) of an app points at.
            models.UniqueConstraint(fields=["id", "team"], name="provider_in_team"),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        self.base_url = self.base_url.rstrip("/")
        if not self.base_url.startswith(("http://", "https://")) or any(c in self.base_url for c in "?#@ "):
            raise ValidationError(
                {"base_url": "Give an http or https URL without credentials, query or fragment."}, code="invalid"
            )

    def set_secret(self, secret: str) -> None:
        """Encrypt the provider's own key for the present base URL, or clear it when empty. The caller saves."""
        self.encrypted_secret = encryption.encrypt(f"{self.base_url}\n{secret}") if secret else None

    @property
    def has_secret(self) -> bool:
        return self.encrypted_secret is not None


class Price(models.Model):
    """What a model of a provider costs, in millionths of a point for 1,000 tokens. No row: nothing."""

    provider = models.ForeignKey(Provider, on_delete=models.CASCADE, related_name="prices")
    model = models.CharField(max_length=200, help_text="The model's name, as the provider spells it.")
    prompt_micropoints = models.PositiveBigIntegerField(default=0, validators=[MaxValueValidator(10**12)])
    completion_micropoints = models.PositiveBigIntegerField(default=0, validators=[MaxValueValidator(10**12)])

    class Meta:
        ordering = ["model"]
        constraints = [models.UniqueConstraint(fields=["provider", "model"], name="price_once_a_model")]

    def __str__(self) -> str:
        return self.model


class Dialect(models.TextChoices):
    """How the events of a detailed stream are named."""

    CURRENT = "4.14", "FastGPT 4.14 (flowNodeStatus, flowResponses)"
    CLASSIC = "4.6", "FastGPT 4.6 (moduleStatus, appStreamResponse)"


class App(models.Model):
    """Something to talk to: a model with instructions. Apps are archived, never deleted."""

    id = ObjectIdField()
    team = models.ForeignKey(Team, on_delete=models.PROTECT, related_name="apps")
    name = models.CharField(max_length=100)
    intro = models.CharField(max_length=500, blank=True, help_text="What the app is for, shown in lists.")
    provider = models.ForeignKey(Provider, on_delete=models.PROTECT, related_name="apps")
    model = models.CharField(max_length=200, help_text="The model's name, as the provider spells it.")
    system_prompt = models.TextField(
        blank=True, help_text="Instructions for the model. {{name}} is replaced by the request's variable of that name."
    )
    max_tokens = models.PositiveIntegerField(
        default=1024,
        validators=[MinValueValidator(1), MaxValueValidator(1_000_000)],
        help_text="The longest answer in tokens. A request may ask for less, never for more.",
    )
    temperature = models.FloatField(
        null=True,
        blank=True,
        validators=[MinValueValidator(0.0), MaxValueValidator(2.0)],
        help_text="Empty leaves it to the provider.",
    )
    history_length = models.PositiveSmallIntegerField(
        default=12,
        validators=[MaxValueValidator(200)],
        help_text="How many earlier messages of the conversation the model sees.",
    )
    can_override = models.BooleanField(
        "may be overridden",
        default=False,
        help_text="Lets a request set temperature, top_p, stop, seed and the penalties.",
    )
    dialect = models.CharField(max_length=10, choices=Dialect.choices, default=Dialect.CURRENT)
    archived_at = models.DateTimeField(null=True, blank=True, help_text="An archived app can no longer be called.")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    objects: ClassVar[Any] = TeamOwnedQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        constraints = [
            # What the composite foreign key (app, team) of a key points at.
            models.UniqueConstraint(fields=["id", "team"], name="app_in_team"),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        if self.provider_id and self.team_id and self.provider.team_id != self.team_id:
            raise ValidationError({"provider": "The provider belongs to another team."})


class Conversation(models.Model):
    """One chat with one app, under the id that the caller chose for it."""

    app = models.ForeignKey(App, on_delete=models.PROTECT, related_name="conversations")
    chat_id = models.CharField(max_length=250)
    custom_uid = models.CharField(max_length=1024, blank=True, help_text="Who the caller says the end user is.")
    metadata = models.JSONField(default=dict, blank=True)
    variables = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-updated_at"]
        constraints = [models.UniqueConstraint(fields=["app", "chat_id"], name="conversation_chat_id_once_an_app")]

    def __str__(self) -> str:
        return self.chat_id


class Role(models.TextChoices):
    USER = "user", "user"
    ASSISTANT = "assistant", "assistant"


class Message(models.Model):
    """One question or one answer. Both are written together, when the answer has ended."""

    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="messages")
    data_id = models.CharField(max_length=250)
    role = models.CharField(max_length=10, choices=Role.choices)
    content = models.JSONField(help_text="A string, or a list of parts as OpenAI has them.")
    response_data = models.JSONField(null=True, blank=True, help_text="One result per step of the answer.")
    ending = models.CharField(max_length=10, choices=Ending.choices, default=Ending.COMPLETE)
    # The usage record of the request; not a foreign key, since old records are rolled up and removed.
    request_id = models.CharField(max_length=24)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["pk"]
        constraints = [models.UniqueConstraint(fields=["conversation", "data_id"], name="message_data_id_once_a_chat")]
        indexes = [models.Index(fields=["conversation", "-id"], name="message_latest")]

    def __str__(self) -> str:
        return self.data_id
