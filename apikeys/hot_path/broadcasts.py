"""Control messages to all server processes, which acknowledge each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import msgspec
from django.db import connection as django_connection
from django.utils.translation import gettext

from apikeys.errors import (
    ApiError,
    AppNotFound,
    DisabledKey,
    RevokedKey,
)
from apikeys.hot_path import in_flight
from apikeys.hot_path.connections import Connection
from apikeys.hot_path.listener import CALLS, listener
from apikeys.hot_path.servers import SERVER_ID, beat

# One that has been silent for three beats does not count as alive. Its listener, which beats for it, has been silent
# for as long, so it has believed nothing cached for most of that time.
LIVE_SECONDS = 15
PATIENCE_SECONDS = 2.0
POLL_SECONDS = 0.01


class Call(msgspec.Struct, frozen=True, omit_defaults=True):
    """What every process is told: to forget what it cached, and which streams to cut."""

    number: int
    cut_keys: tuple[str, ...] = ()
    cut_app: str | None = None
    is_revoked: bool = False

    @property
    def error(self) -> ApiError:
        if self.cut_app is not None:
            return AppNotFound()
        return RevokedKey() if self.is_revoked else DisabledKey()


@dataclass(frozen=True, slots=True)
class Hearing:
    """Which processes have answered a call, by name, and which had not when waiting for them ended."""

    heard: list[str]
    unheard: list[str]
    unheard_ids: list[str]

    def told(self) -> str:
        """One sentence for whoever asked."""
        if not self.heard and not self.unheard:
            return gettext("No server process is running.")
        if not self.unheard:
            return gettext("All %(count)s server process(es) have acknowledged it.") % {"count": len(self.heard)}
        return gettext(
            "%(count)s server process(es) have acknowledged it; not within %(seconds)s s: %(names)s. "
            "One that does not hear the database asks it for every request."
        ) % {"count": len(self.heard), "seconds": f"{PATIENCE_SECONDS:g}", "names": ", ".join(self.unheard)}


def start(loop: asyncio.AbstractEventLoop) -> None:
    """Listen for changes and calls, on behalf of the process whose requests run in this loop."""

    def answer(connection: Connection, payload: str) -> None:
        call = msgspec.json.decode(payload, type=Call)
        listener.invalidate()
        for key_id in call.cut_keys:
            loop.call_soon_threadsafe(partial(in_flight.cut, call.error, key_id=key_id))
        if call.cut_app is not None:
            loop.call_soon_threadsafe(partial(in_flight.cut, call.error, app_id=call.cut_app))
        connection.execute(
            "UPDATE apikeys_serverprocess SET heard = greatest(heard, %s) WHERE id = %s", [call.number, SERVER_ID]
        )

    listener.start(beat, answer)


def call(*, cut_keys: Sequence[str] = (), cut_app: str | None = None, is_revoked: bool = False) -> Hearing:
    """Have every living process forget what it cached; return when all have, or after two seconds.

    What they are to see must be committed: a call inside a transaction would wait for itself.
    """
    assert not django_connection.in_atomic_block, "a call is made after the commit"  # noqa: S101 - a programmer's error
    with django_connection.cursor() as cursor:
        cursor.execute("SELECT nextval('apikeys_call_number')")
        number: int = cursor.fetchone()[0]
        message = Call(number, tuple(cut_keys), cut_app, is_revoked)
        cursor.execute("SELECT pg_notify(%s, %s)", [CALLS, msgspec.json.encode(message).decode()])
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            cursor.execute(
                "SELECT id, host || ' process ' || pid, heard >= %s FROM apikeys_serverprocess "
                "WHERE heartbeat_at > statement_timestamp() - make_interval(secs => %s) ORDER BY started_at, id",
                [number, LIVE_SECONDS],
            )
            rows = cursor.fetchall()
            unheard = [(server_id, name) for server_id, name, has_heard in rows if not has_heard]
            if not unheard or time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)
    return Hearing(
        [name for _, name, has_heard in rows if has_heard],
        [name for _, name in unheard],
        [server_id for server_id, _ in unheard],
    )
