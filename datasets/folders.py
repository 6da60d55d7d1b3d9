"""Folders of collections in a dataset: where something may be put."""

from django.db import connection

from apikeys.errors import InvalidParameter
from datasets.lookups import find_collection, lock_collections
from datasets.models import Collection, Dataset, Kind

# The database's cascade goes one level deeper for each folder inside another.
MAXIMUM_DEPTH = 20


def find_folder(dataset: Dataset, folder_id: str | None) -> Collection | None:
    """Return None for the dataset's root. Raise CollectionNotFound, or InvalidParameter for what is no folder."""
    if not folder_id:
        return None
    folder = find_collection(dataset.team_id, folder_id, dataset=dataset)
    if folder.kind != Kind.FOLDER:
        raise InvalidParameter("parentId: This collection is not a folder.", param="parentId")
    return folder


def lock_folder(dataset: Dataset, folder_id: str | None) -> Collection | None:
    """Find a folder as `find_folder` does, and lock it until the transaction ends."""
    folder = find_folder(dataset, folder_id)
    if folder is not None:
        lock_collections(dataset.team_id, [folder.pk])
    return folder


ANCESTORS = """
WITH RECURSIVE ancestor AS (
    SELECT id, parent_id FROM datasets_collection WHERE id = %s
    UNION
    SELECT parent.id, parent.parent_id
    FROM datasets_collection AS parent JOIN ancestor ON parent.id = ancestor.parent_id
)
SELECT id FROM ancestor
"""
HEIGHT = """
WITH RECURSIVE inside AS (
    SELECT id, 1 AS level FROM datasets_collection WHERE id = %s AND kind = 'folder'
    UNION ALL
    SELECT child.id, inside.level + 1 FROM datasets_collection AS child JOIN inside ON child.parent_id = inside.id
    WHERE child.kind = 'folder'
)
SELECT coalesce(max(level), 0) FROM inside
"""


def check_place(collection: Collection) -> None:
    with connection.cursor() as cursor:
        cursor.execute(HEIGHT, [collection.pk])
        (height,) = cursor.fetchone()
    check_depth(collection.parent_id, height, moved_id=collection.pk)


def check_depth(folder_id: str | None, height: int, moved_id: str | None = None) -> None:
    """Raise InvalidParameter when a branch, `height` folders high, would be in itself or too deep in this folder."""
    with connection.cursor() as cursor:
        cursor.execute(ANCESTORS, [folder_id])
        above = {row[0] for row in cursor.fetchall()}
    if moved_id in above:
        raise InvalidParameter("parentId: A folder cannot be in itself.", param="parentId")
    if len(above) + height > MAXIMUM_DEPTH:
        raise InvalidParameter(f"parentId: Folders are at most {MAXIMUM_DEPTH} deep.", param="parentId")
