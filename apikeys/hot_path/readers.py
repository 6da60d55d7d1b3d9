"""Reads off the event loop: a few threads, each with a connection of its own that it keeps."""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import psycopg

from apikeys.errors import ServiceUnavailable
from apikeys.hot_path.connections import Connection, connect
from apikeys.hot_path.group_commit import DATABASE_ERRORS

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class Readers:
    """Runs `work(connection)` in a thread. At most `capacity` of them run or wait; more are refused."""

    def __init__(self, name: str, *, threads: int, capacity: int, wait_seconds: float) -> None:
        self._name, self._threads, self._capacity = name, threads, capacity
        self._wait_seconds = wait_seconds
        self._lock = threading.Lock()
        self._count = 0
        self._executor: ThreadPoolExecutor | None = None
        self._local = threading.local()
        self._connections: set[Connection] = set()

    async def read(self, work: Callable[[Connection], Result]) -> Result:
        """Await the result of `work`. Raise ServiceUnavailable: no room, no database, or it took too long."""
        with self._lock:
            if self._count >= self._capacity:
                raise ServiceUnavailable
            self._count += 1
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self._threads, self._name)
            future = self._executor.submit(self._run, work)
        future.add_done_callback(self._release)
        try:
            async with asyncio.timeout(self._wait_seconds):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise ServiceUnavailable from None

    def close(self) -> None:
        """Wait for running reads, then close every connection. Later reads open new ones."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(cancel_futures=True)
        while self._connections:
            self._connections.pop().close()
        self._local = threading.local()

    def _release(self, future: object) -> None:
        with self._lock:
            self._count -= 1

    def _run(self, work: Callable[[Connection], Result]) -> Result:
        connection = getattr(self._local, "connection", None)
        if connection is not None and not connection.closed:
            try:
                return work(connection)
            except DATABASE_ERRORS as error:
                # A connection that died while idle says nothing about the database, so a new one is tried.
                if not connection.closed:
                    raise self._failure(error) from None
        try:
            return work(self._connect())
        except DATABASE_ERRORS as error:
            raise self._failure(error) from None

    def _connect(self) -> Connection:
        connection = connect()
        self._local.connection = connection
        with self._lock:
            self._connections = {connection, *(kept for kept in self._connections if not kept.closed)}
        return connection

    def _failure(self, error: Exception) -> Exception:
        # An error of the statement itself is this project's mistake, and no outage.
        if isinstance(error, psycopg.ProgrammingError | psycopg.DataError):
            return error
        logger.warning("%s: the database cannot be used: %s", self._name, type(error).__name__)
        return ServiceUnavailable()
