"""System checks: a route that does not declare who may call it must not be served."""

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error

from apikeys.endpoints import routes


def check_routes(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    return [
        Error(
            f"The API route {route.pattern!r} {route.complaint}.",
            hint="Declare endpoint, api_key_access and staff_permission on the view class.",
            id="apikeys.E001",
        )
        for route in routes()
        if route.complaint
    ]
