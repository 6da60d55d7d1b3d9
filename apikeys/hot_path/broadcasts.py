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
from apikeys.hot_path.listener import CONTROL_CHANNEL, listener
from apikeys.hot_path.servers import SERVER_ID, send_heartbeat

# A process that has missed three heartbeats does not count as alive. Its listener, which sends them, has been silent
# for as long, so the process has trusted nothing cached for most of that time.
LIVE_SECONDS = 15
PATIENCE_SECONDS = 2.0
POLL_SECONDS = 0.01


class ControlMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message to every process: drop all that is cached, and terminate the streams of these keys or this app."""

    number: int
    terminated_keys: tuple[str, ...] = ()
    terminated_app: str | None = None
    is_revoked: bool = False

    @property
    def error(self) -> ApiError:
        if self.terminated_app is not None:
            return AppNotFound()
        return RevokedKey() if self.is_revoked else DisabledKey()


@dataclass(frozen=True, slots=True)
class Acknowledgements:
    """The processes that have acknowledged a message, by name, and those that had not when waiting ended."""

    acknowledged: list[str]
    missing: list[str]
    missing_ids: list[str]

    def summary(self) -> str:
        if not self.acknowledged and not self.missing:
            return gettext("No server process is running.")
        if not self.missing:
            return gettext("All %(count)s server process(es) have acknowledged it.") % {"count": len(self.acknowledged)}
        return gettext(
            "%(count)s server process(es) have acknowledged it; not acknowledged within %(seconds)s s: "
            "%(names)s. A process that receives no notifications asks the database for every request."
        ) % {"count": len(self.acknowledged), "seconds": f"{PATIENCE_SECONDS:g}", "names": ", ".join(self.missing)}


def start(loop: asyncio.AbstractEventLoop) -> None:
    """Listen for policy changes and control messages, on behalf of the process whose requests run in this loop."""

    def handle(connection: Connection, payload: str) -> None:
        message = msgspec.json.decode(payload, type=ControlMessage)
        listener.invalidate()
        for key_id in message.terminated_keys:
            loop.call_soon_threadsafe(partial(in_flight.terminate, message.error, key_id=key_id))
        if message.terminated_app is not None:
            loop.call_soon_threadsafe(partial(in_flight.terminate, message.error, app_id=message.terminated_app))
        connection.execute(
            "UPDATE apikeys_serverprocess SET acknowledged_call = greatest(acknowledged_call, %s) WHERE id = %s",
            [message.number, SERVER_ID],
        )

    listener.start(send_heartbeat, handle)


def broadcast(
    *, terminated_keys: Sequence[str] = (), terminated_app: str | None = None, is_revoked: bool = False
) -> Acknowledgements:
    """Have every live process drop what it cached; return when all have acknowledged, or after two seconds.

    The change must be committed: a broadcast inside a transaction would wait for itself.
    """
    assert not django_connection.in_atomic_block, "a broadcast is made after the commit"  # noqa: S101 - a programmer's error
    with django_connection.cursor() as cursor:
        cursor.execute("SELECT nextval('apikeys_control_message_number')")
        number: int = cursor.fetchone()[0]
        message = ControlMessage(number, tuple(terminated_keys), terminated_app, is_revoked)
        cursor.execute("SELECT pg_notify(%s, %s)", [CONTROL_CHANNEL, msgspec.json.encode(message).decode()])
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            cursor.execute(
                "SELECT id, host || ' process ' || pid, acknowledged_call >= %s FROM apikeys_serverprocess "
                "WHERE heartbeat_at > statement_timestamp() - make_interval(secs => %s) ORDER BY started_at, id",
                [number, LIVE_SECONDS],
            )
            rows = cursor.fetchall()
            missing = [(server_id, name) for server_id, name, has_acknowledged in rows if not has_acknowledged]
            if not missing or time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)
    return Acknowledgements(
        [name for _, name, has_acknowledged in rows if has_acknowledged],
        [name for _, name in missing],
        [server_id for server_id, _ in missing],
    )
