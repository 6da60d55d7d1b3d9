"""The job that reads a collection's source: it fetches a link, has the source read, and keeps what it says.

A run may end at any moment, by `kill -9` as well, and another goes on where it was: each batch of data and the count of
what has been read are written in one transaction, and the same source always gives the same chunks in the same order.
"""

import logging
import tempfile
from contextlib import aclosing
from io import BytesIO
from typing import IO, Any

from asgiref.sync import sync_to_async
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from datasets import data
from datasets.conversion.formats import Format, Unreadable
from datasets.conversion.items import Frame, Item
from datasets.conversion.process import frames
from datasets.imports import links
from datasets.imports.sources import copy_source, display_name, keep_source
from datasets.models import UNREAD, Collection, ImportState, Kind, SourcePiece

logger = logging.getLogger(__name__)

# A reading that never gets any further is begun so often: whatever it is that ends it, it is not tried for ever.
MAXIMUM_ATTEMPTS = 5


class Overtaken(Exception):
    """The collection is gone, or another run is at it."""


async def run(collection_id: str) -> None:
    """Read a collection's source to its end, from where an earlier run was."""
    collection = await sync_to_async(begin)(collection_id)
    if collection is None:
        return
    try:
        if collection.kind == Kind.LINK and not collection.source_format:
            page = await links.fetch(collection.url)
            await sync_to_async(keep_page)(collection, page)
        with tempfile.TemporaryFile() as file:
            await sync_to_async(copy_source)(collection, file)
            await read(collection, file)
    except Unreadable as error:
        await sync_to_async(end)(collection, ImportState.FAILED, str(error))
    except Overtaken:
        logger.info("the import of collection %s has ended elsewhere", collection_id)
    else:
        await sync_to_async(end)(collection, ImportState.READY)


def begin(collection_id: str) -> Collection | None:
    """Mark a collection as being read. Return None when there is nothing to do."""
    rows = Collection.objects.filter(pk=collection_id, state__in=UNREAD)
    # The attempt is counted before anything can go wrong.
    rows.update(state=ImportState.READING, attempts=F("attempts") + 1)
    collection: Collection | None = rows.select_related("dataset").first()
    if collection is not None and collection.attempts > MAXIMUM_ATTEMPTS:
        end(collection, ImportState.FAILED, f"Reading it ended {MAXIMUM_ATTEMPTS} times without getting any further.")
        return None
    return collection


def keep_page(collection: Collection, page: links.Page) -> None:
    with transaction.atomic():
        rows = Collection.objects.select_for_update().filter(pk=collection.pk, source_format="")
        if not rows.exists():
            raise Overtaken
        keep_source(collection, BytesIO(page.content))
        rows.update(source_format=page.format.value)
    collection.source_format = page.format.value


async def read(collection: Collection, file: IO[bytes]) -> None:
    format = Format(collection.source_format)
    async with aclosing(frames(file, format, collection.chunk_size, collection.chunks_read)) as stream:
        async for frame in stream:
            await sync_to_async(keep_frame)(collection, frame)


def keep_frame(collection: Collection, frame: Frame) -> None:
    """Insert a frame's items and note how far the reading is. Raise Overtaken when somebody else did."""
    before, after = collection.chunks_read, collection.chunks_read + len(frame.items)
    columns: dict[str, Any] = {
        "chunks_read": after,
        "left_out": frame.left_out,
        "attempts": 0,
    }
    if frame.title and collection.name == display_name(collection.url):
        columns["name"] = display_name(frame.title)
    with transaction.atomic():
        # All lock in this order: a removal of a dataset takes its collections after it.
        with connection.cursor() as cursor:
            cursor.execute(data.HOLD, {"dataset_id": collection.dataset_id})
        rows = Collection.objects.filter(pk=collection.pk, state=ImportState.READING, chunks_read=before)
        if not rows.update(**columns):
            raise Overtaken
        insertion = data.insert(collection, [datum_of(item, before + n) for n, item in enumerate(frame.items)])
        if insertion.repeated:
            Collection.objects.filter(pk=collection.pk).update(repeated=F("repeated") + len(insertion.repeated))
    collection.chunks_read = after


def datum_of(item: Item, chunk_index: int) -> data.NewDatum:
    return data.NewDatum(item.q, item.a, chunk_index, item.index_texts[: data.MAXIMUM_INDEX_TEXTS])


def end(collection: Collection, state: ImportState, failure: str = "") -> None:
    with transaction.atomic():
        rows = Collection.objects.filter(pk=collection.pk, state=ImportState.READING)
        if rows.update(state=state, failure=failure[:500], updated_at=timezone.now()):
            # The source is not needed any more, however its reading ended. What was read of it stays.
            SourcePiece.objects.filter(collection=collection).delete()
