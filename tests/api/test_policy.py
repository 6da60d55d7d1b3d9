"""Every routed endpoint, asked by every kind of caller. A new endpoint joins by being routed."""

import re
from dataclasses import dataclass
from typing import Any

import pytest
from django.test import Client

from apikeys.access.declarations import APP, GLOBAL, GLOBAL_NAMING_APP, PUBLIC
from apikeys.access.endpoints import routes
from tests.conftest import Server
from tests.support import factories
from tests.support.refusals import check_refusal

ALLOWED = "allowed"
ROUTES = [(route.pattern, route.view) for route in routes()]
CALLERS = [
    "nobody",
    "app key",
    "foreign app key",
    "global key",
    "naming global key",
    "superuser's global key",
    "revoked global key",
    "staff with permission",
    "staff without permission",
    "member who is no staff",
]


def path_of(pattern: str) -> str:
    """A path that the pattern matches."""
    path = re.sub(r"(/\?)?\$$", "", pattern.replace("^", "").replace("(?P<model_id>[^/].*?)", "no-such-model"))
    return "/" + (path + "no/such/path" if path.endswith("/") else path)


def expected(view: Any, caller: str) -> str:
    """Return the declaration's meaning for this caller, a second time and without the code under test."""
    if view.staff_permission is PUBLIC:
        return ALLOWED
    if caller == "revoked global key":
        return "revoked_api_key"
    if caller in ("nobody", "member who is no staff"):
        return "missing_api_key"
    if caller.startswith("staff"):
        if view.staff_permission is None:
            return "missing_api_key"
        return ALLOWED if caller == "staff with permission" else "permission_denied"
    access = view.api_key_access
    if not access:
        return "endpoint_not_allowed"
    if caller.endswith("app key"):
        if APP not in access:
            return "wrong_key_kind"
        # Every request of this test names the app of the other app key.
        names_app = view.endpoint in ("chat.completions", "completions.create", "responses.create")
        return "wrong_key_kind" if caller == "foreign app key" and names_app else ALLOWED
    if caller == "naming global key":
        return ALLOWED if access & {GLOBAL, GLOBAL_NAMING_APP} else "wrong_key_kind"
    return ALLOWED if GLOBAL in access else "wrong_key_kind"


@dataclass
class World:
    """One team with an app, and a way to call as each kind of caller."""

    app_id: str
    keys: dict[str, str]
    sessions: dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def world(database: None, provider: Any) -> World:
    team, other = factories.make_team(), factories.make_team()
    app = factories.make_app(team, factories.make_provider(team, provider.url))
    superuser = factories.make_user(team, is_superuser=True)
    permissions = tuple({view.staff_permission for _, view in ROUTES if isinstance(view.staff_permission, str)})
    revoked, revoked_key = factories.make_key(team)
    revoked.revoke(by="test", reason="test")
    return World(
        app_id=app.pk,
        keys={
            "app key": factories.make_key(app=app)[1],
            "foreign app key": factories.make_key(app=factories.make_app(other))[1],
            "global key": factories.make_key(team)[1],
            "naming global key": factories.make_key(team, can_name_app=True)[1],
            "superuser's global key": factories.make_key(team, owner=superuser)[1],
            "revoked global key": revoked_key,
        },
        sessions={
            "staff with permission": session_of(factories.make_user(team, permissions=permissions)),
            "staff without permission": session_of(factories.make_user(team)),
            "member who is no staff": session_of(factories.make_user(team, is_staff=False, permissions=permissions)),
        },
    )


def session_of(user: Any) -> dict[str, str]:
    """The cookies of a signed-in browser."""
    client = Client()
    client.force_login(user)
    return {"sessionid": client.cookies["sessionid"].value, "csrftoken": "a" * 32}


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize(("pattern", "view"), ROUTES, ids=[pattern for pattern, _ in ROUTES])
def test_every_endpoint_with_every_caller(server: Server, world: World, pattern: str, view: Any, caller: str) -> None:
    body = {"appId": world.app_id, "messages": [{"role": "user", "content": "hi"}], "prompt": "hi"}
    if view.endpoint == "responses.create":
        body = {"appId": world.app_id, "input": "hi"}
    cookies = world.sessions.get(caller, {})
    headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())} if cookies else {}
    if cookies:
        headers["X-CSRFToken"] = cookies["csrftoken"]
    methods = [name.upper() for name in ("get", "post", "put", "delete") if hasattr(view, name)] or ["GET"]
    for method in methods:
        options = {} if method == "GET" else {"json": body}
        response = server.request(method, path_of(pattern), world.keys.get(caller), headers=headers, **options)
        wanted = expected(view, caller)
        if wanted != ALLOWED:
            check_refusal(response, wanted)
        elif view.staff_permission is PUBLIC:
            check_refusal(response, "not_found")
        elif "model_id" in pattern:
            check_refusal(response, "model_not_found")
        elif view.endpoint in ("embeddings.create", "rerank.create"):
            check_refusal(response, "invalid_parameter", param="model")
        elif view.endpoint.startswith(("openapi.", "dataset.")) and view.endpoint not in (
            "openapi.list",
            "dataset.list",
        ):
            # Whoever may call is told what is wrong with a body that names no key, dataset, collection or datum.
            assert response.status_code in (400, 404), response.text
        else:
            assert response.status_code == 200, response.text


def test_the_table_covers_what_is_routed() -> None:
    endpoints = {view.endpoint for _, view in ROUTES}
    assert {"chat.completions", "app.list", "models.list", "key.self", "unknown_path", "base_url"} <= endpoints
