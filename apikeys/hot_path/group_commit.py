"""The one way to reach the database on the hot path: many callers, one thread, one statement for all of them.

Coroutines and threads submit items. A batcher's thread takes all that have gathered, hands them to `flush` in one
go, and gives each caller its own result. At the next round trip the next ones have gathered: the busier the
server, the larger the batch, and the cheaper each item.
"""

import asyncio
import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

import psycopg
from django.core.exceptions import ImproperlyConfigured
from django.db import Error as DjangoDatabaseError

from apikeys.errors import Rejected, ServiceUnavailable
from apikeys.hot_path.connections import Connection, connect

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

# A caller's own future, with its loop when it waits in one.
Waiter = tuple[asyncio.AbstractEventLoop | None, Any]
Pending = tuple[Any, Waiter]
DATABASE_ERRORS = (psycopg.Error, DjangoDatabaseError, ImproperlyConfigured, OSError)
# Classes of SQLSTATE that are an item's own fault: data, integrity, program limits. So is running out of memory:
# tried again, a batch that is too large would stop everything behind it. Whatever else a database says, a table
# that is missing or a server that became read-only, passes, and the same batch may succeed later.
ITEM_CLASSES = {"22", "23", "54"}
OUT_OF_MEMORY = "53200"


class Batcher(Generic[Item, Result]):
    """Submits items in batches of at most `max_batch` to `flush(connection, items) -> results`, in order.

    `flush` must do its work in one transaction (the connection is in autocommit mode, so one statement is one).
    At most `capacity` items wait; beyond that ServiceUnavailable is raised. With `retry`, a batch that met a
    broken database is kept and tried again until it is written or the batcher is closed; without, its callers get
    ServiceUnavailable after one reconnect. An item that the database rejects fails alone, with Rejected; what
    `fallback` makes of it, if anything, is carried out in its place.
    """

    def __init__(
        self,
        name: str,
        flush: Callable[[Connection, Sequence[Item]], Sequence[Result]],
        *,
        capacity: int,
        max_batch: int = 256,
        retry: bool = False,
        wait_seconds: float = 5.0,
        fallback: Callable[[Item], Item | None] | None = None,
    ) -> None:
        self.name = name
        self._flush = flush
        self._capacity = capacity
        self._max_batch = max_batch
        self._retry = retry
        self._fallback = fallback
        self.wait_seconds = wait_seconds
        self._pending: deque[Pending] = deque()
        self._reserved = 0
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._is_closing = False
        self._give_up_at = float("inf")
        self._in_flight = 0
        self._connection: Connection | None = None

    @property
    def queue_length(self) -> int:
        return len(self._pending) + self._in_flight

    def reserve(self) -> None:
        """Hold room for one later item, so that work begun can always be recorded. Raises ServiceUnavailable."""
        with self._lock:
            if self._is_closing or self._reserved + self.queue_length >= self._capacity:
                raise ServiceUnavailable
            self._reserved += 1

    def release(self) -> None:
        """Give back reserved room that was not used."""
        with self._lock:
            self._reserved -= 1

    def enqueue(self, item: Item, *, reserved: bool = False) -> asyncio.Future[Result]:
        """Queue an item from a coroutine. It is carried out even if nobody awaits the result."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        # An abandoned item's failure is logged by the flush, not a second time by asyncio.
        future.add_done_callback(_retrieve)
        self._add(item, (loop, future), reserved)
        return future

    async def submit(self, item: Item) -> Result:
        """Queue an item and await its result, at most `wait_seconds`; then ServiceUnavailable."""
        return await self.wait(self.enqueue(item))

    async def wait(self, future: asyncio.Future[Result]) -> Result:
        """Await what `enqueue` returned. The item is carried out even if this is cancelled."""
        give_up = future.get_loop().call_later(self.wait_seconds, _settle, future, ServiceUnavailable())
        try:
            return await future
        finally:
            give_up.cancel()

    def submit_from_thread(self, item: Item, *, reserved: bool = False) -> Result:
        """The same as `submit`, for synchronous callers."""
        try:
            return self.enqueue_from_thread(item, reserved=reserved).result(self.wait_seconds)
        except TimeoutError:
            raise ServiceUnavailable from None

    def enqueue_from_thread(self, item: Item, *, reserved: bool = False) -> Future[Result]:
        """The same as `enqueue`, for synchronous callers."""
        future: Future[Result] = Future()
        self._add(item, (None, future), reserved)
        return future

    def close(self, patience: float = 5.0) -> None:
        """Carry out what is queued, at most `patience` seconds, then end the thread."""
        with self._lock:
            self._is_closing = True
            self._give_up_at = time.monotonic() + patience
            self._wake.notify()
            thread = self._thread
        if thread is not None:
            thread.join(patience + 1.0)

    def _add(self, item: Item, waiter: Waiter, reserved: bool) -> None:
        with self._lock:
            if self._thread is not None and not self._thread.is_alive():
                # Closed, and nobody is left who would carry it out.
                raise ServiceUnavailable
            if reserved:
                self._reserved -= 1
            elif self._is_closing or self._reserved + self.queue_length >= self._capacity:
                raise ServiceUnavailable
            self._pending.append((item, waiter))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"batcher-{self.name}", daemon=True)
                self._thread.start()
            self._wake.notify()

    def _take(self) -> list[Pending]:
        """Wait for items; an empty list means that the batcher is closed and nothing is left."""
        with self._lock:
            while not self._pending and not self._is_closing:
                self._wake.wait()
            batch = [self._pending.popleft() for _ in range(min(len(self._pending), self._max_batch))]
            self._in_flight = len(batch)
            return batch

    def _run(self) -> None:
        while batch := self._take():
            outcomes = self._apply([item for item, _ in batch])
            # Room first, results second: whoever has a result may rely on the room that it took.
            with self._lock:
                self._in_flight = 0
            _deliver([waiter for _, waiter in batch], outcomes)
        if self._connection is not None:
            self._connection.close()

    def _apply(self, items: list[Any]) -> list[Any]:
        """The result or the exception of each item."""
        delay, attempts = 0.05, 0
        while True:
            try:
                if self._connection is None or self._connection.closed:
                    self._connection = connect()
                return list(self._flush(self._connection, items))
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one item must not end the thread
                attempts += 1
                if not isinstance(error, psycopg.DataError | psycopg.IntegrityError):
                    self._drop_connection()
                # The first failure may only be a connection that died while idle, a plan that became stale, or a
                # race that a new snapshot decides.
                if attempts == 1 and isinstance(error, DATABASE_ERRORS) and not isinstance(error, psycopg.DataError):
                    continue
                if is_items_fault(error):
                    return self._bisect(items, error)
                logger.warning("%s: the database cannot be used: %s", self.name, type(error).__name__)
                if not self._retry or time.monotonic() > self._give_up_at:
                    return [ServiceUnavailable()] * len(items)
                time.sleep(delay)
                delay = min(delay * 2, 1.0)

    def _bisect(self, items: list[Any], error: Exception) -> list[Any]:
        if len(items) > 1:
            middle = len(items) // 2
            return self._apply(items[:middle]) + self._apply(items[middle:])
        # The text of a database error quotes values; its class says enough.
        logger.error("%s: an item was rejected: %s", self.name, type(error).__name__)
        rest = self._fallback(items[0]) if self._fallback is not None else None
        if rest is not None:
            self._apply([rest])
        return [Rejected()]

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def is_items_fault(error: Exception) -> bool:
    """Whether an item is to blame, and not the database."""
    state = getattr(error, "sqlstate", None)
    if state is not None:
        return state[:2] in ITEM_CLASSES or state == OUT_OF_MEMORY
    return not isinstance(error, DATABASE_ERRORS)


def _retrieve(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()


def _deliver(waiters: Sequence[Waiter], outcomes: Sequence[Any]) -> None:
    """Wake each event loop once, however many of its callers were in the batch."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Any, Any]]] = defaultdict(list)
    for (loop, future), outcome in zip(waiters, outcomes, strict=True):
        if loop is None:
            _settle(future, outcome)
        else:
            by_loop[loop].append((future, outcome))
    for loop, settled in by_loop.items():
        try:
            loop.call_soon_threadsafe(_settle_all, settled)
        except RuntimeError:  # the loop was closed; nobody waits any more
            continue


def _settle_all(settled: Sequence[tuple[Any, Any]]) -> None:
    for future, outcome in settled:
        _settle(future, outcome)


def _settle(future: Any, outcome: Any) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
