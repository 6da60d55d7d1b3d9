"""A team's providers and its model catalog: what apps name, where each model is had, and at which price."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from apikeys import encryption
from apikeys.teams import ObjectIdField, Team, TeamOwnedQuerySet, unconstrained_key

AUTHORIZATION = "Authorization"
# RFC 9110, section 5.6.2.
HEADER_NAME = r"\A[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z"
# The client writes these itself.
FRAMING_HEADERS = frozenset(
    {"host", "connection", "content-length", "content-type", "transfer-encoding", "accept-encoding", "te", "trailer"}
    | {"upgrade", "expect", "keep-alive"}
)
MAXIMUM_PRICE = 10**12


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
    query = models.CharField(
        _("query parameters"),
        max_length=500,
        blank=True,
        help_text=_("Sent with every call, such as api-version=2024-06-01."),
    )
    auth_header = models.CharField(
        _("header of the secret"),
        max_length=100,
        default=AUTHORIZATION,
        validators=[RegexValidator(HEADER_NAME, _("This is not the name of a header."))],
        help_text=_(
            "Authorization sends the secret as a Bearer token. Any other header, such as api-key, has the secret alone."
        ),
    )
    encrypted_secret = models.BinaryField(_("encrypted secret"), null=True, editable=False)
    # An object of names and values, as JSON: some of them are secrets too.
    encrypted_headers = models.BinaryField(_("encrypted headers"), null=True, editable=False)
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
            # The composite foreign key (provider, team) of a route points at this.
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
        if self.auth_header.lower() in FRAMING_HEADERS:
            raise ValidationError({"auth_header": _("The server writes this header itself.")})
        self.query = self.query.removeprefix("?")
        if any(character in self.query for character in "#? ") or not self.query.isprintable():
            raise ValidationError({"query": _("Write it as name=value&name=value, percent-encoded.")})

    def set_secret(self, secret: str) -> None:
        """Encrypt the provider's own key for the present base URL, or clear it when empty. The caller saves."""
        self.encrypted_secret = encryption.seal(secret, self.base_url) if secret else None

    def set_headers(self, headers: dict[str, str]) -> None:
        """Encrypt headers that are sent with every call to the present base URL. The caller saves."""
        self.encrypted_headers = encryption.seal(json.dumps(headers), self.base_url) if headers else None

    @property
    def has_secret(self) -> bool:
        return self.encrypted_secret is not None

    @property
    def has_headers(self) -> bool:
        return self.encrypted_headers is not None


class ModelKind(models.TextChoices):
    """What a model answers with."""

    CHAT = "chat", _("chat")
    EMBEDDING = "embedding", _("embedding")
    RERANK = "rerank", _("rerank")


class CatalogModel(models.Model):
    """A model of a team: the name that apps, keys and the ledger have for it, what it can do, and what it costs.

    Prices are in millionths of a point, for 1,000 tokens or for an image. Models are archived, never deleted, while
    apps use them.
    """

    id = ObjectIdField()
    team = models.ForeignKey(Team, verbose_name=_("team"), on_delete=models.PROTECT, related_name="models")
    name = models.CharField(
        _("name"), max_length=200, help_text=_("The name that apps, keys and the usage report have for it.")
    )
    kind = models.CharField(_("kind"), max_length=10, choices=ModelKind.choices, default=ModelKind.CHAT)
    takes_tools = models.BooleanField(
        _("takes tools"), default=True, help_text=_("Requests with tools or functions are refused otherwise.")
    )
    takes_images = models.BooleanField(
        _("takes images"), default=True, help_text=_("Requests with images are refused otherwise.")
    )
    takes_json_schema = models.BooleanField(
        _("takes a JSON schema"),
        default=True,
        help_text=_("Requests for an answer that follows a JSON schema are refused otherwise."),
    )
    context_length = models.PositiveIntegerField(
        _("context length"),
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text=_("The maximum number of tokens in prompt and answer combined, shown to clients. Empty: unknown."),
    )
    prompt_price = models.PositiveBigIntegerField(
        _("prompt price"), default=0, validators=[MaxValueValidator(MAXIMUM_PRICE)]
    )
    cached_prompt_price = models.PositiveBigIntegerField(
        _("cached prompt price"), null=True, blank=True, validators=[MaxValueValidator(MAXIMUM_PRICE)]
    )
    completion_price = models.PositiveBigIntegerField(
        _("completion price"), default=0, validators=[MaxValueValidator(MAXIMUM_PRICE)]
    )
    reasoning_price = models.PositiveBigIntegerField(
        _("reasoning price"), null=True, blank=True, validators=[MaxValueValidator(MAXIMUM_PRICE)]
    )
    image_price = models.PositiveBigIntegerField(
        _("image price"), default=0, validators=[MaxValueValidator(MAXIMUM_PRICE)]
    )
    archived_at = models.DateTimeField(
        _("archived at"), null=True, blank=True, help_text=_("Apps of an archived model can no longer be called.")
    )
    created_at = models.DateTimeField(_("created at"), db_default=Now(), editable=False)

    objects: ClassVar[Any] = TeamOwnedQuerySet.as_manager()

    class Meta:
        verbose_name = _("model")
        verbose_name_plural = _("models")
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["team", "name"], name="model_name_once_a_team"),
            # The composite foreign keys (model, team) point at this.
            models.UniqueConstraint(fields=["id", "team"], name="model_in_team"),
        ]

    def __str__(self) -> str:
        return self.name


class TokensField(models.TextChoices):
    """How a provider spells the limit of an answer."""

    LEARNED = "", _("max_tokens, unless it asks for the other")
    MAX_TOKENS = "max_tokens", "max_tokens"
    MAX_COMPLETION_TOKENS = "max_completion_tokens", "max_completion_tokens"


class Route(models.Model):
    """One way to a model: a provider that has it. Routes of the lowest priority are tried first, by their weights."""

    # It is given to the row by the database, and held by the two foreign keys.
    team = unconstrained_key(Team, _("team"), editable=False)
    model = models.ForeignKey(
        CatalogModel, verbose_name=_("model"), on_delete=models.CASCADE, related_name="routes", db_index=False
    )
    provider = models.ForeignKey(Provider, verbose_name=_("provider"), on_delete=models.PROTECT, related_name="routes")
    upstream_name = models.CharField(
        _("name at the provider"), max_length=200, help_text=_("The model's name, as the provider spells it.")
    )
    priority = models.PositiveSmallIntegerField(
        _("priority"),
        default=1,
        help_text=_("Routes with the lowest number are tried first, the others where those fail."),
    )
    weight = models.PositiveSmallIntegerField(
        _("weight"),
        default=1,
        validators=[MaxValueValidator(1000)],
        help_text=_("The share of requests among routes of one priority. 0 takes the route out of use."),
    )
    tokens_field = models.CharField(
        _("spelling of max_tokens"),
        max_length=30,
        choices=TokensField.choices,
        default=TokensField.LEARNED,
        blank=True,
    )

    class Meta:
        verbose_name = _("route")
        verbose_name_plural = _("routes")
        ordering = ["priority", "pk"]
        constraints = [
            models.UniqueConstraint(fields=["model", "provider", "upstream_name"], name="route_once_a_model")
        ]

    def __str__(self) -> str:
        return f"{self.provider}: {self.upstream_name}"

    def clean(self) -> None:
        if self.provider_id and self.model_id and self.provider.team_id != self.model.team_id:
            raise ValidationError({"provider": _("The provider belongs to another team.")})


class Circuit(models.Model):
    """A route that failed several times in a row, and takes no requests for a while where its model has another."""

    route = models.OneToOneField(
        Route, verbose_name=_("route"), on_delete=models.CASCADE, primary_key=True, related_name="circuit"
    )
    open_until = models.DateTimeField(_("open until"))
    failure = models.CharField(_("failure"), max_length=1000, blank=True)
    opened_at = models.DateTimeField(_("opened at"), db_default=Now())

    class Meta:
        verbose_name = _("circuit")
        verbose_name_plural = _("circuits")

    def __str__(self) -> str:
        return str(self.route)
