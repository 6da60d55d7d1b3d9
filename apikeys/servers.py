"""The server processes that are alive, and what dead ones left reserved."""

import contextlib
import time

import psycopg
from django.db import Error as DjangoDatabaseError

from apikeys.admission import SERVER_ID
from apikeys.database import Connection, connect

BEAT_SECONDS = 5.0
SILENCE_SECONDS = 30
_last_beat = float("-inf")


def beat(connection: Connection) -> None:
    """Say that this process is alive, every five seconds, and settle what dead ones left behind."""
    global _last_beat
    if time.monotonic() - _last_beat < BEAT_SECONDS:
        return
    connection.execute(
        "INSERT INTO apikeys_serverprocess (id) VALUES (%s) "
        "ON CONFLICT (id) DO UPDATE SET heartbeat_at = statement_timestamp()",
        [SERVER_ID],
    )
    connection.execute("SELECT expire_reservations(make_interval(secs => %s))", [SILENCE_SECONDS])
    connection.execute(
        "DELETE FROM apikeys_serverprocess WHERE heartbeat_at < statement_timestamp() - interval '1 day'"
    )
    _last_beat = time.monotonic()


def leave() -> None:
    """Say that this process has ended, with everything settled."""
    with contextlib.suppress(psycopg.Error, DjangoDatabaseError, OSError), connect() as connection:
        connection.execute("DELETE FROM apikeys_serverprocess WHERE id = %s", [SERVER_ID])
