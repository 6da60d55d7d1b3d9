"""`core/app/list` and `v1/models`: what a key may talk to."""

from collections.abc import Iterator
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from apikeys.access.declarations import APP, GLOBAL, GLOBAL_NAMING_APP, ApiCredential, team_id_of
from apikeys.api.views import ApiView, success
from apikeys.errors import ModelNotFound, WrongKeyKind
from apikeys.keys.kinds import AccessKind
from chat.catalog import CatalogModel, ModelKind
from chat.models import App
from datasets.models import Dataset
from datasets.texts import STATIC_MODEL


class AppListView(ApiView):
    """`GET|POST core/app/list`: the team's apps."""

    endpoint = "app.list"
    api_key_access = frozenset({GLOBAL})
    staff_permission = "chat.view_app"

    def get(self, request: Request) -> Response:
        apps = App.objects.for_team(team_id_of(request)).filter(archived_at=None)
        return success(
            [
                {
                    "_id": app.pk,
                    "name": app.name,
                    "intro": app.intro,
                    "type": "simple",
                    "avatar": "",
                    "teamId": app.team_id,
                    "updateTime": app.updated_at,
                }
                for app in apps
            ]
        )

    post = get


class ModelListView(ApiView):
    """`GET v1/models` and `GET v1/models/{id}`, in OpenAI's form: what the key may name as `model`."""

    endpoint = "models.list"
    api_key_access = frozenset({APP, GLOBAL, GLOBAL_NAMING_APP})
    staff_permission = None
    is_metered = False

    def get(self, request: Request, model_id: str | None = None) -> Response:
        credential: ApiCredential = request.auth  # type: ignore[assignment]
        models = models_of(credential)
        if model_id is None:
            response = success(models)
            response.data["object"] = "list"
            return response
        found = next((model for model in models if model["id"] == model_id), None)
        if found is None:
            raise ModelNotFound(suggestion(model_id, models))
        response = success(found)
        response.data |= found
        return response


def models_of(credential: ApiCredential) -> list[dict[str, Any]]:
    """Return what a key may name as `model`: the model of its app, or apps, and the team's models that are no chat's.

    Raise WrongKeyKind when the key's suffix names an app that it may not name.
    """
    policy = credential.policy
    apps = App.objects.for_team(policy.team_id).filter(archived_at=None, model__archived_at=None)
    apps = apps.select_related("model")
    if policy.app_id is not None:
        if credential.named_app_id not in (None, policy.app_id):
            raise WrongKeyKind("This is the key of one app, and the request names another.")
        models = [_of_model(app.model) for app in apps.filter(pk=policy.app_id)]
    else:
        if policy.kind != AccessKind.GLOBAL_NAMING_APP:
            if credential.named_app_id is not None:
                raise WrongKeyKind("This API key may not name an app.")
            apps = apps.none()
        elif credential.named_app_id is not None:
            apps = apps.filter(pk=credential.named_app_id)
        models = [_of_app(app) for app in apps] + _without_apps(policy.team_id)
    allowed = policy.allowed_models
    return [model for model in models if not allowed or model["name"] in allowed]


def _without_apps(team_id: str) -> list[dict[str, Any]]:
    """Return the models that need no app: of the catalog, of the team's datasets, and this server's own."""
    catalog = CatalogModel.objects.for_team(team_id).filter(archived_at=None).exclude(kind=ModelKind.CHAT)
    found = {(model.kind, model.name): _of_model(model) for model in catalog}
    for kind, name, created_at in _of_datasets(team_id):
        found.setdefault((kind, name), _entry(name, name, kind, created_at, team_id))
    return list(found.values())


def _of_datasets(team_id: str) -> Iterator[tuple[ModelKind, str, datetime]]:
    yield ModelKind.EMBEDDING, STATIC_MODEL, datetime(2026, 1, 1, tzinfo=UTC)
    for dataset in Dataset.objects.for_team(team_id).prefetch_related("vector_sets"):
        for vector_set in dataset.vector_sets.all():
            yield ModelKind.EMBEDDING, vector_set.model, vector_set.created_at
        if dataset.rerank_model:
            yield ModelKind.RERANK, dataset.rerank_model, dataset.created_at


def _of_model(model: CatalogModel) -> dict[str, Any]:
    entry = _entry(model.name, model.name, model.kind, model.created_at, model.team_id)
    return entry | ({} if model.context_length is None else {"context_length": model.context_length})


def _of_app(app: App) -> dict[str, Any]:
    model = app.model
    return _entry(app.pk, model.name, model.kind, app.created_at, app.team_id) | {"app": app.name}


def _entry(id: str, name: str, kind: str, created_at: datetime, team_id: str) -> dict[str, Any]:
    created = int(created_at.timestamp())
    return {"id": id, "object": "model", "created": created, "owned_by": team_id, "name": name, "kind": kind}


def suggestion(name: str, models: list[dict[str, Any]]) -> str:
    """Return a message that names what is nearest to a model that the key may not name."""
    near = get_close_matches(name[:200], [model["id"] for model in models], n=3, cutoff=0.4)
    return "There is no such model." + (f" Did you mean {' or '.join(near)}?" if near else "")
