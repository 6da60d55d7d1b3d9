"""`core/app/list` and `v1/models`: what a key may talk to."""

from rest_framework.request import Request
from rest_framework.response import Response

from apikeys.access.declarations import GLOBAL, team_id_of
from apikeys.api.views import ApiView, success
from apikeys.keys.kinds import AccessKind
from chat.models import App


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
    """`GET v1/models`, in OpenAI's form: what the key may name as `model`, which is the apps it may talk to."""

    endpoint = "models.list"
    api_key_access = frozenset({GLOBAL})
    staff_permission = None
    is_metered = False

    def get(self, request: Request) -> Response:
        policy = request.auth.policy  # type: ignore[union-attr]
        apps = App.objects.for_team(policy.team_id).filter(archived_at=None)
        if policy.allowed_models:
            apps = apps.filter(model__in=policy.allowed_models)
        if policy.kind != AccessKind.GLOBAL_NAMING_APP:
            apps = apps.none()
        models = [
            {"id": app.pk, "object": "model", "created": int(app.created_at.timestamp()), "owned_by": app.team_id}
            for app in apps
        ]
        response = success(models)
        response.data["object"] = "list"
        return response
