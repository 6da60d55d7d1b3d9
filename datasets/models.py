"""Knowledge of apps: datasets, the collections in them, and the data that are found by their texts.

The database itself removes what belongs to a row that goes: there may be millions, and Django would read them first.
Hence the foreign keys that Django does not follow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib.postgres.search import SearchVectorField
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _
from pgvector.django import VectorField

from apikeys.teams import ObjectIdField, Team, TeamOwnedQuerySet, unconstrained_key
from datasets.texts import STATIC_MODEL

if TYPE_CHECKING:
    from django.contrib.auth.models import User

# Chunks have these sizes, in tokens as `datasets.texts.token_counts` counts them.
SMALLEST_CHUNK, LARGEST_CHUNK, USUAL_CHUNK = 32, 4_096, 512


class Dataset(models.Model):
    """A knowledge base of one team: what apps quote from, and keys fill and search."""

    id = ObjectIdField()
    team = models.ForeignKey(Team, verbose_name=_("team"), on_delete=models.PROTECT, related_name="datasets")
    name = models.CharField(_("name"), max_length=100)
    intro = models.CharField(
        _("intro"), max_length=500, blank=True, help_text=_("A short description, shown in lists.")
    )
    rerank_provider = models.ForeignKey(
        "chat.Provider",
        verbose_name=_("rerank provider"),
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="reranked_datasets",
        help_text=_("Reorders the results when a search asks for it. A rerank model is needed as well."),
    )
    rerank_model = models.CharField(
        _("rerank model"), max_length=200, blank=True, help_text=_("The model's name, as the provider spells it.")
    )
    created_at = models.DateTimeField(_("created at"), db_default=Now(), editable=False)
    updated_at = models.DateTimeField(_("updated at"), auto_now=True)

    objects: ClassVar[Any] = TeamOwnedQuerySet.as_manager()

    class Meta:
        verbose_name = _("dataset")
        verbose_name_plural = _("datasets")
        ordering = ["name", "pk"]
        constraints = [
            # The composite foreign keys that lead here point at this.
            models.UniqueConstraint(fields=["id", "team"], name="dataset_in_team"),
        ]
        indexes = [models.Index(fields=["team", "name"], name="dataset_by_name")]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        provider = self.rerank_provider
        if provider is not None and self.team_id and provider.team_id != self.team_id:
            raise ValidationError({"rerank_provider": _("The provider belongs to another team.")})
        if bool(self.rerank_provider_id) != bool(self.rerank_model):
            raise ValidationError({"rerank_model": _("A rerank provider and its model must be given together.")})


class DatasetOwnedQuerySet(models.QuerySet[Any]):
    """Rows of a dataset. Every query of them starts at the team that owns it."""

    def for_team(self, team_id: str) -> DatasetOwnedQuerySet:
        return self.filter(dataset__team_id=team_id)

    def for_user(self, user: User) -> DatasetOwnedQuerySet:
        return self if user.is_superuser else self.filter(dataset__team__members=user)


class VectorSet(models.Model):
    """All vectors of a dataset that one model made. Search uses the current one; another may be in the making."""

    dataset = unconstrained_key(Dataset, _("dataset"), db_index=True, related_name="vector_sets")
    provider = models.ForeignKey(
        "chat.Provider",
        verbose_name=_("provider"),
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="vector_sets",
        help_text=_("The provider whose embeddings endpoint makes the vectors. Empty: this server's static model."),
    )
    model = models.CharField(
        _("model"), max_length=200, default=STATIC_MODEL, help_text=_("The model's name, as the provider spells it.")
    )
    dimension = models.PositiveSmallIntegerField(
        _("dimension"),
        null=True,
        editable=False,
        help_text=_("Taken from the model's first vector; all others have the same."),
    )
    is_current = models.BooleanField(_("is current"))
    # It says why the last batch could not be embedded, and is empty while all goes well.
    failure = models.CharField(_("failure"), max_length=500, blank=True)
    created_at = models.DateTimeField(_("created at"), db_default=Now(), editable=False)

    objects: ClassVar[Any] = DatasetOwnedQuerySet.as_manager()

    class Meta:
        verbose_name = _("vector set")
        verbose_name_plural = _("vector sets")
        ordering = ["pk"]
        constraints = [
            # Search uses one, and at most one more is to take its place.
            models.UniqueConstraint(fields=["dataset", "is_current"], name="vector_set_once_a_dataset"),
        ]

    def __str__(self) -> str:
        return self.model


class Kind(models.TextChoices):
    """The kind of source that a collection came from. The values are FastGPT's."""

    FOLDER = "folder", _("folder")
    VIRTUAL = "virtual", _("entered by hand")
    TEXT = "text", _("text")
    FILE = "file", _("file")
    LINK = "link", _("link")


class ImportState(models.TextChoices):
    """How far a collection's source has been read. What it gave is embedded after that."""

    READY = "ready", _("ready")
    WAITING = "waiting", _("waiting")
    READING = "reading", _("being read")
    FAILED = "failed", _("failed")


# An import writes these columns of its collection, to tell how far it is.
PROGRESS = ("source_format", "chunks_read", "repeated", "left_out", "attempts")
# In these states the source of an import is still to be read to its end.
UNREAD = (ImportState.WAITING, ImportState.READING)


class Collection(models.Model):
    """Data of one source in a dataset (a file, a link, a text, or entries by hand), or a folder of collections."""

    id = ObjectIdField()
    dataset = unconstrained_key(Dataset, _("dataset"), related_name="collections")
    parent = unconstrained_key("self", _("parent"), db_index=True, null=True, blank=True, related_name="children")
    kind = models.CharField(_("kind"), max_length=10, choices=Kind.choices)
    name = models.CharField(_("name"), max_length=200)
    url = models.CharField(_("URL"), max_length=2000, blank=True, help_text=_("The URL of a link."))
    chunk_size = models.PositiveSmallIntegerField(
        _("chunk size"),
        default=USUAL_CHUNK,
        validators=[MinValueValidator(SMALLEST_CHUNK), MaxValueValidator(LARGEST_CHUNK)],
        help_text=_("The maximum number of tokens in each piece that its source is split into."),
    )
    metadata = models.JSONField(_("metadata"), default=dict, blank=True)
    state = models.CharField(_("state"), max_length=10, choices=ImportState.choices, default=ImportState.READY)
    failure = models.CharField(_("failure"), max_length=500, blank=True, help_text=_("Why the import stopped early."))
    # It is spelled as by `datasets.conversion.formats.Format`. For a link it is known when that has been fetched.
    source_format = models.CharField(_("format"), max_length=10, blank=True, editable=False)
    # An import writes these with the data themselves: how many chunks of the source have been read, how many of those
    # were there before in this collection, and how many rows were left out, too long or without a question.
    chunks_read = models.PositiveIntegerField(_("chunks read"), default=0, editable=False)
    repeated = models.PositiveIntegerField(_("repeated"), default=0)
    left_out = models.PositiveIntegerField(_("left out"), default=0, editable=False)
    # It counts how often the reading was begun since the last chunk.
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0, editable=False)
    created_at = models.DateTimeField(_("created at"), db_default=Now(), editable=False)
    updated_at = models.DateTimeField(_("updated at"), auto_now=True)

    objects: ClassVar[Any] = DatasetOwnedQuerySet.as_manager()

    class Meta:
        verbose_name = _("collection")
        verbose_name_plural = _("collections")
        ordering = ["-updated_at", "pk"]
        constraints = [
            # The composite foreign keys (collection, dataset) point at this.
            models.UniqueConstraint(fields=["id", "dataset"], name="collection_in_dataset"),
        ]
        indexes = [models.Index(fields=["dataset", "parent", "-updated_at"], name="collection_latest")]

    def __str__(self) -> str:
        return self.name


class SourcePiece(models.Model):
    """A part of the bytes that a collection is imported from. They are removed when it has been read whole."""

    collection = unconstrained_key(Collection, _("collection"), db_index=True, related_name="source_pieces")
    ordinal = models.PositiveIntegerField(_("ordinal"))
    content = models.BinaryField(_("content"))

    class Meta:
        verbose_name = _("source piece")
        verbose_name_plural = _("source pieces")
        ordering = ["ordinal"]
        constraints = [models.UniqueConstraint(fields=["collection", "ordinal"], name="source_piece_once")]

    def __str__(self) -> str:
        return str(self.ordinal)


class Datum(models.Model):
    """A question and its answer, or a piece of text. It is found by its texts, and quoted whole."""

    id = ObjectIdField()
    dataset = unconstrained_key(Dataset, _("dataset"), related_name="data")
    collection = unconstrained_key(Collection, _("collection"), related_name="data")
    chunk_index = models.PositiveIntegerField(_("chunk index"), default=0, help_text=_("Its position in the source."))
    q = models.TextField(_("question or text"))
    a = models.TextField(_("answer"), blank=True)
    # It is the SHA-256 of both, by which a repeated datum is found.
    digest = models.BinaryField(_("digest"), max_length=32, editable=False)
    # It has the words of both, and the dataset's own word, by which the index leaves out what is in others.
    words = SearchVectorField(_("words"), editable=False)
    created_at = models.DateTimeField(_("created at"), db_default=Now(), editable=False)
    updated_at = models.DateTimeField(_("updated at"), db_default=Now(), editable=False)

    objects: ClassVar[Any] = DatasetOwnedQuerySet.as_manager()

    class Meta:
        verbose_name = _("datum")
        verbose_name_plural = _("data")
        ordering = ["collection", "chunk_index", "pk"]
        constraints = [
            models.UniqueConstraint(fields=["collection", "digest"], name="datum_once_a_collection"),
            # The composite foreign key (datum, dataset) of a text points at this.
            models.UniqueConstraint(fields=["id", "dataset"], name="datum_in_dataset"),
        ]
        indexes = [models.Index(fields=["collection", "chunk_index", "id"], name="datum_in_order")]

    def __str__(self) -> str:
        return self.q[:60]


class IndexText(models.Model):
    """A text that a datum is found by: its own, or another that its author gave it."""

    datum = unconstrained_key(Datum, _("datum"), db_index=True, related_name="index_texts")
    dataset = unconstrained_key(Dataset, _("dataset"))
    # A default text is made from the datum, and made again when that changes.
    is_default = models.BooleanField(_("is default"))
    text = models.TextField(_("text"))

    class Meta:
        verbose_name = _("index text")
        verbose_name_plural = _("index texts")
        ordering = ["pk"]

    def __str__(self) -> str:
        return self.text[:60]


# A text that its model refuses is tried so often.
MAXIMUM_ATTEMPTS = 3


class PendingVectorQuerySet(models.QuerySet[Any]):
    def open(self) -> PendingVectorQuerySet:
        return self.filter(attempts__lt=MAXIMUM_ATTEMPTS)


class PendingVector(models.Model):
    """A text that waits for its vector in one set. The row comes with the text and goes with the vector's coming."""

    vector_set = unconstrained_key(VectorSet, _("vector set"), related_name="pending")
    index_text = unconstrained_key(IndexText, _("index text"), db_index=True, related_name="pending")
    collection = unconstrained_key(Collection, _("collection"), db_index=True, related_name="pending")
    # They say how often its model refused this text while it took others, and why. After the last it is left alone.
    attempts = models.PositiveSmallIntegerField(_("attempts"), db_default=0, editable=False)
    failure = models.CharField(_("failure"), max_length=500, blank=True, db_default="", editable=False)

    objects: ClassVar[Any] = PendingVectorQuerySet.as_manager()

    class Meta:
        verbose_name = _("pending vector")
        verbose_name_plural = _("pending vectors")
        ordering = ["pk"]
        constraints = [models.UniqueConstraint(fields=["vector_set", "index_text"], name="pending_vector_once")]

    def __str__(self) -> str:
        return str(self.pk)


class Vector(models.Model):
    """The place of a text in the space of one model. It has length 1, so that a product is a cosine."""

    vector_set = unconstrained_key(VectorSet, _("vector set"), related_name="vectors")
    index_text = unconstrained_key(IndexText, _("index text"), db_index=True, related_name="vectors")
    embedding = VectorField(_("embedding"))

    class Meta:
        verbose_name = _("vector")
        verbose_name_plural = _("vectors")
        ordering = ["pk"]
        constraints = [models.UniqueConstraint(fields=["vector_set", "index_text"], name="vector_once")]

    def __str__(self) -> str:
        return str(self.pk)
