"""Collections that are made from a text, a file or a link. A job reads them: see `runs`.

from_text(dataset, "...", ImportOptions(name="..."))
from_file(dataset, file, "film.pdf", ImportOptions())
from_link(dataset, "https://example.org/", ImportOptions())

Each raises Unreadable for what cannot be imported, and RateLimited when the team has too much waiting.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import IO, Any

from django.db import connection, transaction
from django.db.models import BigIntegerField, F, Func, Sum

from apikeys.errors import CollectionNotFound, DatasetNotFound, RateLimited
from apikeys.storable_text import storable
from datasets.conversion.formats import HEAD_BYTES, Format, Unreadable, format_of
from datasets.data import HOLD
from datasets.imports.links import check_url
from datasets.models import UNREAD, USUAL_CHUNK, Collection, Dataset, ImportState, Kind, SourcePiece
from datasets.names import CONTROLS
from datasets.queue import queue_import

PIECE_BYTES = 256 * 1024
# A source of this size is read in a moment: it goes ahead of so many others of its team, and of large ones of others.
SMALL_BYTES, SMALL_ADVANCE = 64 * 1024, 4
MAXIMUM_NAME = 200
# A team may have so many sources that have not been read to their end, and so many bytes of them. The workers read a
# few at a time, those of other teams among them.
MAXIMUM_WAITING = 200
MAXIMUM_WAITING_BYTES = 1024**3
RETRY_SECONDS = 60
# One team's imports are counted one after the other.
LOCK = "SELECT pg_advisory_xact_lock(hashtext('datasets_imports'), hashtext(%s))"


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How a source is to be imported. Without a name it gets the file's, the link's, or the text's first words."""

    name: str = ""
    parent: Collection | None = None
    chunk_size: int = USUAL_CHUNK
    metadata: dict[str, Any] = field(default_factory=dict)


def from_text(dataset: Dataset, text: str, options: ImportOptions) -> Collection:
    text = storable(text)
    if not text.strip():
        raise Unreadable("The text is empty.")
    name = options.name or text.strip().partition("\n")[0][:50]
    return create(dataset, options, name, BytesIO(text.encode()), kind=Kind.TEXT, source_format=Format.MARKDOWN.value)


def from_file(dataset: Dataset, file: IO[bytes], file_name: str, options: ImportOptions) -> Collection:
    head = file.read(HEAD_BYTES)
    format = format_of(file_name, head)
    file.seek(0)
    return create(dataset, options, options.name or file_name, file, kind=Kind.FILE, source_format=format.value)


def from_link(dataset: Dataset, url: str, options: ImportOptions) -> Collection:
    url = url.strip()
    check_url(url)
    return create(dataset, options, options.name or url, None, kind=Kind.LINK, url=url)


def create(dataset: Dataset, options: ImportOptions, name: str, source: IO[bytes] | None, **columns: Any) -> Collection:
    """Create the collection, its source, and the job that reads it: all of them or nothing.

    Raise RateLimited when its team has too much waiting.
    """
    with transaction.atomic():
        # The room is checked before anything is written, to spare that; and again below, in turn, so that none that
        # come at the same time pass together.
        check_room(dataset.team_id, 1, size_of(source))
        hold(dataset, options.parent)
        collection: Collection = Collection.objects.create(
            dataset=dataset,
            name=display_name(name),
            parent=options.parent,
            chunk_size=options.chunk_size,
            metadata=options.metadata,
            state=ImportState.WAITING,
            **columns,
        )
        if source is not None:
            keep_source(collection, source)
        with connection.cursor() as cursor:
            cursor.execute(LOCK, [dataset.team_id])
        check_room(dataset.team_id)
        is_small = source is not None and size_of(source) <= SMALL_BYTES
        queue_import(collection.pk, priority_of_next(dataset.team_id, is_small=is_small))
    return collection


def priority_of_next(team_id: str, *, is_small: bool) -> int:
    """Return the priority of a team's latest source: teams take turns, and a small text needs to wait for few."""
    before = Collection.objects.for_team(team_id).filter(state__in=UNREAD).count() - 1
    return (SMALL_ADVANCE if is_small else 0) - before


def check_room(team_id: str, coming: int = 0, coming_bytes: int = 0) -> None:
    waiting = Collection.objects.for_team(team_id).filter(state__in=UNREAD)
    length = Func(F("content"), function="octet_length", output_field=BigIntegerField())
    size = SourcePiece.objects.filter(collection__in=waiting).aggregate(size=Sum(length))["size"] or 0
    if waiting.count() + coming > MAXIMUM_WAITING or size + coming_bytes > MAXIMUM_WAITING_BYTES:
        raise RateLimited(
            f"Your team has too many sources waiting to be read: at most {MAXIMUM_WAITING} may wait, and"
            f" {MAXIMUM_WAITING_BYTES // 2**20} MiB of them. Send this one when some have been read.",
            RETRY_SECONDS,
        )


def size_of(source: IO[bytes] | None) -> int:
    if source is None:
        return 0
    source.seek(0, os.SEEK_END)
    size = source.tell()
    source.seek(0)
    return size


def display_name(name: str) -> str:
    return CONTROLS.sub(" ", storable(name)).strip()[:MAXIMUM_NAME] or "-"


def hold(dataset: Dataset, parent: Collection | None) -> None:
    """Lock them against removal. Raise DatasetNotFound or CollectionNotFound when somebody has removed them."""
    with connection.cursor() as cursor:
        cursor.execute(HOLD, {"dataset_id": dataset.pk})
        if cursor.fetchone() is None:
            raise DatasetNotFound
        if parent is not None:
            cursor.execute("SELECT 1 FROM datasets_collection WHERE id = %s FOR KEY SHARE", [parent.pk])
            if cursor.fetchone() is None:
                raise CollectionNotFound


def keep_source(collection: Collection, source: IO[bytes]) -> None:
    # A piece is written at a time, so that a large file takes no memory.
    for ordinal, piece in enumerate(pieces_of(source)):
        SourcePiece.objects.create(collection=collection, ordinal=ordinal, content=piece)


def pieces_of(source: IO[bytes]) -> Iterator[bytes]:
    while piece := source.read(PIECE_BYTES):
        yield piece


def copy_source(collection: Collection, target: IO[bytes]) -> None:
    """Write the kept source into `target`, a piece at a time, and rewind it."""
    pieces = SourcePiece.objects.filter(collection=collection)
    for ordinal in range(pieces.count()):
        target.write(pieces.get(ordinal=ordinal).content)
    target.seek(0)
