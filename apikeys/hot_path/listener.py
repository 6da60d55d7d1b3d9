"""The listener, which is notified of every change of policy and then drops what is cached."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import psycopg
from django.db import Error as DjangoDatabaseError

from apikeys.hot_path.connections import Connection, connect

if TYPE_CHECKING:
    from apikeys.hot_path.snapshots import Snapshots

logger = logging.getLogger(__name__)
# The triggers in sql/notify.sql notify this channel.
CHANNEL = "policy_changed"
# Every process acknowledges the messages on this channel; see `broadcasts`.
CONTROL_CHANNEL = "control_messages"
SILENCE_SECONDS = 3.0
PING_SECONDS = 1.0


class Listener:
    """Receives a notification of every change of policy, in the order of the commits.

    Snapshots are trusted for 3 s after the last ping that came back was sent: with a ping, the notifications of all
    changes before it have arrived. When the ping was received does not count, for a process that was stopped for long
    receives an old one first.
    """

    def __init__(self) -> None:
        self.generation = 0
        self._last_ping_sent_at = float("-inf")
        self._caches: list[Snapshots[Any, Any]] = []
        self._subscribers: dict[str, Callable[[str], None]] = {}
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._on_ping: Callable[[Connection], None] | None = None
        self._on_message: Callable[[Connection, str], None] | None = None

    @property
    def lag(self) -> float:
        """Seconds since the last ping that came back was sent; infinite before the first has."""
        return time.monotonic() - self._last_ping_sent_at

    @property
    def is_alive(self) -> bool:
        return self.lag < SILENCE_SECONDS

    @property
    def caches(self) -> tuple[Snapshots[Any, Any], ...]:
        return tuple(self._caches)

    def register(self, snapshots: Snapshots[Any, Any]) -> None:
        self._caches.append(snapshots)

    def subscribe(self, channel: str, take: Callable[[str], None]) -> None:
        """Call `take` in the listener's thread with every notification of this channel. It must not block."""
        self._subscribers[channel] = take

    def start(
        self,
        on_ping: Callable[[Connection], None] | None = None,
        on_message: Callable[[Connection, str], None] | None = None,
    ) -> None:
        """Listen in a thread. It calls `on_ping` about once a second, and `on_message` with each control message."""
        self._on_ping, self._on_message = on_ping, on_message
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="policy-listener", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(PING_SECONDS * 3)
        self._last_ping_sent_at = float("-inf")

    def invalidate(self) -> None:
        """Drop all snapshots. A load that is under way now may have read the old policy and will not be kept."""
        self.generation += 1
        for snapshots in self._caches:
            snapshots.clear()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with connect(direct=True) as connection:
                    self._listen(connection)
            except (psycopg.Error, DjangoDatabaseError, OSError) as error:
                logger.warning("policy listener: the database cannot be reached: %s", type(error).__name__)
                self._stop.wait(PING_SECONDS)

    def _listen(self, connection: Connection) -> None:
        ping = f"ping_{uuid.uuid4().hex}"
        connection.execute(f"LISTEN {CHANNEL}")
        connection.execute(f"LISTEN {CONTROL_CHANNEL}")
        for channel in self._subscribers:
            connection.execute(f"LISTEN {channel}")
        connection.execute(f"LISTEN {ping}")
        # This connection was not notified of the changes before it listened.
        self.invalidate()
        ping_at = time.monotonic()
        while not self._stop.is_set():
            if time.monotonic() >= ping_at:
                connection.execute("SELECT pg_notify(%s, %s)", [ping, repr(time.monotonic())])
                if self._on_ping is not None:
                    self._on_ping(connection)
                ping_at = time.monotonic() + PING_SECONDS
            messages = []
            # `on_message` uses the connection, which is free only when all that arrived together has been received.
            for notification in connection.notifies(timeout=max(0.0, ping_at - time.monotonic()), stop_after=1):
                if notification.channel == CHANNEL:
                    self.invalidate()
                elif notification.channel == CONTROL_CHANNEL:
                    messages.append(notification.payload)
                elif notification.channel in self._subscribers:
                    self._tell(notification.channel, notification.payload)
                else:
                    self._last_ping_sent_at = float(notification.payload)
            for payload in messages:
                self._handle(connection, payload)

    def _tell(self, channel: str, payload: str) -> None:
        try:
            self._subscribers[channel](payload)
        except Exception:  # whatever is wrong with one notification must not end the listener
            logger.exception("a notification of %s was not understood", channel)

    def _handle(self, connection: Connection, payload: str) -> None:
        if self._on_message is None:
            return
        try:
            self._on_message(connection, payload)
        except (msgspec.DecodeError, RuntimeError):
            # Another version sent the message, or the loop has ended. Its sender sees that nobody acknowledges it.
            logger.exception("a call was not understood")


listener = Listener()
