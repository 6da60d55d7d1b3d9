"""`core/dataset/...`: knowledge bases, their names and their models, as FastGPT's clients manage them."""

from typing import Annotated, Any, Literal

import msgspec
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Count, prefetch_related_objects
from rest_framework.request import Request
from rest_framework.response import Response

from apikeys.access.declarations import GLOBAL, ApiCredential, team_id_of
from apikeys.api.bodies import decode, decode_query
from apikeys.api.views import ApiView, success
from apikeys.errors import InvalidParameter, ModelNotAllowed
from apikeys.object_ids import is_object_id
from apikeys.storable_text import storable
from apikeys.teams import Team
from datasets.api.paging import SearchText
from datasets.api.representations import current_set, next_set, represent_dataset, represent_model
from datasets.lookups import find_dataset, lock_dataset
from datasets.models import USUAL_CHUNK, Dataset, PendingVector, VectorSet
from datasets.names import DatasetName, clean_name
from datasets.texts import STATIC_MODEL
from datasets.vectors import sets as vector_sets

# A list has at most so many of a team's datasets, by name: FastGPT's has no more than one page.
MAXIMUM_DATASETS = 1_000

Intro = Annotated[str, msgspec.Meta(max_length=500)]
ModelName = Annotated[str, msgspec.Meta(max_length=200)]
# Requests spell a dataset's fields so.
SPELLED = {"rerank_provider": "rerankProviderId", "rerank_model": "rerankModel"}


class GivenModel(msgspec.Struct):
    """Base of bodies that say who makes a dataset's vectors. An empty `providerId` is this server itself."""

    vectorModel: ModelName | None = None
    providerId: str | None = None

    def choose_model(self, team_id: str, present: VectorSet | None = None) -> tuple[Any, str] | None:
        """Return (provider or None, model); None where a request leaves it as it is. Raise InvalidParameter."""
        model = clean_name(self.vectorModel, "vectorModel") if self.vectorModel else ""
        if self.providerId:
            if not model:
                raise InvalidParameter("vectorModel: Name the provider's model as well.", param="vectorModel")
            return find_provider(team_id, self.providerId, "providerId"), model
        if model in ("", STATIC_MODEL):
            return (None, STATIC_MODEL) if model or self.providerId is not None else None
        if present is None or present.provider_id is None or self.providerId is not None:
            raise InvalidParameter(
                f"vectorModel: This server's own model is {STATIC_MODEL}. Name the provider of another in providerId.",
                param="vectorModel",
            )
        return present.provider, model


class NewDataset(GivenModel, kw_only=True):
    name: DatasetName
    intro: Intro | None = None
    parentId: str | None = None
    type: Literal["dataset"] | None = None


class ChangedDataset(GivenModel, kw_only=True):
    id: str
    name: DatasetName | None = None
    intro: Intro | None = None
    parentId: str | None = None
    rerankProviderId: str | None = None
    rerankModel: ModelName | None = None


class ListedDatasets(msgspec.Struct):
    parentId: str | None = None
    searchKey: SearchText | None = None


class NamedDataset(msgspec.Struct):
    id: str


NEW_DATASET = msgspec.json.Decoder(NewDataset)
CHANGED_DATASET = msgspec.json.Decoder(ChangedDataset)
LISTED_DATASETS = msgspec.json.Decoder(ListedDatasets)
NAMED_DATASET = msgspec.json.Decoder(NamedDataset)


class DatasetCreateView(ApiView):
    """`POST core/dataset/create`: an empty dataset. Its id is the answer."""

    endpoint = "dataset.create"
    api_key_access = frozenset({GLOBAL})
    staff_permission = "datasets.add_dataset"

    def post(self, request: Request) -> Response:
        body = decode(request._request.body, NEW_DATASET)
        check_root(body.parentId)
        team_id = team_id_of(request)
        dataset = Dataset(team_id=team_id, name=clean_name(body.name), intro=storable(body.intro or "").strip())
        with transaction.atomic():
            provider, model = body.choose_model(team_id) or (None, STATIC_MODEL)
            check_model(request, model)
            dataset.save(force_insert=True)
            vector_sets.create(dataset, provider, model)
        return success(dataset.pk)


class DatasetListView(ApiView):
    """`GET|POST core/dataset/list`: the team's datasets, by name."""

    endpoint = "dataset.list"
    api_key_access = frozenset({GLOBAL})
    staff_permission = "datasets.view_dataset"

    def get(self, request: Request) -> Response:
        return self._list(request, decode_query(request.query_params, ListedDatasets))

    def post(self, request: Request) -> Response:
        return self._list(request, decode(request._request.body or b"{}", LISTED_DATASETS))

    def _list(self, request: Request, body: ListedDatasets) -> Response:
        check_root(body.parentId)
        rows = Dataset.objects.for_team(team_id_of(request))
        if body.searchKey:
            rows = rows.filter(name__icontains=storable(body.searchKey))
        datasets: list[Dataset] = list(rows.prefetch_related("vector_sets")[:MAXIMUM_DATASETS])
        return success([represent_dataset(dataset) for dataset in datasets])


class DatasetDetailView(ApiView):
    """`GET core/dataset/detail?id=`: a dataset with its models, and what waits for them."""

    endpoint = "dataset.detail"
    api_key_access = frozenset({GLOBAL})
    staff_permission = "datasets.view_dataset"

    def get(self, request: Request) -> Response:
        dataset = find_dataset(team_id_of(request), request.query_params.get("id"))
        prefetch_related_objects([dataset], "vector_sets")
        waiting = dict(
            PendingVector.objects.open()
            .filter(vector_set__dataset=dataset)
            .order_by()
            .values_list("vector_set")
            .annotate(count=Count("pk"))
        )
        coming = next_set(dataset)
        rerank = {"model": dataset.rerank_model, "providerId": dataset.rerank_provider_id}
        return success(
            {
                **represent_dataset(dataset),
                "createTime": dataset.created_at,
                "chunkSize": USUAL_CHUNK,
                "trainingAmount": waiting.get(current_set(dataset).pk, 0),
                "error": current_set(dataset).failure,
                "rerankModel": rerank if dataset.rerank_model else None,
                "nextVectorModel": coming
                and {
                    **represent_model(coming),
                    "trainingAmount": waiting.get(coming.pk, 0),
                    "error": coming.failure,
                },
            }
        )


class DatasetUpdateView(ApiView):
    """`PUT|POST core/dataset/update`: another name, intro or model. What a body does not name stays."""

    endpoint = "dataset.update"
    api_key_access = frozenset({GLOBAL})
    staff_permission = "datasets.change_dataset"

    def put(self, request: Request) -> Response:
        body = decode(request._request.body, CHANGED_DATASET)
        check_root(body.parentId)
        team_id = team_id_of(request)
        with transaction.atomic():
            dataset = lock_dataset(team_id, body.id)
            chosen = body.choose_model(team_id, next_set(dataset) or current_set(dataset))
            if chosen is not None:
                check_model(request, chosen[1])
            columns = columns_of(dataset, body)
            if dataset.rerank_model and not {"rerank_provider", "rerank_model"}.isdisjoint(columns):
                check_model(request, dataset.rerank_model)
            if columns:
                dataset.save(update_fields=[*columns, "updated_at"])
            if chosen is not None:
                vector_sets.change_model(dataset, *chosen)
        return success(None)

    post = put


class DatasetDeleteView(ApiView):
    """`DELETE|POST core/dataset/delete`: a dataset with all that is in it."""

    endpoint = "dataset.delete"
    api_key_access = frozenset({GLOBAL})
    staff_permission = "datasets.delete_dataset"

    def delete(self, request: Request) -> Response:
        return self._delete(request, request.query_params.get("id", ""))

    def post(self, request: Request) -> Response:
        return self._delete(request, decode(request._request.body, NAMED_DATASET).id)

    def _delete(self, request: Request, dataset_id: str) -> Response:
        try:
            with transaction.atomic():
                # One row for Django: what belongs to it goes by the database's own cascades.
                lock_dataset(team_id_of(request), dataset_id, for_removal=True).delete()
        except IntegrityError:
            raise InvalidParameter("An app uses this dataset. Remove it from that app first.", param="id") from None
        return success(None)


def check_root(parent_id: str | None) -> None:
    if parent_id:
        raise InvalidParameter("parentId: Datasets have no folders. Omit it.", param="parentId")


def check_model(request: Request, model: str) -> None:
    # A dataset's model costs the team, whoever asks it: a key gives a dataset only a model that it may use itself.
    credential = request.auth
    allowed = credential.policy.allowed_models if isinstance(credential, ApiCredential) else ()
    if allowed and model not in allowed:
        raise ModelNotAllowed(f"This API key may not use the model {model}.")


def find_provider(team_id: str, provider_id: str, param: str) -> Any:
    """Return a `chat.Provider` of the team, locked until the transaction ends. Raise InvalidParameter."""
    # The team's own relation: this package imports nothing of `chat`.
    providers: Any = Team(pk=team_id).providers
    rows = providers.select_for_update(no_key=True)
    provider = rows.filter(pk=provider_id).first() if is_object_id(provider_id) else None
    if provider is None:
        raise InvalidParameter(f"{param}: There is no such provider.", param=param)
    return provider


def columns_of(dataset: Dataset, body: ChangedDataset) -> list[str]:
    """Set what a body names on the row; return the names of those columns. Empty texts take a rerank model away."""
    given: dict[str, Any] = {}
    if body.name is not None:
        given["name"] = clean_name(body.name)
    if body.intro is not None:
        given["intro"] = storable(body.intro).strip()
    if body.rerankProviderId is not None:
        provider_id = body.rerankProviderId
        given["rerank_provider"] = (
            find_provider(dataset.team_id, provider_id, "rerankProviderId") if provider_id else None
        )
    if body.rerankModel is not None:
        given["rerank_model"] = clean_name(body.rerankModel, "rerankModel") if body.rerankModel else ""
    for name, value in given.items():
        setattr(dataset, name, value)
    if given.keys() & SPELLED.keys():
        try:
            dataset.clean()
        except ValidationError as error:
            field, messages = next(iter(error.message_dict.items()))
            param = SPELLED[field]
            raise InvalidParameter(f"{param}: {' '.join(messages)}", param=param) from None
    return list(given)


# The one or two sets of a dataset. A list prefetches those of all its rows.
