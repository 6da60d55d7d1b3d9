"""Providers, apps, and the conversations that keys have with them."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from apikeys import encryption
from apikeys.accounting.ledger import Outcome
from apikeys.teams import ObjectIdField, Team, TeamOwnedQuerySet, unconstrained_key
from datasets.models import Dataset


class Provider(models.Model):
    """An OpenAI-compatible service of one team, and the secret that opens it."""

    id = ObjectIdField()
    team = models.ForeignKey(Team, verbose_name=_("team"), on_delete=models.PROTECT, related_name="providers")
    name = models.CharField(_("name"), max_length=100)
    # A plain text column: Django's URL field would refuse single-label hosts such as http://ollama:11434/v1.
    base_url = models.CharField(
        _("base URL"),
        max_length=500,
        help_text=_("Up to and including /v1, such as https://api.example.com/v1. Changing it clears the secret."),
    )
    encrypted_secret = models.BinaryField(_("encrypted secret"), null=True, editable=False)
    connect_seconds = models.PositiveSmallIntegerField(
        _("connect seconds"),
        default=5,
        validators=[MinValueValidator(1)],
        help_text=_("Time limit for opening a connection."),
    )
    first_byte_seconds = models.PositiveSmallIntegerField(
        _("first byte seconds"),
        default=60,
        validators=[MinValueValidator(1)],
        help_text=_("Time limit for the first byte of a streamed answer."),
    )
    between_chunks_seconds = models.PositiveSmallIntegerField(
        _("between chunks seconds"),
        default=60,
        validators=[MinValueValidator(1)],
        help_text=_("Time limit between two chunks of a streamed answer."),
    )
    total_seconds = models.PositiveSmallIntegerField(
        _("total seconds"),
        default=600,
        validators=[MinValueValidator(1)],
        help_text=_("Time limit for a whole answer, streamed or not."),
    )
    created_at = models.DateTimeField(_("created at"), db_default=Now(), editable=False)

    objects: ClassVar[Any] = TeamOwnedQuerySet.as_manager()

    class Meta:
        verbose_name = _("provider")
        verbose_name_plural = _("providers")
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["team", "name"], name="provider_name_once_a_team"),
            # The composite foreign key (provider, team) of an app points at this.
            models.UniqueConstraint(fields=["id", "team"], name="provider_in_team"),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        self.base_url = self.base_url.rstrip("/")
        if not self.base_url.startswith(("http://", "https://")) or any(c in self.base_url for c in "?#@ "):
            raise ValidationError(
                {"base_url": "Enter an http or https URL without credentials, query or fragment."}, code="invalid"
            )

    def set_secret(self, secret: str) -> None:
        """Encrypt the provider's own key for the present base URL, or clear it when empty. The caller saves."""
        self.encrypted_secret = encryption.seal(secret, self.base_url) if secret else None

    @property
    def has_secret(self) -> bool:
        return self.encrypted_secret is not None


class Price(models.Model):
    """The price of a provider's model, in millionths of a point for 1,000 tokens. A model without a row is free."""

    provider = models.ForeignKey(Provider, verbose_name=_("provider"), on_delete=models.CASCADE, related_name="prices")
    model = models.CharField(_("model"), max_length=200, help_text=_("The model's name, as the provider spells it."))
    prompt_micropoints = models.PositiveBigIntegerField(
        _("prompt micropoints"), default=0, validators=[MaxValueValidator(10**12)]
    )
    completion_micropoints = models.PositiveBigIntegerField(
        _("completion micropoints"), default=0, validators=[MaxValueValidator(10**12)]
    )

    class Meta:
        verbose_name = _("price")
        verbose_name_plural = _("prices")
        ordering = ["model"]
        constraints = [models.UniqueConstraint(fields=["provider", "model"], name="price_once_a_model")]

    def __str__(self) -> str:
        return self.model


class Dialect(models.TextChoices):
    """How the events of a detailed stream are named."""

    CURRENT = "4.14", _("FastGPT 4.14 (flowNodeStatus, flowResponses)")
    CLASSIC = "4.6", _("FastGPT 4.6 (moduleStatus, appStreamResponse)")


class SearchMode(models.TextChoices):
    """How an app's datasets are searched. The values are FastGPT's, and those of `datasets.search.retrieval.Mode`."""

    EMBEDDING = "embedding", _("by meaning")
    FULL_TEXT = "fullTextRecall", _("by words")
    MIXED = "mixedRecall", _("by both")


# An app's texts for its quotes have at most so many characters.
MAXIMUM_TEMPLATE = 10_000


class App(models.Model):
    """Something to talk to: a model with instructions. Apps are archived, never deleted."""

    id = ObjectIdField()
    team = models.ForeignKey(Team, verbose_name=_("team"), on_delete=models.PROTECT, related_name="apps")
    name = models.CharField(_("name"), max_length=100)
    intro = models.CharField(
        _("intro"), max_length=500, blank=True, help_text=_("What the app is for, shown in lists.")
    )
    provider = models.ForeignKey(Provider, verbose_name=_("provider"), on_delete=models.PROTECT, related_name="apps")
    model = models.CharField(_("model"), max_length=200, help_text=_("The model's name, as the provider spells it."))
    system_prompt = models.TextField(
        _("system prompt"),
        blank=True,
        help_text=_("Instructions for the model. {{name}} is replaced by the request's variable of that name."),
    )
    max_tokens = models.PositiveIntegerField(
        _("max tokens"),
        default=1024,
        validators=[MinValueValidator(1), MaxValueValidator(1_000_000)],
        help_text=_("The longest answer in tokens. A request may ask for less, never for more."),
    )
    temperature = models.FloatField(
        _("temperature"),
        null=True,
        blank=True,
        validators=[MinValueValidator(0.0), MaxValueValidator(2.0)],
        help_text=_("Empty leaves it to the provider."),
    )
    history_length = models.PositiveSmallIntegerField(
        _("history length"),
        default=12,
        validators=[MaxValueValidator(200)],
        help_text=_("How many earlier messages of the conversation the model sees."),
    )
    can_override = models.BooleanField(
        _("may be overridden"),
        default=False,
        help_text=_(
            "Lets a request set temperature, top_p, stop, seed, the penalties, logit_bias, reasoning_effort and "
            "service_tier."
        ),
    )
    passes_tools = models.BooleanField(
        _("passes tools"),
        null=True,
        blank=True,
        choices=[(None, _("unless it has datasets")), (True, _("always")), (False, _("never"))],
        help_text=_("Lets a request send tools, functions and the format of the answer to the model."),
    )
    dialect = models.CharField(_("dialect"), max_length=10, choices=Dialect.choices, default=Dialect.CURRENT)
    datasets = models.ManyToManyField(
        Dataset,
        verbose_name=_("datasets"),
        through="AppDataset",
        related_name="apps",
        blank=True,
        help_text=_("Knowledge bases that are searched for each question; what is found is quoted to the model."),
    )
    search_mode = models.CharField(
        _("search mode"), max_length=20, choices=SearchMode.choices, default=SearchMode.EMBEDDING
    )
    similarity = models.FloatField(
        _("similarity"),
        default=0.0,
        validators=[MinValueValidator(0.0), MaxValueValidator(1.0)],
        help_text=_("From 0 to 1: results that are less similar to the question are not quoted."),
    )
    quote_limit = models.PositiveIntegerField(
        _("quote limit"),
        default=1_500,
        validators=[MinValueValidator(100), MaxValueValidator(20_000)],
        help_text=_("The maximum number of tokens in all quotes combined."),
    )
    uses_rerank = models.BooleanField(
        _("uses rerank"),
        default=False,
        help_text=_("Reorders the results with the dataset's rerank model, if it has one."),
    )
    quote_template = models.TextField(
        _("quote template"),
        blank=True,
        max_length=MAXIMUM_TEMPLATE,
        help_text=_(
            "How one quote is written: {{q}} and {{a}} are its texts, {{source}} is the name of its collection, "
            "{{index}} its number. Empty: number, source and texts, one below the other."
        ),
    )
    quote_prompt = models.TextField(
        _("quote prompt"),
        blank=True,
        max_length=MAXIMUM_TEMPLATE,
        help_text=_(
            "What the model is asked in place of the question: {{quote}} stands for all quotes, {{question}} for the "
            "question. Empty: to answer the question from the quotes."
        ),
    )
    empty_answer = models.TextField(
        _("empty answer"),
        blank=True,
        max_length=MAXIMUM_TEMPLATE,
        help_text=_(
            "The answer when nothing was found; the model is not called then. Empty: the model is called anyway."
        ),
    )
    archived_at = models.DateTimeField(
        _("archived at"), null=True, blank=True, help_text=_("An archived app can no longer be called.")
    )
    created_at = models.DateTimeField(_("created at"), db_default=Now(), editable=False)
    updated_at = models.DateTimeField(_("updated at"), auto_now=True)

    objects: ClassVar[Any] = TeamOwnedQuerySet.as_manager()

    class Meta:
        verbose_name = _("app")
        verbose_name_plural = _("apps")
        ordering = ["name"]
        permissions = [("try_app", "Can try app")]
        constraints = [
            # The composite foreign key (app, team) of a key points at this.
            models.UniqueConstraint(fields=["id", "team"], name="app_in_team"),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        if self.provider_id and self.team_id and self.provider.team_id != self.team_id:
            raise ValidationError({"provider": _("The provider belongs to another team.")})
        if self.quote_prompt and [len(re.findall(name, self.quote_prompt)) for name in IN_QUOTE_PROMPT] != [1, 1]:
            raise ValidationError({"quote_prompt": _("It must contain {{quote}} once and {{question}} once.")})


IN_QUOTE_PROMPT = (r"\{\{\s*quote\s*\}\}", r"\{\{\s*question\s*\}\}")


class AppDataset(models.Model):
    """A dataset from which an app answers. Both are of one team, which the database fills in and insists on."""

    team = unconstrained_key(Team, _("team"))
    app = models.ForeignKey(App, verbose_name=_("app"), on_delete=models.CASCADE, related_name="+", db_index=False)
    dataset = models.ForeignKey(Dataset, verbose_name=_("dataset"), on_delete=models.PROTECT, related_name="+")

    class Meta:
        verbose_name = _("dataset of an app")
        verbose_name_plural = _("datasets of apps")
        ordering = ["pk"]
        constraints = [models.UniqueConstraint(fields=["app", "dataset"], name="dataset_once_an_app")]

    def __str__(self) -> str:
        return f"{self.app}: {self.dataset}"


class Conversation(models.Model):
    """One chat with one app, under the id that the caller chose for it."""

    # The unique constraint's index begins with it, so it needs none of its own.
    app = models.ForeignKey(
        App, verbose_name=_("app"), on_delete=models.PROTECT, related_name="conversations", db_index=False
    )
    chat_id = models.CharField(_("chat ID"), max_length=250)
    custom_uid = models.CharField(
        _("custom uid"), max_length=1024, blank=True, help_text=_("The end user, as identified by the caller.")
    )
    metadata = models.JSONField(_("metadata"), default=dict, blank=True)
    variables = models.JSONField(_("variables"), default=dict, blank=True)
    created_at = models.DateTimeField(_("created at"), db_default=Now())
    updated_at = models.DateTimeField(_("updated at"), db_default=Now())

    class Meta:
        verbose_name = _("conversation")
        verbose_name_plural = _("conversations")
        ordering = ["-updated_at"]
        constraints = [models.UniqueConstraint(fields=["app", "chat_id"], name="conversation_chat_id_once_an_app")]

    def __str__(self) -> str:
        return self.chat_id


class Role(models.TextChoices):
    USER = "user", _("user")
    ASSISTANT = "assistant", _("assistant")


class Message(models.Model):
    """One question or one answer. Both are written together, when the answer has ended."""

    # Two indexes below begin with it, so it needs none of its own.
    conversation = models.ForeignKey(
        Conversation,
        verbose_name=_("conversation"),
        on_delete=models.CASCADE,
        related_name="messages",
        db_index=False,
    )
    data_id = models.CharField(_("data ID"), max_length=250)
    role = models.CharField(_("role"), max_length=10, choices=Role.choices)
    content = models.JSONField(_("content"), help_text=_("A string, or a list of parts in OpenAI's format."))
    response_data = models.JSONField(
        _("response data"), null=True, blank=True, help_text=_("One result per step of the answer.")
    )
    outcome = models.CharField(_("outcome"), max_length=10, choices=Outcome.choices, default=Outcome.COMPLETE)
    # The usage record of the request; not a foreign key, since old records are rolled up and removed.
    request_id = models.CharField(_("request ID"), max_length=24)
    created_at = models.DateTimeField(_("created at"), db_default=Now())

    class Meta:
        verbose_name = _("message")
        verbose_name_plural = _("messages")
        ordering = ["pk"]
        constraints = [models.UniqueConstraint(fields=["conversation", "data_id"], name="message_data_id_once_a_chat")]
        indexes = [models.Index(fields=["conversation", "-id"], name="message_latest")]

    def __str__(self) -> str:
        return self.data_id
