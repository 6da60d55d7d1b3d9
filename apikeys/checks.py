"""System checks: no server starts with a route that does not declare its callers, or with impossible settings."""

import ipaddress
from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error

from apikeys.access.endpoints import routes
from apikeys.retention import validate_days


def check_networks(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    # These settings are parsed when they are first needed; a mistake in one had better show at the start.
    errors: list[CheckMessage] = []
    for name in ("TRUSTED_PROXIES", "OUTBOUND_ALLOWED_NETWORKS", "LINK_ALLOWED_NETWORKS"):
        for text in getattr(settings, name):
            try:
                ipaddress.ip_network(text)
            except ValueError as error:
                errors.append(Error(f"{name}: {error}.", hint="Write it as 203.0.113.0/24.", id="apikeys.E002"))
    return errors


def check_retention(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    if settings.RETENTION_DAYS == 0:
        return []
    try:
        validate_days(settings.RETENTION_DAYS)
    except ValueError as error:
        return [Error(f"RETENTION_DAYS: {error}.", hint="0 keeps all detail.", id="apikeys.E003")]
    return []


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
