"""`core/dataset/collection/...`: what is in a dataset, in folders, as FastGPT's clients manage it."""

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from django.db import transaction
from rest_framework.request import Request
from rest_framework.response import Response

from apikeys.access.declarations import GLOBAL, team_id_of
from apikeys.api.bodies import decode, decode_query
from apikeys.api.views import ApiView, success
from apikeys.errors import InvalidParameter
from apikeys.storable_text import storable
from datasets.api.paging import Page, SearchText
from datasets.api.representations import Amounts, represent_collection, represent_dataset
from datasets.folders import check_depth, check_place, lock_folder
from datasets.lookups import find_collection, find_dataset, lock_collections, lock_dataset
from datasets.metadata import clean_metadata
from datasets.models import Collection, Kind
from datasets.names import CollectionName, clean_name

# One call may remove so many collections.
MAXIMUM_REMOVED = 100


class NewCollection(msgspec.Struct):
    datasetId: str
    name: CollectionName
    parentId: str | None = None
    type: Literal["folder", "virtual"] | None = None
    metadata: dict[str, Any] | None = None
    trainingType: Literal["chunk"] | None = None
    trainingMode: Literal["chunk"] | None = None


class ListedCollections(Page, kw_only=True):
    datasetId: str
    parentId: str | None = None
    searchText: SearchText | None = None


class ChangedCollection(msgspec.Struct):
    """A `parentId` of null moves nothing, as null means absent; an empty one moves to the dataset's root."""

    id: str
    name: CollectionName | None = None
    parentId: str | None = None


class NamedCollections(msgspec.Struct):
    collectionIds: Annotated[list[str], msgspec.Meta(max_length=MAXIMUM_REMOVED)] | None = None
    id: str | None = None


NEW_COLLECTION = msgspec.json.Decoder(NewCollection)
LISTED_COLLECTIONS = msgspec.json.Decoder(ListedCollections, strict=False)
CHANGED_COLLECTION = msgspec.json.Decoder(ChangedCollection)
NAMED_COLLECTIONS = msgspec.json.Decoder(NamedCollections)


class CollectionCreateView(ApiView):
    """`POST core/dataset/collection/create`: a folder, or a collection for data to come. Its id is the answer."""

    endpoint = "dataset.collection.create"
    api_key_access = frozenset({GLOBAL})
    staff_permission = "datasets.add_collection"

    def post(self, request: Request) -> Response:
        body = decode(request._request.body, NEW_COLLECTION)
        collection = Collection(
            name=clean_name(body.name),
            kind=body.type or Kind.VIRTUAL,
            metadata=clean_metadata(body.metadata or {}),
        )
        with transaction.atomic():
            # Locked, so that no folder is moved or removed meanwhile.
            collection.dataset = lock_dataset(team_id_of(request), body.datasetId)
            collection.parent = lock_folder(collection.dataset, body.parentId)
            check_depth(collection.parent_id, 1 if collection.kind == Kind.FOLDER else 0)
            collection.save(force_insert=True)
        return success(collection.pk)


class CollectionListView(ApiView):
    """`GET|POST core/dataset/collection/list`: what is in a dataset's root or in one of its folders, newest first."""

    endpoint = "dataset.collection.list"
    api_key_access = frozenset({GLOBAL})
    staff_permission = "datasets.view_collection"
    represent_page: ClassVar[Any] = Page.represent_numbered

    def get(self, request: Request) -> Response:
        return self._list(request, decode_query(request.query_params, ListedCollections))

    def post(self, request: Request) -> Response:
        return self._list(request, decode(request._request.body, LISTED_COLLECTIONS))

    def _list(self, request: Request, body: ListedCollections) -> Response:
        dataset = find_dataset(team_id_of(request), body.datasetId)
        rows = Collection.objects.for_team(dataset.team_id).filter(dataset=dataset)
        if body.parentId:
            rows = rows.filter(parent=find_collection(dataset.team_id, body.parentId, dataset=dataset))
        else:
            rows = rows.filter(parent=None)
        if body.searchText:
            rows = rows.filter(name__icontains=storable(body.searchText))
        collections: list[Collection] = body.of(rows)
        amounts = Amounts(collections)
        answer = [represent_collection(collection, dataset.team_id, amounts) for collection in collections]
        return success(type(self).represent_page(body, answer, rows.count()))


class CollectionListV2View(CollectionListView):
    """`GET|POST core/dataset/collection/listV2`: the same, as newer clients read it."""

    represent_page = Page.represent


class CollectionDetailView(ApiView):
    """`GET core/dataset/collection/detail?id=`: a collection, its dataset, and how far its import is."""

    endpoint = "dataset.collection.detail"
    api_key_access = frozenset({GLOBAL})
    staff_permission = "datasets.view_collection"

    def get(self, request: Request) -> Response:
        collection = find_collection(team_id_of(request), request.query_params.get("id"))
        dataset = collection.dataset
        return success(
            {
                **represent_collection(collection, dataset.team_id, Amounts([collection])),
                "dataset": represent_dataset(dataset),
                "sourceName": collection.name,
                "sourceId": collection.url or collection.pk,
                "chunkSize": collection.chunk_size,
                "chunkSplitter": "",
                "qaPrompt": "",
                "metadata": collection.metadata,
                "repeat": collection.repeated,
                "chunksRead": collection.chunks_read,
                "leftOut": collection.left_out,
                **refusals_of(collection),
            }
        )


class CollectionUpdateView(ApiView):
    """`PUT|POST core/dataset/collection/update`: another name, or another folder of the same dataset."""

    endpoint = "dataset.collection.update"
    api_key_access = frozenset({GLOBAL})
    staff_permission = "datasets.change_collection"

    def put(self, request: Request) -> Response:
        body = decode(request._request.body, CHANGED_COLLECTION)
        team_id = team_id_of(request)
        dataset_id = find_collection(team_id, body.id).dataset_id
        with transaction.atomic():
            # One at a time in a dataset: two moves at once could put each folder into the other.
            dataset = lock_dataset(team_id, dataset_id)
            (collection,) = lock_collections(team_id, [body.id])
            columns = []
            if body.name is not None:
                collection.name = clean_name(body.name)
                columns.append("name")
            if body.parentId is not None:
                collection.parent = lock_folder(dataset, body.parentId)
                check_place(collection)
                columns.append("parent")
            if columns:
                collection.save(update_fields=[*columns, "updated_at"])
        return success(None)

    post = put


class CollectionDeleteView(ApiView):
    """`DELETE|POST core/dataset/collection/delete`: collections with their data, folders with all that is in them."""

    endpoint = "dataset.collection.delete"
    api_key_access = frozenset({GLOBAL})
    staff_permission = "datasets.delete_collection"

    def delete(self, request: Request) -> Response:
        return self._delete(request, [request.query_params.get("id", "")])

    def post(self, request: Request) -> Response:
        body = decode(request._request.body, NAMED_COLLECTIONS)
        collection_ids = body.collectionIds or ([body.id] if body.id else [])
        if not collection_ids:
            raise InvalidParameter("collectionIds: Name at least one.", param="collectionIds")
        return self._delete(request, collection_ids)

    def _delete(self, request: Request, collection_ids: list[str]) -> Response:
        with transaction.atomic():
            for collection in lock_collections(team_id_of(request), collection_ids, for_removal=True):
                # One row for Django: what belongs to it goes by the database's own cascades.
                collection.delete()
        return success(None)


def refusals_of(collection: Collection) -> dict[str, Any]:
    rows = collection.pending.filter(vector_set__is_current=True).exclude(failure="").order_by("-pk")
    last = rows.first()
    return {"refused": rows.count(), "refusal": last.failure if last else ""}
