"""The inventory of API routes, read from the URLconf itself, so that nothing routed can be missing from it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.urls import URLPattern, URLResolver, get_resolver

from apikeys.access.declarations import PUBLIC
from apikeys.keys.kinds import AccessKind

UNDECLARED = object()
ROOTS = tuple(f"/{root}" for root in settings.API_ROOTS)


@dataclass(frozen=True, slots=True)
class Route:
    """One pattern under an API root and the view class behind it, if it is one."""

    pattern: str
    view: Any

    @property
    def path(self) -> str:
        """Return the path as people write it: with its root, without what a pattern needs."""
        path = self.pattern.replace("^", "").removesuffix("$").removesuffix("/?")
        return "/" + re.sub(r"\(\?P<(\w+)>[^)]*\)", r"{\1}", path)

    @property
    def complaint(self) -> str | None:
        """Return the fault of its declaration, for the system check; None when it is whole."""
        if self.view is None:
            return "is not a class-based view, so it cannot declare who may call it"
        endpoint = getattr(self.view, "endpoint", None)
        access = getattr(self.view, "api_key_access", None)
        permission = getattr(self.view, "staff_permission", UNDECLARED)
        if not isinstance(endpoint, str) or not endpoint:
            return "declares no `endpoint`"
        if not isinstance(access, frozenset) or not all(isinstance(kind, AccessKind) for kind in access):
            return "declares no `api_key_access` as a frozenset of key kinds"
        if permission not in (None, PUBLIC) and not isinstance(permission, str):
            return "declares no `staff_permission`: a permission, None or PUBLIC"
        return None


def routes(resolver: URLResolver | None = None, prefix: str = "") -> Iterator[Route]:
    """Yield every route under settings.API_ROOTS, in the order in which Django tries them."""
    for entry in (resolver or get_resolver()).url_patterns:
        pattern = prefix + str(entry.pattern).removeprefix("^")
        if isinstance(entry, URLResolver):
            yield from routes(entry, pattern)
        elif isinstance(entry, URLPattern) and pattern.startswith(settings.API_ROOTS):
            callback = entry.callback
            yield Route(pattern, getattr(callback, "view_class", None) or getattr(callback, "cls", None))


def endpoint_names() -> list[str]:
    return sorted({route.view.endpoint for route in routes() if route.view and route.view.api_key_access})


def unrecorded_endpoints() -> set[str]:
    """Return the endpoints whose calls leave no record, so that nobody can tell who uses them."""
    return {route.view.endpoint for route in routes() if route.view and not getattr(route.view, "is_metered", True)}


def is_api_path(path: str) -> bool:
    return f"{path}/".startswith(ROOTS)
