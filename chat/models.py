"""Apps, and the conversations that keys have with them."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from apikeys.accounting.ledger import Outcome
from apikeys.teams import ObjectIdField, Team, TeamOwnedQuerySet, unconstrained_key
from chat.catalog import CatalogModel, Circuit, ModelKind, Provider, Route
from datasets.models import Dataset

# The catalog's models are a part of this index; other modules import them from where they are defined.
__all__ = [
    "App",
    "AppDataset",
    "CatalogModel",
    "Circuit",
    "Conversation",
    "Dialect",
    "Message",
    "Provider",
    "Role",
    "Route",
    "SearchMode",
]


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
    model = models.ForeignKey(CatalogModel, verbose_name=_("model"), on_delete=models.PROTECT, related_name="apps")
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
            "Lets a request set temperature, top_p, stop, seed, the penalties, logit_bias, reasoning_effort, verbosity "
            "and service_tier."
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
        if self.model_id and self.team_id and self.model.team_id != self.team_id:
            raise ValidationError({"model": _("The model belongs to another team.")})
        if self.model_id and self.model.kind != ModelKind.CHAT:
            raise ValidationError({"model": _("An app needs a model of the kind chat.")})
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
    TOOL = "tool", _("tool")
    FUNCTION = "function", _("function")
    SYSTEM = "system", _("system")


class Message(models.Model):
    """A question, the result of a tool, or an answer. An answer is written together with what it answers."""

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
    extras = models.JSONField(
        _("extras"),
        null=True,
        blank=True,
        help_text=_(
            "The tool calls or the refusal of an answer, or which call this is the result of, as in OpenAI's API."
        ),
    )
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
