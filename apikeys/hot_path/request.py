"""The request of a view on the hot path."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.http import HttpRequest

if TYPE_CHECKING:
    from apikeys.access.declarations import ApiCredential
    from apikeys.hot_path.trace import Trace


class Nobody:
    """The user of a request that is not authenticated."""

    pk = None
    is_authenticated = False

    def has_perm(self, permission: str, obj: Any = None) -> bool:
        return False


NOBODY = Nobody()


class AsyncRequest:
    """The part of Django's request and of Django REST framework's that views of the hot path need, in one.

    Authentication and permission take it for either, so that the same objects decide there as everywhere else.
    `body` is empty until all of it has come.
    """

    __slots__ = (
        "META",
        "_view",
        "api_credential",
        "auth",
        "body",
        "http_request",
        "make_scope",
        "method",
        "trace",
        "user",
        "view_class",
    )

    def __init__(
        self,
        method: str,
        meta: dict[str, str],
        trace: Trace,
        view_class: Callable[[], Any],
        make_scope: Callable[[], dict[str, Any]],
    ) -> None:
        self.method = method
        # The same names as Django has, but no others than these: HTTP_AUTHORIZATION, HTTP_X_FORWARDED_FOR, REMOTE_ADDR.
        self.META = meta
        self.trace = trace
        self.body = b""
        # Set by authentication, and by what prepares it.
        self.api_credential: ApiCredential | None = None
        self.user: Any = NOBODY
        self.auth: ApiCredential | None = None
        self.view_class = view_class
        self._view: Any = None
        # A view that needs Django's own request, such as one with sessions, makes it of this and sets it.
        self.make_scope = make_scope
        self.http_request: HttpRequest | None = None

    @property
    def view(self) -> Any:
        """The view that serves it, made when it is first asked for: a refusal needs none."""
        if self._view is None:
            self._view = self.view_class()
        return self._view

    @property
    def parser_context(self) -> dict[str, Any]:
        return {"view": self.view}

    @property
    def _request(self) -> AsyncRequest | HttpRequest:
        return self if self.http_request is None else self.http_request
