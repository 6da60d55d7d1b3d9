"""The open connections of this process: how many there may be, in all and of one address, and how long each may wait.

Behind a trusted proxy many callers share the proxy's connections: there the requests under way are counted instead, by
the address that the proxy reports.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import time
from collections import Counter
from enum import Enum, auto
from functools import cached_property
from typing import TYPE_CHECKING

from django.conf import settings

from apikeys.client_address import client_address, is_in, network_of, trusted_proxies
from apikeys.errors import TooManyConnections

if TYPE_CHECKING:
    from fastgpt_site.http.connection import Connection

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 1.0
WARN_SECONDS = 60.0
# Descriptors for the database, files and pipes. A request that asks a provider needs a second one of the others.
RESERVED_DESCRIPTORS = 512
# So many refused ones get to read why. Descriptors are reserved for them too.
MOST_REFUSED = 128


class Room(Enum):
    """Whether there is room for another connection."""

    ENOUGH = auto()
    NONE = auto()
    NOT_EVEN_FOR_AN_ANSWER = auto()


class OpenConnections:
    """Counts connections and looks for those whose time is over. One pass for all costs less than a timer for each."""

    def __init__(self) -> None:
        self.open: set[Connection] = set()
        # Connections of callers, and requests of those that came through a proxy.
        self.by_address: Counter[str] = Counter()
        self._sweep: asyncio.TimerHandle | None = None
        self._warned_at = float("-inf")
        self._has_warned_of_proxy = False

    @cached_property
    def most(self) -> int:
        """How many there may be. The process's limit of open files is raised for them, as far as the system lets it."""
        most: int = settings.MAX_CONNECTIONS
        needed = RESERVED_DESCRIPTORS + 2 * most
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY or soft >= needed:
            return most
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return max(soft - RESERVED_DESCRIPTORS, 0) // 2

    def enter(self, connection: Connection) -> Room:
        """Take it in, until `leave`, and return whether there is room for it."""
        self.open.add(connection)
        if self._sweep is None:
            self._sweep = connection.loop.call_later(SWEEP_SECONDS, self._check_all, connection.loop)
        if len(self.open) > self.most:
            self._warn("MAX_CONNECTIONS or the limit of open files", self.most)
            return Room.NONE if len(self.open) <= self.most + MOST_REFUSED else Room.NOT_EVEN_FOR_AN_ANSWER
        peer = client_address(connection.client[0], "") if connection.client else None
        connection.peer = None if peer is None else str(peer)
        if peer is None or is_in(peer, trusted_proxies()):
            return Room.ENOUGH
        connection.is_of_proxy = False
        if not self._has_room(network_of(peer)):
            return Room.NONE
        connection.holder = network_of(peer)
        self.by_address[connection.holder] += 1
        return Room.ENOUGH

    def leave(self, connection: Connection) -> None:
        self.open.discard(connection)
        if connection.holder is not None:
            self._uncount(connection.holder)

    def begin_request(self, connection: Connection, forwarded_for: str) -> str | None:
        """Count a request by the address that a trusted proxy reports, which is returned for `end_request`.

        Raise TooManyConnections.
        """
        if connection.client is None:
            return None
        reported = client_address(connection.client[0], forwarded_for)
        holder = "unknown" if reported is None else network_of(reported)
        if not self._has_room(holder):
            raise TooManyConnections
        self.by_address[holder] += 1
        return holder

    def end_request(self, holder: str) -> None:
        self._uncount(holder)

    def warn_of_unknown_proxy(self, connection: Connection) -> None:
        """Say once, for the first: behind a proxy that is not listed, all callers look like one."""
        if not self._has_warned_of_proxy:
            self._has_warned_of_proxy = True
            logger.warning(
                "a request with X-Forwarded-For came from %s, which is not in TRUSTED_PROXIES: if that is your proxy, "
                "its callers share one address, one sign-in delay and MAX_CONNECTIONS_PER_ADDRESS",
                connection.client[0] if connection.client else None,
            )

    def _has_room(self, holder: str) -> bool:
        if self.by_address[holder] < settings.MAX_CONNECTIONS_PER_ADDRESS:
            return True
        self._warn("MAX_CONNECTIONS_PER_ADDRESS", settings.MAX_CONNECTIONS_PER_ADDRESS)
        return False

    def _uncount(self, holder: str) -> None:
        self.by_address[holder] -= 1
        if not self.by_address[holder]:
            del self.by_address[holder]

    def _check_all(self, loop: asyncio.AbstractEventLoop) -> None:
        self._sweep = loop.call_later(SWEEP_SECONDS, self._check_all, loop) if self.open else None
        now = loop.time()
        for connection in list(self.open):
            try:
                connection.check_deadlines(now)
            except Exception:
                # Nobody else's time must depend on this one.
                logger.exception("a connection failed while its time was checked")
                connection.abort()

    def _warn(self, setting: str, most: int) -> None:
        if time.monotonic() - self._warned_at >= WARN_SECONDS:
            self._warned_at = time.monotonic()
            logger.warning("connections are refused: %s allows %d", setting, most)


open_connections = OpenConnections()
