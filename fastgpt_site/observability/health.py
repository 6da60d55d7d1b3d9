"""Liveness and readiness of this process, and which part is not ready."""

import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from urllib.parse import urlsplit

import psycopg
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection, connections
from django.db.migrations.executor import MigrationExecutor
from django.db.models.functions import Now
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe
from procrastinate.contrib.django.models import ProcrastinateWorker

from apikeys.hot_path.listener import listener
from apikeys.worker import SILENCE_SECONDS

KEEP_SECONDS = 1.0


class _Found:
    at = float("-inf")
    parts: dict[str, str] = {}


_found = _Found()
_looking = threading.Lock()


@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"status": "alive", "version": settings.VERSION})


@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """Answer 200 when every part is ready, otherwise 503; each part is "ok" or says what is wrong with it.

    Anybody may ask: what was found is kept for a second, and one request at a time looks.
    """
    with _looking:
        if time.monotonic() - _found.at >= KEEP_SECONDS:
            _found.parts = {name: check() for name, check in PARTS.items()}
            _found.at = time.monotonic()
        parts = _found.parts
    is_ready = all(state == "ok" for state in parts.values())
    body = {"status": "ready" if is_ready else "not ready", "parts": parts}
    return JsonResponse(body, status=200 if is_ready else 503)


def database() -> str:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except (DatabaseError, psycopg.Error, OSError):
        return "cannot be reached"
    return "ok"


def migrations() -> str:
    try:
        executor = MigrationExecutor(connections["default"])
        pending = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except (DatabaseError, psycopg.Error, OSError):
        return "unknown"
    return f"{len(pending)} to be applied" if pending else "ok"


def policy_listener() -> str:
    return "ok" if listener.is_alive else "silent; every key is looked up in the database"


def default_provider() -> str:
    """Return "ok" when DEFAULT_PROVIDER_URL accepts a connection, or where none is configured."""
    if not settings.DEFAULT_PROVIDER_URL:
        return "ok"
    url = urlsplit(settings.DEFAULT_PROVIDER_URL)
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        socket.create_connection((url.hostname, port), timeout=2).close()
    except OSError:
        return "cannot be reached"
    return "ok"


def jobs() -> str:
    recent = Now() - timedelta(seconds=SILENCE_SECONDS)
    try:
        is_there = ProcrastinateWorker.objects.filter(last_heartbeat__gt=recent).exists()
    except (DatabaseError, psycopg.Error, OSError):
        return "unknown"
    return "ok" if is_there else "no worker"


PARTS: dict[str, Callable[[], str]] = {
    "database": database,
    "migrations": migrations,
    "listener": policy_listener,
    "default_provider": default_provider,
    "jobs": jobs,
}
