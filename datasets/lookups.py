"""Look-ups and locks of the rows that a call names. Rows of other teams are as if there were none."""

from typing import Any

from django.db import connection
from django.db.models import QuerySet

from apikeys.errors import CollectionNotFound, DatasetNotFound, DatumNotFound
from apikeys.object_ids import is_object_id
from datasets.data import HOLD
from datasets.models import Collection, Dataset, Datum


def find_dataset(team_id: str, dataset_id: str | None) -> Dataset:
    dataset: Dataset | None = _find(Dataset.objects.for_team(team_id), dataset_id)
    if dataset is None:
        raise DatasetNotFound
    return dataset


def find_collection(team_id: str, collection_id: str | None, **filters: Any) -> Collection:
    rows = Collection.objects.for_team(team_id).filter(**filters).select_related("dataset")
    collection: Collection | None = _find(rows, collection_id)
    if collection is None:
        raise CollectionNotFound
    return collection


def find_datum(team_id: str, datum_id: str | None) -> Datum:
    datum: Datum | None = _find(Datum.objects.for_team(team_id).select_related("collection"), datum_id)
    if datum is None:
        raise DatumNotFound
    return datum


def lock_dataset(team_id: str, dataset_id: str | None, *, for_removal: bool = False) -> Dataset:
    """Lock a dataset against change and removal until the transaction ends. Raise DatasetNotFound."""
    rows = Dataset.objects.for_team(team_id).select_for_update(no_key=not for_removal)
    dataset: Dataset | None = _find(rows, dataset_id)
    if dataset is None:
        raise DatasetNotFound
    return dataset


def lock_collections(team_id: str, collection_ids: list[str], *, for_removal: bool = False) -> list[Collection]:
    """Lock all of them, or raise CollectionNotFound. For a removal, lock their datasets before them."""
    ids = set(collection_ids)
    if not all(map(is_object_id, ids)):
        raise CollectionNotFound
    if for_removal:
        lock_datasets_of(Collection.objects.for_team(team_id).filter(pk__in=ids))
    rows = Collection.objects.for_team(team_id).filter(pk__in=ids).select_related("dataset")
    found = list(rows.select_for_update(of=("self",), no_key=not for_removal).order_by("pk"))
    if len(found) != len(ids):
        raise CollectionNotFound
    return found


def lock_datasets_of(rows: QuerySet[Any]) -> None:
    """Lock the datasets that these rows lie in, until the transaction ends: for a removal of several rows.

    Two such removals in one dataset could otherwise each wait for what the other has taken.
    """
    owners = rows.order_by().values("dataset")
    list(Dataset.objects.filter(pk__in=owners).select_for_update(no_key=True).order_by("pk"))


def lock_datum(team_id: str, datum_id: str | None) -> Datum:
    """Lock a datum against change and removal until the transaction ends. Raise DatumNotFound."""
    found = find_datum(team_id, datum_id)
    # Its dataset and its collection are held first, in the order in which they are removed.
    with connection.cursor() as cursor:
        cursor.execute(HOLD, {"dataset_id": found.dataset_id})
        cursor.execute("SELECT 1 FROM datasets_collection WHERE id = %s FOR KEY SHARE", [found.collection_id])
    rows = Datum.objects.for_team(team_id).select_for_update(of=("self",))
    datum: Datum | None = _find(rows, datum_id)
    if datum is None:
        raise DatumNotFound
    return datum


def _find(rows: Any, row_id: str | None) -> Any:
    return rows.filter(pk=row_id).first() if row_id and is_object_id(row_id) else None
