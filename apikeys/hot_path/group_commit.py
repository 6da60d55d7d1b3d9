"""Group commit, the way to the database on the hot path: many callers, one thread, one statement for all of them.

Coroutines and threads submit items. A batcher's thread takes all that are queued, hands them to `flush` in one batch,
and gives each caller its own result. Meanwhile the next batch gathers: the busier the server, the larger the batch,
and the cheaper each item.
"""

import asyncio
import logging
import threading
import time
from collections import Counter, defaultdict, deque
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

# A caller's future; the loop is None for a caller in a thread.
Waiter = tuple[asyncio.AbstractEventLoop | None, Any]
# With whom the room of an item is counted for, if for anybody.
Pending = tuple[Any, Waiter, str | None]
DATABASE_ERRORS = (psycopg.Error, DjangoDatabaseError, ImproperlyConfigured, OSError)
# These classes of SQLSTATE are an item's own fault: data, integrity, program limits. So is running out of memory:
# retried, a batch that is too large would block everything behind it. Any other error, such as a missing table or a
# server that became read-only, is taken for temporary, and the same batch may succeed later.
ITEM_CLASSES = {"22", "23", "54"}
OUT_OF_MEMORY = "53200"


class Batcher(Generic[Item, Result]):
    """Queues items and flushes them in order, at most `max_batch` at once, with `flush(connection, items) -> results`.

    `flush` must do its work in one transaction (the connection is in autocommit mode, so one statement is one).
    At most `capacity` items wait; beyond that ServiceUnavailable is raised. Nobody gets more of it than is still free
    for others: one holder half of it, two a third each, and whoever comes next finds room. With `retry`, a batch that
    the database could not take is retried until it is written or the batcher is closed; without, its callers get
    ServiceUnavailable after one reconnect. An item that the database rejects fails alone, with Rejected; the item that
    `fallback` makes of it, if any, is flushed in its place.
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
        # Room that is reserved, or held by an item until it is flushed: in all, and by holder.
        self._taken = 0
        self._held: Counter[str] = Counter()
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

    def reserve(self, holder: str | None = None) -> None:
        """Reserve room for one later item, so that work once begun can be recorded. Raise ServiceUnavailable."""
        with self._lock:
            self._take(holder)

    def release(self, holder: str | None = None) -> None:
        with self._lock:
            self._give_back(holder)

    def enqueue(self, item: Item, *, reserved: bool = False, holder: str | None = None) -> asyncio.Future[Result]:
        """Queue an item from a coroutine. It is flushed even if nobody awaits the result."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        # The flush logs an abandoned item's failure; asyncio would log it a second time.
        future.add_done_callback(_mark_retrieved)
        self._add(item, (loop, future), reserved, holder)
        return future

    async def submit(self, item: Item) -> Result:
        """Queue an item and await its result. Raise ServiceUnavailable after `wait_seconds`."""
        return await self.wait(self.enqueue(item))

    async def wait(self, future: asyncio.Future[Result]) -> Result:
        """Await a future of `enqueue`, like `submit`. The item is flushed even if this is cancelled."""
        give_up = future.get_loop().call_later(self.wait_seconds, _resolve, future, ServiceUnavailable())
        try:
            return await future
        finally:
            give_up.cancel()

    def submit_from_thread(self, item: Item, *, reserved: bool = False, holder: str | None = None) -> Result:
        try:
            return self.enqueue_from_thread(item, reserved=reserved, holder=holder).result(self.wait_seconds)
        except TimeoutError:
            raise ServiceUnavailable from None

    def enqueue_from_thread(self, item: Item, *, reserved: bool = False, holder: str | None = None) -> Future[Result]:
        future: Future[Result] = Future()
        self._add(item, (None, future), reserved, holder)
        return future

    def close(self, patience: float = 5.0) -> None:
        """Flush what is queued, at most `patience` seconds, then end the thread."""
        with self._lock:
            self._is_closing = True
            self._give_up_at = time.monotonic() + patience
            self._wake.notify()
            thread = self._thread
        if thread is not None:
            thread.join(patience + 1.0)

    def _take(self, holder: str | None) -> None:
        free = self._capacity - self._taken
        if self._is_closing or free <= 0 or (holder is not None and self._held[holder] >= free):
            raise ServiceUnavailable
        self._taken += 1
        if holder is not None:
            self._held[holder] += 1

    def _give_back(self, holder: str | None) -> None:
        self._taken -= 1
        if holder is not None:
            self._held[holder] -= 1
            if not self._held[holder]:
                del self._held[holder]

    def _add(self, item: Item, waiter: Waiter, reserved: bool, holder: str | None) -> None:
        with self._lock:
            if self._thread is not None and not self._thread.is_alive():
                # The batcher is closed, so nothing would flush the item.
                raise ServiceUnavailable
            if not reserved:
                self._take(holder)
            self._pending.append((item, waiter, holder))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"batcher-{self.name}", daemon=True)
                self._thread.start()
            self._wake.notify()

    def _next_batch(self) -> list[Pending]:
        """Wait for items; return an empty list when the batcher is closed and nothing is left."""
        with self._lock:
            while not self._pending and not self._is_closing:
                self._wake.wait()
            batch = [self._pending.popleft() for _ in range(min(len(self._pending), self._max_batch))]
            self._in_flight = len(batch)
            return batch

    def _run(self) -> None:
        while batch := self._next_batch():
            outcomes = self._flush_all([item for item, _, _ in batch])
            # Room is freed before results are delivered: a caller with its result may rely on that room.
            with self._lock:
                self._in_flight = 0
                for _, _, holder in batch:
                    self._give_back(holder)
            _deliver([waiter for _, waiter, _ in batch], outcomes)
        if self._connection is not None:
            self._connection.close()

    def _flush_all(self, items: list[Any]) -> list[Any]:
        """Return the result or the exception of each item."""
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
                # race that a new snapshot resolves.
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
            return self._flush_all(items[:middle]) + self._flush_all(items[middle:])
        # The text of a database error quotes values; its class says enough.
        logger.error("%s: an item was rejected: %s", self.name, type(error).__name__)
        rest = self._fallback(items[0]) if self._fallback is not None else None
        if rest is not None:
            self._flush_all([rest])
        return [Rejected()]

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def is_items_fault(error: Exception) -> bool:
    state = getattr(error, "sqlstate", None)
    if state is not None:
        return state[:2] in ITEM_CLASSES or state == OUT_OF_MEMORY
    return not isinstance(error, DATABASE_ERRORS)


def _mark_retrieved(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()


def _deliver(waiters: Sequence[Waiter], outcomes: Sequence[Any]) -> None:
    """Wake each event loop once, however many of its callers were in the batch."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Any, Any]]] = defaultdict(list)
    for (loop, future), outcome in zip(waiters, outcomes, strict=True):
        if loop is None:
            _resolve(future, outcome)
        else:
            by_loop[loop].append((future, outcome))
    for loop, resolved in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve_all, resolved)
        except RuntimeError:  # the loop was closed; nobody waits any more
            continue


def _resolve_all(resolved: Sequence[tuple[Any, Any]]) -> None:
    for future, outcome in resolved:
        _resolve(future, outcome)


def _resolve(future: Any, outcome: Any) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
