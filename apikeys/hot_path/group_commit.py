"""Group commit, the way to the database on the hot path: many callers, one statement for all of them.

Coroutines and threads submit items. A batcher takes all that are queued, hands them to `flush` in one batch, and gives
each caller its own result. Meanwhile the next batch gathers: the busier the server, the larger the batch, and the
cheaper each item.
"""

import asyncio
import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextvars import Context
from typing import Any, Generic, TypeVar

import psycopg
from django.core.exceptions import ImproperlyConfigured
from django.db import Error as DjangoDatabaseError

from apikeys.errors import Rejected, ServiceUnavailable
from apikeys.hot_path import home_loop
from apikeys.hot_path.statements import StatementConnection

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

Loop = asyncio.AbstractEventLoop
# An item, its caller's future, the loop of that future (None for a caller in a thread), and with whom the room of the
# item is counted for, if for anybody.
Pending = tuple[Any, Any, Loop | None, str | None]
DATABASE_ERRORS = (psycopg.Error, DjangoDatabaseError, ImproperlyConfigured, OSError)
# These classes of SQLSTATE are an item's own fault: data, integrity, program limits. So is running out of memory:
# retried, a batch that is too large would block everything behind it. Any other error, such as a missing table or a
# server that became read-only, is taken for temporary, and the same batch may succeed later.
ITEM_CLASSES = {"22", "23", "54"}
OUT_OF_MEMORY = "53200"


class Batcher(Generic[Item, Result]):
    """Queues items and flushes them in order, at most `max_batch` at once, with `flush(connection, items) -> results`.

    `flush` must do its work in one transaction (the connection is in autocommit mode, so one statement is one), and
    must not block: it runs in the home loop of this process, whose coroutines get their results quickest.
    At most `capacity` items wait; beyond that ServiceUnavailable is raised. Nobody gets more of it than is still free
    for others: one holder half of it, two a third each, and whoever comes next finds room. With `retry`, a batch that
    the database could not take is retried until it is written or the batcher is closed; without, its callers get
    ServiceUnavailable after one reconnect. An item that the database rejects fails alone, with Rejected; the item that
    `fallback` makes of it, if any, is flushed in its place.
    """

    def __init__(
        self,
        name: str,
        flush: Callable[[StatementConnection, Sequence[Item]], Awaitable[Sequence[Result]]],
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
        # Room that is reserved, or held by an item until it is flushed: in all, and by holder. Threads take room too.
        self._taken = 0
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()
        # Any thread may append; the rest belongs to the home loop.
        self._pending: deque[Pending] = deque()
        self._batch: list[Pending] = []
        self._home: Loop | None = None
        self._pid = 0
        self._runner: asyncio.Task[None] | None = None
        self._connection: StatementConnection | None = None
        # The futures of coroutines in the home loop that wait, the longest first, and when to give them up.
        self._waiting: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._is_closing = False
        self._is_closed = False
        self._give_up_at = float("inf")

    @property
    def queue_length(self) -> int:
        return len(self._pending) + len(self._batch)

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
        self._add(item, future, loop, reserved, holder)
        return future

    async def submit(self, item: Item) -> Result:
        """Queue an item and await its result. Raise ServiceUnavailable after `wait_seconds`."""
        return await self.wait(self.enqueue(item))

    async def wait(self, future: asyncio.Future[Result]) -> Result:
        """Await a future of `enqueue`, like `submit`. The item is flushed even if this is cancelled."""
        loop = future.get_loop()
        if loop is self._home:
            self._limit_wait(future, loop)
            return await future
        give_up = loop.call_later(self.wait_seconds, _resolve, future, ServiceUnavailable())
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
        self._add(item, future, None, reserved, holder)
        return future

    async def close(self, patience: float = 5.0) -> None:
        """Flush what is queued, at most `patience` seconds, then take nothing more."""
        self._is_closing = True
        self._give_up_at = time.monotonic() + patience
        home = self._home
        if home is None or home.is_closed():
            self._is_closed = True
        elif home is asyncio.get_running_loop():
            await self._finish()
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._finish(), home))

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

    def _add(self, item: Item, future: Any, loop: Loop | None, reserved: bool, holder: str | None) -> None:
        if self._is_closed:
            # Nothing would flush the item.
            raise ServiceUnavailable
        home = self._home if loop is not None and loop is self._home else self._find_home()
        if not reserved:
            self.reserve(holder)
        self._pending.append((item, future, loop, holder))
        if loop is home:
            self._start()
        else:
            home.call_soon_threadsafe(self._start)

    def _find_home(self) -> Loop:
        """Return the loop in which this lives, which is another one once the first has ended or the process forked."""
        home = self._home
        if home is None or home.is_closed() or self._pid != os.getpid():
            with self._lock:
                abandoned = self._move(home_loop.find())
            for _, future, loop, _ in abandoned:
                # A coroutine of another loop gives up by itself.
                if loop is None:
                    _resolve(future, ServiceUnavailable())
        assert self._home is not None  # noqa: S101 - it has just moved, if it was not at home
        return self._home

    def _move(self, home: Loop) -> list[Pending]:
        """Move to this loop, and return what can be flushed no more."""
        if self._home is home and self._pid == os.getpid():
            # Another thread was quicker.
            return []
        abandoned = [*self._batch, *self._pending]
        for _, _, _, holder in abandoned:
            self._give_back(holder)
        self._pending.clear()
        self._batch, self._runner, self._timer = [], None, None
        self._waiting.clear()
        # The connection of another process must not be closed: that would end it there too.
        if self._connection is not None and self._pid == os.getpid():
            self._connection.close()
        self._connection = None
        self._home, self._pid = home, os.getpid()
        return abandoned

    def _start(self) -> None:
        # The task's first step comes after all that runs in this turn of the loop, so that their items go together.
        # It outlives the request that happens to start it, and must not keep its context.
        if self._runner is None and self._pending and self._home is not None:
            self._runner = self._home.create_task(self._run(), context=Context())

    async def _run(self) -> None:
        pending = self._pending
        try:
            while pending:
                self._batch = batch = [pending.popleft() for _ in range(min(len(pending), self._max_batch))]
                outcomes = await self._flush_all([item for item, _, _, _ in batch])
                # Room is freed before results are delivered: a caller with its result may rely on that room.
                self._batch = []
                with self._lock:
                    for _, _, _, holder in batch:
                        self._give_back(holder)
                self._deliver(batch, outcomes)
        finally:
            self._runner = None

    def _deliver(self, batch: Sequence[Pending], outcomes: Sequence[Any]) -> None:
        """Wake each other event loop once, however many of its callers were in the batch."""
        by_loop: dict[Loop, list[tuple[Any, Any]]] = {}
        for (_, future, loop, _), outcome in zip(batch, outcomes, strict=True):
            if loop is None or loop is self._home:
                _resolve(future, outcome)
            else:
                by_loop.setdefault(loop, []).append((future, outcome))
        for loop, resolved in by_loop.items():
            try:
                loop.call_soon_threadsafe(_resolve_all, resolved)
            except RuntimeError:  # the loop was closed; nobody waits any more
                continue

    async def _flush_all(self, items: list[Any]) -> list[Any]:
        """Return the result or the exception of each item."""
        delay, attempts = 0.05, 0
        while True:
            try:
                if self._connection is None or self._connection.is_closed:
                    self._connection = await StatementConnection.connect()
                return list(await self._flush(self._connection, items))
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one item must not end the batcher
                attempts += 1
                if not isinstance(error, psycopg.DataError | psycopg.IntegrityError):
                    self._drop_connection()
                # The first failure may only be a connection that died while idle, a plan that became stale, or a
                # race that a new snapshot resolves.
                if attempts == 1 and isinstance(error, DATABASE_ERRORS) and not isinstance(error, psycopg.DataError):
                    continue
                if is_items_fault(error):
                    return await self._bisect(items, error)
                logger.warning("%s: the database cannot be used: %s", self.name, type(error).__name__)
                if not self._retry or time.monotonic() > self._give_up_at:
                    return [ServiceUnavailable()] * len(items)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 1.0)

    async def _bisect(self, items: list[Any], error: Exception) -> list[Any]:
        if len(items) > 1:
            middle = len(items) // 2
            return await self._flush_all(items[:middle]) + await self._flush_all(items[middle:])
        # The text of a database error quotes values; its class says enough.
        logger.error("%s: an item was rejected: %s", self.name, type(error).__name__)
        rest = self._fallback(items[0]) if self._fallback is not None else None
        if rest is not None:
            await self._flush_all([rest])
        return [Rejected()]

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _finish(self) -> None:
        self._start()
        while self._runner is not None:
            patience = self._give_up_at + 1.0 - time.monotonic()
            if patience <= 0:
                self._runner.cancel()
                break
            await asyncio.wait({self._runner}, timeout=patience)
        self._is_closed = True
        self._drop_connection()

    def _limit_wait(self, future: asyncio.Future[Any], loop: Loop) -> None:
        """Give the future up after `wait_seconds`. One timer does for all that wait, since most never need it."""
        waiting = self._waiting
        while waiting and waiting[0][1].done():
            waiting.popleft()
        give_up_at = loop.time() + self.wait_seconds
        waiting.append((give_up_at, future))
        if self._timer is None:
            self._timer = loop.call_at(give_up_at, self._give_up, loop)

    def _give_up(self, loop: Loop) -> None:
        waiting, now = self._waiting, loop.time()
        while waiting and (waiting[0][0] <= now or waiting[0][1].done()):
            _resolve(waiting.popleft()[1], ServiceUnavailable())
        self._timer = loop.call_at(waiting[0][0], self._give_up, loop) if waiting else None


def is_items_fault(error: Exception) -> bool:
    state = getattr(error, "sqlstate", None)
    if state is not None:
        return state[:2] in ITEM_CLASSES or state == OUT_OF_MEMORY
    return not isinstance(error, DATABASE_ERRORS)


def _resolve_all(resolved: Sequence[tuple[Any, Any]]) -> None:
    for future, outcome in resolved:
        _resolve(future, outcome)


def _resolve(future: Any, outcome: Any) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
        # The flush logs an abandoned item's failure; asyncio would log it a second time.
        future.exception()
    else:
        future.set_result(outcome)
