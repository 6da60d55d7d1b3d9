"""Datasets, collections and data as FastGPT's clients read them."""

from collections.abc import Iterable
from typing import Any

from django.db.models import Count

from datasets.models import UNREAD, USUAL_CHUNK, Collection, Dataset, Datum, PendingVector, VectorSet
from datasets.texts import MAXIMUM_TOKENS


def current_set(dataset: Dataset) -> VectorSet:
    return next(vector_set for vector_set in sets_of(dataset) if vector_set.is_current)


def next_set(dataset: Dataset) -> VectorSet | None:
    return next((vector_set for vector_set in sets_of(dataset) if not vector_set.is_current), None)


def sets_of(dataset: Dataset) -> Iterable[VectorSet]:
    sets: Iterable[VectorSet] = dataset.vector_sets.all()
    return sets


def represent_model(vector_set: VectorSet) -> dict[str, Any]:
    return {
        "model": vector_set.model,
        "name": vector_set.model,
        "providerId": vector_set.provider_id,
        "defaultToken": USUAL_CHUNK,
        "maxToken": MAXIMUM_TOKENS,
    }


def represent_dataset(dataset: Dataset) -> dict[str, Any]:
    return {
        "_id": dataset.pk,
        "parentId": None,
        "teamId": dataset.team_id,
        "type": "dataset",
        "status": "active",
        "avatar": "",
        "name": dataset.name,
        "intro": dataset.intro,
        "updateTime": dataset.updated_at,
        "vectorModel": represent_model(current_set(dataset)),
    }


class Amounts:
    """How many data these collections have, and how much of them is still to be done; in two queries for all."""

    def __init__(self, collections: Iterable[Collection]) -> None:
        collection_ids = [collection.pk for collection in collections]
        data = Datum.objects.filter(collection__in=collection_ids)
        waiting = PendingVector.objects.open().filter(collection__in=collection_ids, vector_set__is_current=True)
        self.data, self.waiting = (
            dict(rows.order_by().values_list("collection").annotate(count=Count("pk"))) for rows in (data, waiting)
        )

    def of_data(self, collection: Collection) -> int:
        amount: int = self.data.get(collection.pk, 0)
        return amount

    def of_training(self, collection: Collection) -> int:
        # A source that is still to be read counts as one more.
        amount: int = self.waiting.get(collection.pk, 0) + (collection.state in UNREAD)
        return amount


def represent_collection(collection: Collection, team_id: str, amounts: Amounts) -> dict[str, Any]:
    return {
        "_id": collection.pk,
        "parentId": collection.parent_id,
        "teamId": team_id,
        "datasetId": collection.dataset_id,
        "type": collection.kind,
        "name": collection.name,
        "rawLink": collection.url or None,
        "trainingType": "chunk",
        "tags": [],
        "forbid": False,
        "createTime": collection.created_at,
        "updateTime": collection.updated_at,
        "dataAmount": amounts.of_data(collection),
        "trainingAmount": amounts.of_training(collection),
        "state": collection.state,
        "error": collection.failure,
    }


def represent_datum(datum: Datum, team_id: str) -> dict[str, Any]:
    return {
        "_id": datum.pk,
        "teamId": team_id,
        "datasetId": datum.dataset_id,
        "collectionId": datum.collection_id,
        "q": datum.q,
        "a": datum.a,
        "chunkIndex": datum.chunk_index,
        "updateTime": datum.updated_at,
    }
