"""`core/dataset/data/...`: what a collection knows, entered and changed piece by piece, as FastGPT's clients do."""

from collections.abc import Sequence
from itertools import islice
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from django.db import IntegrityError, transaction
from django.db.models import Q
from rest_framework.request import Request
from rest_framework.response import Response

from apikeys.access.declarations import GLOBAL, team_id_of
from apikeys.api.bodies import decode, decode_query
from apikeys.api.views import ApiView, success
from apikeys.errors import CollectionNotFound, DatumNotFound, InvalidParameter
from apikeys.storable_text import storable
from datasets.api.paging import Page, SearchText
from datasets.api.representations import represent_datum
from datasets.data import MAXIMUM_INDEX_TEXTS, Insertion, NewDatum, change, clean, insert
from datasets.lookups import find_collection, find_datum, lock_datum
from datasets.models import Collection, Datum, Kind
from datasets.texts import MAXIMUM_TOKENS, are_too_long

MAXIMUM_ITEMS = 200

ChunkIndex = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
# There is no other way in which pieces are made of what comes: no model makes any.
TrainingMode = Literal["chunk"]


class GivenIndex(msgspec.Struct):
    """A text by which a datum is found besides its own. What `detail` tells of them may be sent back as it is."""

    text: str
    defaultIndex: bool | None = None
    type: str | None = None


Indexes = Annotated[list[GivenIndex], msgspec.Meta(max_length=MAXIMUM_INDEX_TEXTS + 1)]


class GivenDatum(msgspec.Struct):
    q: str | None = None
    a: str | None = None
    chunkIndex: ChunkIndex | None = None
    indexes: Indexes | None = None

    @property
    def new(self) -> NewDatum:
        texts = index_texts_of(self.indexes or [])
        return NewDatum(clean(self.q or ""), clean(self.a or ""), self.chunkIndex, texts)


class PushedData(msgspec.Struct):
    collectionId: str
    data: Annotated[list[GivenDatum], msgspec.Meta(max_length=MAXIMUM_ITEMS)]
    trainingMode: TrainingMode | None = None
    trainingType: TrainingMode | None = None
    mode: TrainingMode | None = None


class InsertedDatum(GivenDatum, kw_only=True):
    collectionId: str


class ListedData(Page, kw_only=True):
    collectionId: str
    searchText: SearchText | None = None


class ChangedDatum(msgspec.Struct):
    dataId: str | None = None
    id: str | None = None
    q: str | None = None
    a: str | None = None
    indexes: Indexes | None = None


class NamedDatum(msgspec.Struct):
    dataId: str | None = None
    id: str | None = None


PUSHED_DATA = msgspec.json.Decoder(PushedData)
INSERTED_DATUM = msgspec.json.Decoder(InsertedDatum)
LISTED_DATA = msgspec.json.Decoder(ListedData, strict=False)
CHANGED_DATUM = msgspec.json.Decoder(ChangedDatum)
NAMED_DATUM = msgspec.json.Decoder(NamedDatum)


class DataPushView(ApiView):
    """`POST core/dataset/data/pushData`: up to 200 data. The answer says of each that was not taken why."""

    endpoint = "dataset.data.push"
    api_key_access = frozenset({GLOBAL})
    staff_permission = "datasets.add_datum"

    def post(self, request: Request) -> Response:
        body = decode(request._request.body, PUSHED_DATA)
        collection = collection_for_data(request, body.collectionId)
        items = [given.new for given in body.data]
        kinds = ["" if item.q else "error" for item in items]
        for ordinal, is_too_long in enumerate(have_too_long(items)):
            kinds[ordinal] = kinds[ordinal] or ("overToken" if is_too_long else "")
        sound = [ordinal for ordinal, kind in enumerate(kinds) if not kind]
        insertion = insert_data(collection, [items[ordinal] for ordinal in sound])
        for ordinal in insertion.repeated:
            kinds[sound[ordinal]] = "repeat"
        answer: dict[str, Any] = {"insertLen": len(insertion.ids), "overToken": [], "repeat": [], "error": []}
        for given, kind in zip(body.data, kinds, strict=True):
            if kind:
                answer[kind].append({"q": given.q or "", "a": given.a or ""})
        return success(answer)


class DatumInsertView(ApiView):
    """`POST core/dataset/data/insertData`: one datum. Its id is the answer."""

    endpoint = "dataset.data.insert"
    api_key_access = frozenset({GLOBAL})
    staff_permission = "datasets.add_datum"

    def post(self, request: Request) -> Response:
        body = decode(request._request.body, INSERTED_DATUM)
        collection = collection_for_data(request, body.collectionId)
        check_text(body.new)
        insertion = insert_data(collection, [body.new])
        if insertion.repeated:
            raise repeat_error()
        return success(insertion.ids[0])


class DataListView(ApiView):
    """`GET|POST core/dataset/data/list`: the data of a collection, in the order of its source."""

    endpoint = "dataset.data.list"
    api_key_access = frozenset({GLOBAL})
    staff_permission = "datasets.view_datum"
    represent_page: ClassVar[Any] = Page.represent_numbered

    def get(self, request: Request) -> Response:
        return self._list(request, decode_query(request.query_params, ListedData))

    def post(self, request: Request) -> Response:
        return self._list(request, decode(request._request.body, LISTED_DATA))

    def _list(self, request: Request, body: ListedData) -> Response:
        collection = find_collection(team_id_of(request), body.collectionId)
        team_id = collection.dataset.team_id
        rows = Datum.objects.for_team(team_id).filter(collection=collection)
        if body.searchText:
            text = storable(body.searchText)
            rows = rows.filter(Q(q__icontains=text) | Q(a__icontains=text))
        data = body.of(rows.order_by("chunk_index", "pk").defer("words", "digest"))
        return success(
            type(self).represent_page(body, [represent_datum(datum, team_id) for datum in data], rows.count())
        )


class DataListV2View(DataListView):
    """`GET|POST core/dataset/data/v2/list`: the same, as newer clients read it."""

    represent_page = Page.represent


class DatumDetailView(ApiView):
    """`GET core/dataset/data/detail?id=`: a datum with the texts that it is found by."""

    endpoint = "dataset.data.detail"
    api_key_access = frozenset({GLOBAL})
    staff_permission = "datasets.view_datum"

    def get(self, request: Request) -> Response:
        team_id = team_id_of(request)
        datum = find_datum(team_id, request.query_params.get("id"))
        source = datum.collection
        indexes = [
            {
                "_id": str(index_text.pk),
                "dataId": str(index_text.pk),
                "defaultIndex": index_text.is_default,
                "type": "default" if index_text.is_default else "custom",
                "text": index_text.text,
            }
            for index_text in datum.index_texts.order_by("-is_default", "pk")
        ]
        return success(
            {
                "id": datum.pk,
                **represent_datum(datum, team_id),
                "indexes": indexes,
                "sourceName": source.name,
                "sourceId": source.url or source.pk,
            }
        )


class DatumUpdateView(ApiView):
    """`PUT|POST core/dataset/data/update`: another text. What a body does not name stays."""

    endpoint = "dataset.data.update"
    api_key_access = frozenset({GLOBAL})
    staff_permission = "datasets.change_datum"

    def put(self, request: Request) -> Response:
        body = decode(request._request.body, CHANGED_DATUM)
        team_id = team_id_of(request)
        texts = None if body.indexes is None else index_texts_of(body.indexes)
        try:
            with transaction.atomic():
                datum = lock_datum(team_id, body.dataId or body.id)
                q = datum.q if body.q is None else clean(body.q)
                a = datum.a if body.a is None else clean(body.a)
                check_text(NewDatum(q, a, index_texts=texts or ()))
                change(datum, q=q, a=a, index_texts=texts)
        except IntegrityError:
            raise repeat_error() from None
        return success(None)

    post = put


class DatumDeleteView(ApiView):
    """`DELETE|POST core/dataset/data/delete`: a datum with its texts and vectors."""

    endpoint = "dataset.data.delete"
    api_key_access = frozenset({GLOBAL})
    staff_permission = "datasets.delete_datum"

    def delete(self, request: Request) -> Response:
        return self._delete(request, request.query_params.get("id"))

    def post(self, request: Request) -> Response:
        body = decode(request._request.body, NAMED_DATUM)
        return self._delete(request, body.dataId or body.id)

    def _delete(self, request: Request, datum_id: str | None) -> Response:
        datum = find_datum(team_id_of(request), datum_id)
        removed, _ = Datum.objects.filter(pk=datum.pk).delete()
        if not removed:
            raise DatumNotFound
        # FastGPT answers with this word.
        return success("success")


def collection_for_data(request: Request, collection_id: str) -> Collection:
    collection = find_collection(team_id_of(request), collection_id)
    if collection.kind == Kind.FOLDER:
        raise InvalidParameter("collectionId: This is a folder. Data belong in a collection.", param="collectionId")
    return collection


def insert_data(collection: Collection, items: Sequence[NewDatum]) -> Insertion:
    try:
        return insert(collection, items) if items else Insertion()
    except IntegrityError:
        # It, or its dataset, was removed after it had been found.
        raise CollectionNotFound from None


def index_texts_of(indexes: Sequence[GivenIndex]) -> list[str]:
    """Leave out the datum's own text, which follows the datum. Raise InvalidParameter when there are too many."""
    texts = [index.text for index in indexes if not index.defaultIndex and index.type != "default"]
    if len(texts) > MAXIMUM_INDEX_TEXTS:
        raise InvalidParameter(f"indexes: There are more than {MAXIMUM_INDEX_TEXTS} texts.", param="indexes")
    return texts


def have_too_long(items: Sequence[NewDatum]) -> list[bool]:
    found = iter(are_too_long([text for item in items for text in texts_of(item)]))
    return [any(list(islice(found, len(texts_of(item))))) for item in items]


def texts_of(item: NewDatum) -> list[str]:
    return [f"{item.q}\n{item.a}", *item.index_texts]


def check_text(item: NewDatum) -> None:
    if not item.q:
        raise InvalidParameter("q: Give a text.", param="q")
    if any(are_too_long(texts_of(item))):
        raise InvalidParameter(f"q: A text has more than {MAXIMUM_TOKENS} tokens.", param="q")


def repeat_error() -> InvalidParameter:
    return InvalidParameter("q: The collection has this question and answer already.", param="q")
