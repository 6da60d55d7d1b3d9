"""The live server processes, their heartbeats, and the reservations that dead ones left behind."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time

import psycopg
from django.db import Error as DjangoDatabaseError
from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from apikeys.hot_path.connections import Connection, connect
from apikeys.hot_path.listener import listener
from apikeys.object_ids import new_object_id

logger = logging.getLogger(__name__)

# The id of this process, whose listener sends its heartbeats.
SERVER_ID = new_object_id()
HEARTBEAT_SECONDS = 5.0
SILENCE_SECONDS = 30
_last_heartbeat = float("-inf")


class ServerProcess(models.Model):
    """One running server process. Its reservations are settled when its heartbeats stop."""

    id = models.CharField(_("ID"), max_length=24, primary_key=True)
    host = models.CharField(_("host"), max_length=200, blank=True, db_default="")
    pid = models.PositiveIntegerField(_("pid"), db_default=0)
    started_at = models.DateTimeField(_("started at"), db_default=Now())
    # The number of the newest control message that this process has acknowledged.
    acknowledged_call = models.BigIntegerField(_("acknowledged call"), db_default=0)
    heartbeat_at = models.DateTimeField(_("heartbeat at"), db_default=Now())

    class Meta:
        verbose_name = _("server process")
        verbose_name_plural = _("server processes")

    def __str__(self) -> str:
        return self.id


def send_heartbeat(connection: Connection) -> None:
    """Record a heartbeat, at most every five seconds, and settle what dead processes left reserved."""
    global _last_heartbeat
    if time.monotonic() - _last_heartbeat < HEARTBEAT_SECONDS:
        return
    is_registered = connection.execute(
        "UPDATE apikeys_serverprocess SET heartbeat_at = statement_timestamp() WHERE id = %s", [SERVER_ID]
    ).rowcount
    if not is_registered:
        _register(connection)
    try:
        # Whoever locks these rows or tables, such as reconcile, must not keep this process from acknowledging changes.
        with connection.transaction():
            connection.execute("SET LOCAL lock_timeout = '500ms'")
            connection.execute("SELECT apikeys_expire_reservations(make_interval(secs => %s))", [SILENCE_SECONDS])
    except (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.LockNotAvailable) as error:
        logger.warning("what dead processes reserved could not be settled yet: %s", type(error).__name__)
    connection.execute(
        "DELETE FROM apikeys_serverprocess WHERE heartbeat_at < statement_timestamp() - interval '1 day'"
    )
    _last_heartbeat = time.monotonic()


def _register(connection: Connection) -> None:
    # All messages so far count as acknowledged, since what was cached before them is dropped here. A broadcast at this
    # moment would otherwise wait in vain: its message may have been sent before this process was registered.
    [(number,)] = connection.execute(
        "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM apikeys_control_message_number"
    ).fetchall()
    listener.invalidate()
    connection.execute(
        "INSERT INTO apikeys_serverprocess (id, host, pid, acknowledged_call) VALUES (%s, %s, %s, %s)",
        [SERVER_ID, socket.gethostname()[:200], os.getpid(), number],
    )


def deregister() -> None:
    with contextlib.suppress(psycopg.Error, DjangoDatabaseError, OSError), connect() as connection:
        connection.execute("DELETE FROM apikeys_serverprocess WHERE id = %s", [SERVER_ID])
