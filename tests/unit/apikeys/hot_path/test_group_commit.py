"""The batcher, on the real database."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection as django_connection

from apikeys.errors import Rejected, ServiceUnavailable
from apikeys.hot_path.group_commit import Batcher, is_items_fault
from apikeys.hot_path.statements import StatementConnection, format_array


@contextmanager
def closing(batcher: Batcher[int, int]) -> Iterator[Batcher[int, int]]:
    try:
        yield batcher
    finally:
        asyncio.run(batcher.close())


class Doubler:
    """A flush that remembers its batches, divides by an item that is 0, and waits until `go_on` is set."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go_on = threading.Event()
        self.go_on.set()

    async def __call__(self, connection: StatementConnection, batch: Sequence[int]) -> list[int]:
        if not self.go_on.is_set():
            await asyncio.to_thread(self.go_on.wait, 30)
        self.batches.append(list(batch))
        query = "SELECT 2 * item * (item / nullif(item, 0) + 0 * (1 / item)) FROM unnest($1::int[]) AS item"
        return [int(number) for [number] in await connection.execute(query, [format_array(batch)])]


def test_it_works() -> None:
    with closing(Batcher("test", Doubler(), capacity=10)) as batcher:
        assert asyncio.run(batcher.submit(21)) == 42
        assert batcher.submit_from_thread(4) == 8


def test_items_that_gather_meanwhile_go_in_one_batch() -> None:
    flush = Doubler()
    with closing(Batcher("test", flush, capacity=1000, max_batch=256)) as batcher:

        async def many() -> list[int]:
            flush.go_on.clear()
            tasks = [asyncio.ensure_future(batcher.submit(number)) for number in range(1, 301)]
            await asyncio.sleep(0)
            flush.go_on.set()
            return await asyncio.gather(*tasks)

        assert asyncio.run(many()) == [2 * number for number in range(1, 301)]
    assert sum(len(batch) for batch in flush.batches) == 300
    assert len(flush.batches) <= 4
    assert max(len(batch) for batch in flush.batches) <= 256


def test_each_caller_gets_its_own_from_many_threads() -> None:
    with closing(Batcher("test", Doubler(), capacity=1000)) as batcher, ThreadPoolExecutor(16) as pool:
        numbers = range(1, 400)
        assert list(pool.map(batcher.submit_from_thread, numbers)) == [2 * number for number in numbers]


def test_one_bad_item_fails_alone() -> None:
    flush = Doubler()
    with closing(Batcher("test", flush, capacity=100)) as batcher:

        async def many() -> list[object]:
            flush.go_on.clear()
            tasks = [asyncio.ensure_future(batcher.submit(number)) for number in (1, 2, 0, 3, 4)]
            await asyncio.sleep(0)
            flush.go_on.set()
            return await asyncio.gather(*tasks, return_exceptions=True)

        one, two, zero, three, four = asyncio.run(many())
    assert (one, two, three, four) == (2, 4, 6, 8)
    assert isinstance(zero, Rejected)


def test_the_fallback_of_a_bad_item_is_flushed() -> None:
    flush = Doubler()
    batcher = Batcher("test", flush, capacity=10, fallback=lambda number: 7 if number == 0 else None)
    with closing(batcher), pytest.raises(Rejected):
        batcher.submit_from_thread(0)
    assert flush.batches[-1] == [7]


@pytest.mark.parametrize(
    ("error", "is_fault"),
    [
        (psycopg.errors.NumericValueOutOfRange(), True),
        (psycopg.errors.UniqueViolation(), True),
        (psycopg.errors.ProgramLimitExceeded(), True),
        (psycopg.errors.OutOfMemory(), True),
        (TypeError(), True),
        (psycopg.errors.ReadOnlySqlTransaction(), False),
        (psycopg.errors.UndefinedTable(), False),
        (psycopg.errors.DeadlockDetected(), False),
        (psycopg.errors.AdminShutdown(), False),
        (psycopg.errors.DiskFull(), False),
        (psycopg.OperationalError(), False),
        (ImproperlyConfigured(), False),
        (OSError(), False),
    ],
)
def test_who_is_to_blame(error: Exception, is_fault: bool) -> None:
    assert is_items_fault(error) is is_fault


def test_a_full_queue_refuses() -> None:
    flush = Doubler()
    with closing(Batcher("test", flush, capacity=2)) as batcher:

        async def overfill() -> None:
            flush.go_on.clear()
            waiting = [batcher.enqueue(1), batcher.enqueue(2)]
            with pytest.raises(ServiceUnavailable):
                batcher.enqueue(3)
            flush.go_on.set()
            assert await asyncio.gather(*waiting) == [2, 4]
            assert await batcher.submit(3) == 6

        asyncio.run(overfill())


def test_reserved_room_counts_until_it_is_used_or_given_back() -> None:
    with closing(Batcher("test", Doubler(), capacity=1)) as batcher:

        async def reserve() -> None:
            batcher.reserve()
            with pytest.raises(ServiceUnavailable):
                batcher.reserve()
            with pytest.raises(ServiceUnavailable):
                batcher.enqueue(1)
            assert await batcher.enqueue(5, reserved=True) == 10
            batcher.reserve()
            batcher.release()
            assert await batcher.submit(1) == 2

        asyncio.run(reserve())


def test_nobody_gets_more_room_than_is_left_for_others() -> None:
    with closing(Batcher("test", Doubler(), capacity=12)) as batcher:
        for _ in range(6):
            batcher.reserve("greedy")
        with pytest.raises(ServiceUnavailable):
            batcher.reserve("greedy")
        for _ in range(3):
            batcher.reserve("second")
        with pytest.raises(ServiceUnavailable):
            batcher.reserve("second")
        batcher.reserve("third")
        batcher.reserve()
        # What was recorded makes room; whoever has less gets it first.
        assert batcher.submit_from_thread(1, reserved=True, holder="greedy") == 2
        with pytest.raises(ServiceUnavailable):
            batcher.reserve("greedy")
        batcher.reserve("third")
        for _ in range(5):
            batcher.release("greedy")
        batcher.reserve("greedy")


def test_the_item_of_a_caller_that_left_is_flushed() -> None:
    flush = Doubler()
    with closing(Batcher("test", flush, capacity=10)) as batcher:

        async def leave() -> None:
            flush.go_on.clear()
            task = asyncio.ensure_future(batcher.submit(7))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            flush.go_on.set()

        asyncio.run(leave())
    assert flush.batches == [[7]]


def test_a_connection_that_died_while_idle_is_replaced() -> None:
    with closing(Batcher("test", Doubler(), capacity=10)) as batcher:
        assert batcher.submit_from_thread(1) == 2
        with django_connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT 2 * item%'")
        assert batcher.submit_from_thread(2) == 4


def test_a_closed_batcher_has_flushed_everything_and_takes_nothing_more() -> None:
    flush = Doubler()
    batcher = Batcher("test", flush, capacity=100)

    async def fill() -> None:
        for number in range(1, 51):
            batcher.enqueue(number)

    asyncio.run(fill())
    asyncio.run(batcher.close())
    assert sum(len(batch) for batch in flush.batches) == 50
    with pytest.raises(ServiceUnavailable):
        batcher.submit_from_thread(1)
