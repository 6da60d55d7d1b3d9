"""The choice of the app that a call talks to."""

from apikeys.access.declarations import ApiCredential
from apikeys.errors import AppNotFound, InvalidParameter, ModelNotAllowed, WrongKeyKind
from apikeys.object_ids import is_object_id
from chat.completions.app_snapshots import AppSnapshot, find_app

NAME_AN_APP = (
    "Name the app to talk to: its id as appId, as model, or behind the key. "
    "GET v1/models lists the apps that this key may name."
)


async def select_app(credential: ApiCredential, *, app_id: str | None, model: str | None) -> AppSnapshot:
    """Return the app of an app key, or the one that a global key names: `appId`, else the suffix, else `model`.

    Raise WrongKeyKind when an app key names another app, AppNotFound when the app is absent, archived or
    somebody else's, ModelNotAllowed when the key may not use the app's model.
    """
    policy = credential.policy
    selected = policy.app_id
    if selected is not None:
        for named in (app_id, credential.named_app_id):
            if named and named != selected:
                raise WrongKeyKind("This is the key of one app, and the request names another.")
    else:
        by_model = model if model and is_object_id(model) else None
        selected = app_id or credential.named_app_id or by_model
        if selected is None:
            raise InvalidParameter(NAME_AN_APP, param="model" if model else "appId")
    app = await find_app(selected, policy.team_id)
    if app is None:
        raise AppNotFound
    if policy.allowed_models and app.model not in policy.allowed_models:
        raise ModelNotAllowed(f"This API key may not use the model {app.model}.")
    return app
