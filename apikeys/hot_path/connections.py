"""Connections besides Django's per-thread ones: for batchers, readers and the listener."""

from typing import Any

import environ
import psycopg
from django.conf import settings
from django.db import connections

# These give up a connection whose other end vanished silently within seconds; TCP's defaults take hours.
NETWORK = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
# Every statement of the batchers finds its rows by their keys, and runs over and over. Planning it each time would
# cost more than a better plan could save, and a plan made while a table was small must not read the whole table once
# it has grown.
SESSION = """
SET statement_timeout = '15s';
SET plan_cache_mode = force_generic_plan;
SET enable_seqscan = off;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
"""
Connection = psycopg.Connection[tuple[Any, ...]]


def parameters(*, direct: bool = False) -> dict[str, Any]:
    """Return psycopg's connection parameters. `direct` bypasses a transaction pooler, where one is configured."""
    if direct and settings.DATABASE_DIRECT_URL:
        url = environ.Env.db_url_config(settings.DATABASE_DIRECT_URL)
        found = {
            "dbname": url["NAME"],
            "user": url["USER"],
            "password": url["PASSWORD"],
            "host": url["HOST"],
            "port": url["PORT"] or 5432,
            **url.get("OPTIONS", {}),
        }
    else:
        found = connections["default"].get_connection_params()
    parameters = {
        name: value
        for name, value in found.items()
        if name not in {"cursor_factory", "context", "prepare_threshold", "server_side_binding", "pool"}
        and value not in (None, "")
    }
    return {**NETWORK, **parameters}


def connect(*, direct: bool = False) -> Connection:
    """Open an autocommit connection. `direct` bypasses a transaction pooler, where one is configured.

    Raise django.db.OperationalError or psycopg.OperationalError when the database cannot be reached.
    """
    # Through a transaction pooler a prepared statement may land on a connection that never saw it.
    prepare = None if settings.DATABASE_DIRECT_URL and not direct else 2
    connection = psycopg.connect(**{**parameters(direct=direct), "autocommit": True, "prepare_threshold": prepare})
    if not direct and not settings.DATABASE_DIRECT_URL:
        # Behind a transaction pooler these would be left on a connection that others get.
        connection.execute(SESSION)
    return connection
