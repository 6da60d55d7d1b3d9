"""The batcher, on the real database."""

import asyncio
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection as django_connection

from apikeys.errors import Rejected, ServiceUnavailable
from apikeys.hot_path import home_loop
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


class Own:
    """A flush whose batcher lives in the loop that runs it, and says which loop that is."""

    def __init__(self) -> None:
        self.loops: set[asyncio.AbstractEventLoop] = set()

    async def __call__(self, connection: StatementConnection, batch: Sequence[int]) -> list[int]:
        self.loops.add(asyncio.get_running_loop())
        return [int(number) for [number] in await connection.execute("SELECT unnest($1::int[])", [format_array(batch)])]


@pytest.fixture
def own_home() -> Iterator[None]:
    yield
    # Where the adopted loop has ended, the next one runs in a thread again.
    ended = asyncio.new_event_loop()
    ended.close()
    home_loop.adopt(ended)


def test_at_home_and_away_and_in_threads_at_once(own_home: None) -> None:
    flush = Own()
    batcher = Batcher("test", flush, capacity=1000, max_batch=16)

    async def submit_all(numbers: range) -> list[int]:
        return await asyncio.gather(*(batcher.submit(number) for number in numbers))

    async def serve() -> None:
        home_loop.adopt(asyncio.get_running_loop())
        at_home = asyncio.create_task(submit_all(range(100)))
        away = asyncio.to_thread(asyncio.run, submit_all(range(100, 200)))
        in_threads = [asyncio.to_thread(batcher.submit_from_thread, number) for number in range(200, 240)]
        assert await at_home == list(range(100))
        assert await away == list(range(100, 200))
        assert await asyncio.gather(*in_threads) == list(range(200, 240))
        assert flush.loops == {asyncio.get_running_loop()}
        assert batcher.queue_length == 0
        await batcher.close()
        with pytest.raises(ServiceUnavailable):
            batcher.enqueue(1)

    asyncio.run(serve())


def test_it_finds_another_home_when_the_first_has_ended(own_home: None) -> None:
    flush = Own()
    batcher = Batcher("test", flush, capacity=2)

    async def serve(number: int) -> None:
        home_loop.adopt(asyncio.get_running_loop())
        assert await batcher.submit(number) == number
        # Nobody flushes it when the loop ends now, and it holds no room any more.
        batcher.enqueue(number)

    for number in range(3):
        asyncio.run(serve(number))
    with closing(batcher):
        assert batcher.submit_from_thread(4) == 4
        assert len(flush.loops) == 4
        batcher.reserve()
        batcher.reserve()


def test_items_of_one_turn_go_in_one_batch(own_home: None) -> None:
    flush = Doubler()
    batcher = Batcher("test", flush, capacity=10)

    async def serve() -> None:
        home_loop.adopt(asyncio.get_running_loop())
        assert await asyncio.gather(*(batcher.submit(number) for number in range(1, 6))) == [2, 4, 6, 8, 10]
        await batcher.close()

    asyncio.run(serve())
    assert flush.batches == [[1, 2, 3, 4, 5]]


@pytest.mark.parametrize("is_home", [True, False])
def test_who_waits_too_long_is_told_so(own_home: None, is_home: bool) -> None:
    flush = Doubler()
    batcher = Batcher("test", flush, capacity=10, wait_seconds=0.2)

    async def serve() -> None:
        if is_home:
            home_loop.adopt(asyncio.get_running_loop())
        assert await batcher.submit(1) == 2
        flush.go_on.clear()
        late = await asyncio.gather(batcher.submit(2), batcher.submit(3), return_exceptions=True)
        assert [type(error) for error in late] == [ServiceUnavailable] * 2
        flush.go_on.set()
        await batcher.close()

    asyncio.run(serve())
    assert [number for batch in flush.batches for number in batch] == [1, 2, 3]


def test_what_was_reserved_is_flushed_while_closing(own_home: None) -> None:
    flush = Doubler()
    batcher = Batcher("test", flush, capacity=10)

    async def serve() -> None:
        home_loop.adopt(asyncio.get_running_loop())
        batcher.reserve()
        flush.go_on.clear()
        first = batcher.enqueue(1)
        closed = asyncio.create_task(batcher.close())
        await asyncio.sleep(0)
        with pytest.raises(ServiceUnavailable):
            batcher.enqueue(2)
        last = batcher.enqueue(3, reserved=True)
        flush.go_on.set()
        assert await asyncio.gather(first, last) == [2, 6]
        await closed

    asyncio.run(serve())


def test_closing_does_not_wait_for_a_database_that_hangs(own_home: None) -> None:
    async def hang(connection: StatementConnection, batch: Sequence[int]) -> list[int]:
        await connection.execute("SELECT pg_sleep(30)")
        return list(batch)

    batcher = Batcher("test", hang, capacity=10, retry=True)

    async def serve() -> None:
        home_loop.adopt(asyncio.get_running_loop())
        batcher.enqueue(1)
        await batcher.close(patience=-0.9)

    asyncio.run(serve())
    assert batcher.queue_length == 1


def test_a_forked_process_has_a_home_of_its_own() -> None:
    batcher = Batcher("test", Own(), capacity=10)
    with closing(batcher):
        assert batcher.submit_from_thread(1) == 1
        pid = os.fork()
        if pid == 0:
            # Nothing of pytest is to run in this process.
            os._exit(0 if batcher.submit_from_thread(2) == 2 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        # The connection of this process is not ended by the other one.
        connection = batcher._connection
        assert batcher.submit_from_thread(3) == 3
        assert batcher._connection is connection
