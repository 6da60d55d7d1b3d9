"""`core/dataset/collection/create/...`: collections from a text, a link or a file. A job reads what they are given."""

from typing import Annotated, Any, Literal

import msgspec
from django.conf import settings
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest
from django.http.multipartparser import MultiPartParserError
from rest_framework.request import Request
from rest_framework.response import Response

from apikeys.access.declarations import GLOBAL, team_id_of
from apikeys.api.bodies import decode
from apikeys.api.views import ApiView, success
from apikeys.errors import BodyTooLarge, InvalidParameter
from datasets.conversion.formats import Unreadable
from datasets.folders import find_folder
from datasets.imports import sources
from datasets.lookups import find_dataset
from datasets.metadata import clean_metadata
from datasets.models import LARGEST_CHUNK, SMALLEST_CHUNK, USUAL_CHUNK, Collection, Dataset
from datasets.names import CollectionName, clean_name

ChunkSize = Annotated[int, msgspec.Meta(ge=SMALLEST_CHUNK, le=LARGEST_CHUNK)]


class Source(msgspec.Struct, kw_only=True):
    """Base of all three bodies."""

    datasetId: str
    parentId: str | None = None
    name: CollectionName | None = None
    trainingType: Literal["chunk"] | None = None
    trainingMode: Literal["chunk"] | None = None
    chunkSize: ChunkSize | None = None
    metadata: dict[str, Any] | None = None

    def target(self, request: Request) -> tuple[Dataset, sources.ImportOptions]:
        dataset = find_dataset(team_id_of(request), self.datasetId)
        return dataset, sources.ImportOptions(
            name=clean_name(self.name) if self.name else "",
            parent=find_folder(dataset, self.parentId),
            chunk_size=self.chunkSize or USUAL_CHUNK,
            metadata=clean_metadata(self.metadata or {}),
        )


class TextSource(Source, kw_only=True):
    text: str
    name: CollectionName


class LinkSource(Source, kw_only=True):
    link: str


TEXT_SOURCE = msgspec.json.Decoder(TextSource)
LINK_SOURCE = msgspec.json.Decoder(LinkSource)
FILE_SOURCE = msgspec.json.Decoder(Source)


class CreateFromTextView(ApiView):
    """`POST core/dataset/collection/create/text`: a text, plain or Markdown."""

    endpoint = "dataset.collection.create_text"
    api_key_access = frozenset({GLOBAL})
    staff_permission = "datasets.add_collection"

    def post(self, request: Request) -> Response:
        body = decode(request._request.body, TEXT_SOURCE)
        dataset, options = body.target(request)
        try:
            return respond_accepted(sources.from_text(dataset, body.text, options))
        except Unreadable as error:
            raise refusal_of(error, "text") from None


class CreateFromLinkView(ApiView):
    """`POST core/dataset/collection/create/link`: a page, by its URL."""

    endpoint = "dataset.collection.create_link"
    api_key_access = frozenset({GLOBAL})
    staff_permission = "datasets.add_collection"

    def post(self, request: Request) -> Response:
        body = decode(request._request.body, LINK_SOURCE)
        dataset, options = body.target(request)
        try:
            return respond_accepted(sources.from_link(dataset, body.link, options))
        except Unreadable as error:
            raise refusal_of(error, "link") from None


class CreateFromFileView(ApiView):
    """`POST core/dataset/collection/create/localFile`: a form of `file`, and `data`, which is JSON."""

    endpoint = "dataset.collection.create_local_file"
    api_key_access = frozenset({GLOBAL})
    staff_permission = "datasets.add_collection"
    takes_file = True

    def post(self, request: Request) -> Response:
        text, file = form_of(request._request)
        try:
            body = decode(text.encode(errors="replace"), FILE_SOURCE)
        except InvalidParameter as error:
            raise InvalidParameter(error.message, param=error.param or "data") from None
        dataset, options = body.target(request)
        try:
            return respond_accepted(sources.from_file(dataset, file, file.name or "", options))
        except Unreadable as error:
            raise refusal_of(error, "file") from None


def form_of(request: HttpRequest) -> "tuple[str, UploadedFile[Any]]":
    """Return `data` and `file`. Parsing writes a large file to the disk. Raise InvalidParameter or BodyTooLarge."""
    try:
        file, text = request.FILES.get("file"), request.POST.get("data")
    except RequestDataTooBig:
        raise BodyTooLarge("The form's fields are too large.") from None
    except (MultiPartParserError, SuspiciousOperation):
        raise InvalidParameter("The body is not a form of the type multipart/form-data.") from None
    if not isinstance(file, UploadedFile):
        raise InvalidParameter("file: Send the file as a part of a form, with its name.", param="file")
    if not text:
        raise InvalidParameter("data: Send the other fields as JSON in a part of this name.", param="data")
    if (file.size or 0) > settings.DATASET_MAX_FILE_BYTES:
        raise BodyTooLarge(f"The file is larger than {settings.DATASET_MAX_FILE_BYTES} bytes.")
    return text, file


def refusal_of(error: Unreadable, param: str) -> InvalidParameter:
    return InvalidParameter(f"{param}: {error}", param=param)


def respond_accepted(collection: Collection) -> Response:
    # FastGPT responds so. Nothing has been read yet, so nothing is counted: the collection's detail tells.
    results: dict[str, Any] = {"insertLen": 0, "overToken": [], "repeat": [], "error": []}
    return success({"collectionId": collection.pk, "results": results})
