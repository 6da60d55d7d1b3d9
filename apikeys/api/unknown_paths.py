"""The BaseURL and every path under it that is no endpoint."""

from difflib import get_close_matches
from functools import cache
from typing import Any

from rest_framework.request import Request

from apikeys.access.declarations import PUBLIC
from apikeys.access.endpoints import routes
from apikeys.api.views import ApiView
from apikeys.errors import PathNotFound
from apikeys.hot_path.trace import trace_of


class BaseUrlView(ApiView):
    endpoint = "base_url"
    api_key_access = frozenset()
    staff_permission = PUBLIC

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        trace_of(request._request).endpoint = self.endpoint
        raise PathNotFound(
            "This is the BaseURL, the root of all endpoints, but not an endpoint itself. "
            "For a chat, POST to v1/chat/completions under it. The endpoints are listed in docs/api.md."
        )


class UnknownPathView(ApiView):
    """Every path under an API root that is not routed, and FastGPT's health check, which has the key in its URL."""

    endpoint = "unknown_path"
    api_key_access = frozenset()
    staff_permission = PUBLIC

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        trace_of(request._request).endpoint = self.endpoint
        if request.path.rstrip("/").endswith("support/openapi/health"):
            raise PathNotFound(
                "A key does not belong in a URL. Ask GET v1/key, with the key in the Authorization header."
            )
        meant = nearest(request.path)
        raise PathNotFound(None if meant is None else f"{PathNotFound.message} Did you mean {meant}?")


# Clients repeat them, leave them out, or take one for another.
ROOT_PARTS = {"api", "openapi", "v1"}
# Longer paths are not compared: that would be work for whoever sends them.
LONGEST = 100


def nearest(path: str) -> str | None:
    """Return the endpoint's path that was most likely meant, such as one under another root, or None."""
    known, name = _endpoints(), _name(path)
    if not name or len(path) > LONGEST:
        return None
    near = [name] if name in known else get_close_matches(name, known, n=1, cutoff=0.85)
    return known[near[0]] if near else None


@cache
def _endpoints() -> dict[str, str]:
    """Return the paths of all endpoints that take keys, by their names."""
    paths = [route.path for route in routes() if route.view and route.view.api_key_access]
    # Where an endpoint has several paths, the first is its usual one.
    return {_name(path): path for path in reversed(paths) if path.startswith("/api/")}


def _name(path: str) -> str:
    """Return a path without its root, which is what endpoints are told apart by."""
    return "/".join(part for part in path.split("/") if part and part not in ROOT_PARTS)
