"""The BaseURL and every path under it that is no endpoint."""

from typing import Any

from rest_framework.request import Request

from apikeys.access.declarations import PUBLIC
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
        raise PathNotFound
