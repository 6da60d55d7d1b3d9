"""The making of vectors: what waits for one gets it, and a new model takes over when it has them all."""

import asyncio
import logging
from collections.abc import Sequence
from time import monotonic
from typing import Any, NamedTuple

from asgiref.sync import sync_to_async
from django.db import connection, transaction
from django.db.models import F

from apikeys.audit import recording
from apikeys.errors import ApiError
from datasets.models import Dataset, VectorSet
from datasets.queue import queue_embedding_on_commit
from datasets.texts import STATIC_DIMENSION, STATIC_MODEL
from datasets.vectors import indexes
from datasets.vectors.embeddings import embed
from datasets.vectors.provider_models import ProviderModel, TextsRefused

logger = logging.getLogger(__name__)

# One batch, which is one transaction, has so many texts.
BATCH = 256
# One run does no more than this, so that slow datasets do not hold the places of others for ever, and one call of a
# provider in it takes no longer.
BUDGET_BATCHES = 40
BUDGET_SECONDS = 60
CALL_SECONDS = 60
# Any provider takes this that takes anything.
HARMLESS = "text"


def create(dataset: Dataset, provider: Any, model: str) -> VectorSet:
    vector_set: VectorSet = dataset.vector_sets.create(**columns_of(provider, model), is_current=True)
    return vector_set


def columns_of(provider: Any, model: str) -> dict[str, Any]:
    if provider is None:
        return {"provider": None, "model": STATIC_MODEL, "dimension": STATIC_DIMENSION}
    return {"provider": provider, "model": model}


def change_model(dataset: Dataset, provider: Any, model: str) -> VectorSet | None:
    """Have all vectors made by another model. Search goes on with those there are until the others are complete.

    Return None when the dataset has this model already. One in the making that is of no more use is given up.
    """
    with transaction.atomic():
        # The dataset is locked whole, so that no text is inserted between: see `data.HOLD`.
        Dataset.objects.select_for_update().get(pk=dataset.pk)
        columns = columns_of(provider, model)
        chosen = {name: columns[name] for name in ("provider", "model")}
        _record(dataset, chosen)
        if dataset.vector_sets.filter(**chosen, is_current=False).exists():
            return None
        dataset.vector_sets.filter(is_current=False).delete()
        if dataset.vector_sets.filter(**chosen, is_current=True).exists():
            return None
        vector_set: VectorSet = dataset.vector_sets.create(**columns, is_current=False)
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO datasets_pendingvector (vector_set_id, index_text_id, collection_id)"
                " SELECT %s, text.id, datum.collection_id FROM datasets_indextext AS text"
                " JOIN datasets_datum AS datum ON datum.id = text.datum_id WHERE text.dataset_id = %s",
                [vector_set.pk, dataset.pk],
            )
        queue_embedding_on_commit(dataset.pk)
    return vector_set


def _record(dataset: Dataset, chosen: dict[str, Any]) -> None:
    # A change of model is audited, whoever makes it: a provider gets to see every text.
    # A set in the making, if there is one, was chosen last.
    before = dataset.vector_sets.order_by("is_current")[0]
    changes = {
        "vector_model": (before.model, chosen["model"]),
        "vector_provider": (before.provider_id, chosen["provider"] and chosen["provider"].pk),
    }
    changed = {name: pair for name, pair in changes.items() if pair[0] != pair[1]}
    if changed:
        recording.record(dataset, changed)


class TimeBudget:
    """The batches and seconds that are left to one run of the job."""

    def __init__(self) -> None:
        self.batches = BUDGET_BATCHES
        self.end = monotonic() + BUDGET_SECONDS

    def is_over(self) -> bool:
        return self.batches <= 0 or monotonic() >= self.end


async def embed_pending(dataset_id: str) -> bool:
    """Make the vectors that are waited for. One worker at a time runs this; what it has made stays, however it ends.

    Return True when its budget was over before that: then others are to have theirs, and this dataset another later.

    Where a provider fails, that is noted at its vector set, and the rest waits. Where it refuses a text, that is noted
    at the text, and the others go on.
    """
    budget = TimeBudget()
    for vector_set in await sync_to_async(_sets)(dataset_id):
        model = ProviderModel.of(vector_set.provider, vector_set.model).within(CALL_SECONDS)
        after = 0
        try:
            while batch := await sync_to_async(_next_batch)(vector_set, after):
                # Each budget does something, however long it waits for its first answer.
                if (after and budget.is_over()) or not await _embed(vector_set, model, batch, budget):
                    return True
                after = batch[-1].pk
                budget.batches -= 1
        except (ApiError, WrongDimension) as error:
            await sync_to_async(_note_failure)(vector_set, str(error))
        else:
            if not vector_set.is_current:
                # The index is built now, and not when the set is searched already. It takes a thread and a connection.
                await asyncio.to_thread(indexes.build_missing)
            await sync_to_async(_take_over_if_complete)(vector_set)
    return False


class WrongDimension(Exception):
    """A model's vectors have another dimension than they had before."""


class Waiting(NamedTuple):
    """A text that waits for its vector."""

    pk: int
    text_id: int
    text: str


async def _embed(vector_set: VectorSet, model: ProviderModel, batch: list[Waiting], budget: TimeBudget) -> bool:
    """Make the vectors of a batch; halving it finds a refused text. Return False when the budget was spent.

    Raise TextsRefused when the provider takes no text at all, without asking it for each.
    """
    parts, has_taken = [batch], False
    while parts:
        # It does not end before something has come of it: the next budget would begin with the same.
        if has_taken and budget.is_over():
            return False
        part = parts.pop()
        try:
            # No connection is held meanwhile.
            embedded = await embed(model, [waiting.text for waiting in part])
        except TextsRefused as error:
            if len(part) > 1:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
            elif has_taken or await _takes_any(model):
                has_taken = True
                await sync_to_async(_note_refusal)(vector_set, part[0], str(error))
            else:
                raise
            continue
        has_taken = True
        await sync_to_async(_store)(vector_set, [waiting.text_id for waiting in part], embedded.vectors)
    return True


async def _takes_any(model: ProviderModel) -> bool:
    try:
        await embed(model, [HARMLESS])
    except TextsRefused:
        return False
    return True


def _sets(dataset_id: str) -> list[VectorSet]:
    # The set that search uses comes first.
    rows = VectorSet.objects.filter(dataset=dataset_id).select_related("provider").order_by("-is_current")
    return list(rows)


def _next_batch(vector_set: VectorSet, after: int) -> list[Waiting]:
    # Each comes once in a run, so that what is refused does not come again at once.
    rows = vector_set.pending.open().filter(pk__gt=after).order_by("pk")
    columns = rows.values("pk", text_id=F("index_text_id"), text=F("index_text__text"))
    return [Waiting(**row) for row in columns[:BATCH]]


def _note_refusal(vector_set: VectorSet, waiting: Waiting, failure: str) -> None:
    vector_set.pending.filter(pk=waiting.pk).update(attempts=F("attempts") + 1, failure=failure[:500])


def _store(vector_set: VectorSet, text_ids: Sequence[int], vectors: Sequence[list[float]]) -> None:
    dimension = len(vectors[0])
    if vector_set.dimension is None:
        VectorSet.objects.filter(pk=vector_set.pk, dimension=None).update(dimension=dimension)
        vector_set.refresh_from_db(fields=["dimension"])
    if vector_set.dimension != dimension:
        raise WrongDimension(f"The model returned vectors of {dimension} numbers, but {vector_set.dimension} before.")
    with transaction.atomic(), connection.cursor() as cursor:
        # The rows that a vector belongs to and that wait for it are held first. Removals take them in other orders, so
        # that to wait for one here could be to wait for each other; those in removal or change are left to a later run.
        cursor.execute("SELECT 1 FROM datasets_vectorset WHERE id = %s FOR KEY SHARE", [vector_set.pk])
        cursor.execute(
            "SELECT text.id FROM datasets_pendingvector AS pending"
            " JOIN datasets_indextext AS text ON text.id = pending.index_text_id"
            " WHERE pending.vector_set_id = %s AND pending.index_text_id = ANY (%s)"
            " FOR UPDATE OF pending SKIP LOCKED FOR KEY SHARE OF text SKIP LOCKED",
            [vector_set.pk, list(text_ids)],
        )
        held = [text_id for (text_id,) in cursor.fetchall()]
        cursor.execute(
            "WITH made AS (DELETE FROM datasets_pendingvector WHERE vector_set_id = %s AND index_text_id = ANY (%s)"
            " RETURNING index_text_id)"
            " INSERT INTO datasets_vector (vector_set_id, index_text_id, embedding)"
            " SELECT %s, made.index_text_id, vector.embedding::vector FROM made"
            " JOIN unnest(%s::bigint[], %s::text[]) AS vector(index_text_id, embedding) USING (index_text_id)"
            " ON CONFLICT (vector_set_id, index_text_id) DO NOTHING",
            [
                vector_set.pk,
                held,
                vector_set.pk,
                list(text_ids),
                [f"[{','.join(map(repr, vector))}]" for vector in vectors],
            ],
        )
        if vector_set.failure:
            VectorSet.objects.filter(pk=vector_set.pk).update(failure="")
            vector_set.failure = ""


def _note_failure(vector_set: VectorSet, failure: str) -> None:
    logger.warning("vectors of dataset %s: %s", vector_set.dataset_id, failure)
    VectorSet.objects.filter(pk=vector_set.pk).update(failure=failure[:500])


def _take_over_if_complete(vector_set: VectorSet) -> None:
    if vector_set.is_current:
        return
    with transaction.atomic():
        # It is locked whole as in `change_model`, and may be gone.
        if Dataset.objects.select_for_update().filter(pk=vector_set.dataset_id).first() is None:
            return
        if vector_set.pending.open().exists() or not VectorSet.objects.filter(pk=vector_set.pk).exists():
            return
        VectorSet.objects.filter(dataset=vector_set.dataset_id, is_current=True).delete()
        VectorSet.objects.filter(pk=vector_set.pk).update(is_current=True)
