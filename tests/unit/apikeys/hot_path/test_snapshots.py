"""Snapshots and the listener, on the real database."""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence

import msgspec
import pytest
from django.db import connection

from apikeys.hot_path.broadcasts import ControlMessage
from apikeys.hot_path.connections import Connection
from apikeys.hot_path.group_commit import Batcher
from apikeys.hot_path.listener import CHANNEL, CONTROL_CHANNEL, SILENCE_SECONDS, Listener
from apikeys.hot_path.snapshots import MAX_ENTRIES, Snapshots
from apikeys.hot_path.statements import StatementConnection
from tests.support.processes import wait_for


class World:
    """A flush that looks names up in `numbers` and counts its loads."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.loads = 0
        self.is_loading = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    async def __call__(self, connection: StatementConnection, batch: Sequence[str]) -> list[int | None]:
        self.loads += 1
        found = [self.numbers.get(name) for name in batch]
        self.is_loading.set()
        await asyncio.to_thread(self.go_on.wait, 30)
        return found


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    listener.start()
    wait_for(lambda: listener.is_alive, "the listener receives its own ping")
    yield listener
    listener.stop()


@pytest.fixture
def batcher(world: World) -> Iterator[Batcher[str, int | None]]:
    batcher: Batcher[str, int | None] = Batcher("test", world, capacity=100_000)
    yield batcher
    asyncio.run(batcher.close())


@pytest.fixture
def snapshots(batcher: Batcher[str, int | None], listener: Listener) -> Snapshots[str, int]:
    return Snapshots(batcher, listener)


def test_it_is_loaded_once(world: World, snapshots: Snapshots[str, int]) -> None:
    world.numbers["a"] = 1
    assert [snapshots.get_from_thread("a", "a") for _ in range(3)] == [1, 1, 1]
    assert asyncio.run(snapshots.get("a", "a")) == 1
    assert world.loads == 1


def test_an_absent_key_is_cached_too(world: World, snapshots: Snapshots[str, int]) -> None:
    assert [snapshots.get_from_thread("b", "b") for _ in range(3)] == [None, None, None]
    assert world.loads == 1


def test_a_notification_ends_it(world: World, listener: Listener, snapshots: Snapshots[str, int]) -> None:
    world.numbers["a"] = 1
    snapshots.get_from_thread("a", "a")
    world.numbers["a"] = 2
    generation = listener.generation
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_notify(%s, '')", [CHANNEL])
    wait_for(lambda: listener.generation > generation, "the listener is notified", seconds=2)
    assert snapshots.get_from_thread("a", "a") == 2


def test_a_load_that_began_before_a_change_is_not_kept(
    world: World, listener: Listener, snapshots: Snapshots[str, int]
) -> None:
    """The row changes, and the change is announced, before reading it is done."""
    world.numbers["a"] = 1
    world.go_on.clear()
    reader = threading.Thread(target=snapshots.get_from_thread, args=("a", "a"))
    reader.start()
    assert world.is_loading.wait(30)
    world.numbers["a"] = 2
    listener.invalidate()
    world.go_on.set()
    reader.join(30)
    assert snapshots.look_up("a") == (False, None)
    assert snapshots.get_from_thread("a", "a") == 2


def test_a_message_of_another_version_does_not_end_it() -> None:
    listener = Listener()
    understood: list[tuple[str, ...]] = []
    listener.start(
        None, lambda _, payload: understood.append(msgspec.json.decode(payload, type=ControlMessage).terminated_keys)
    )
    try:
        wait_for(lambda: listener.is_alive, "the listener receives its own ping")
        with connection.cursor() as cursor:
            for payload in ("nonsense", '{"number": 1, "terminated_keys": ["a"]}'):
                cursor.execute("SELECT pg_notify(%s, %s)", [CONTROL_CHANNEL, payload])
        wait_for(lambda: understood == [("a",)], "the next one is understood")
    finally:
        listener.stop()


def test_nothing_is_trusted_while_the_listener_is_silent(
    world: World, listener: Listener, snapshots: Snapshots[str, int]
) -> None:
    world.numbers["a"] = 1
    snapshots.get_from_thread("a", "a")
    listener.stop()
    world.numbers["a"] = 2
    assert snapshots.get_from_thread("a", "a") == 2
    assert snapshots.get_from_thread("a", "a") == 2
    assert world.loads == 3


def test_an_old_ping_is_no_sign_of_life() -> None:
    """The process was stopped in between, as by SIGSTOP: a change may follow the ping that it receives first."""
    listener = Listener()
    is_stopped, go_on = threading.Event(), threading.Event()
    was_alive: list[bool] = []

    def stop_once(_: Connection) -> None:
        if not is_stopped.is_set():
            is_stopped.set()
            go_on.wait(30)

    listener.start(stop_once, lambda _, payload: was_alive.append(listener.is_alive))
    try:
        assert is_stopped.wait(30)
        time.sleep(SILENCE_SECONDS + 0.1)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, '')", [CONTROL_CHANNEL])
        go_on.set()
        wait_for(lambda: was_alive == [False], "the ping and then the message are received")
        wait_for(lambda: listener.is_alive, "the next ping is received")
    finally:
        listener.stop()


def test_garbage_cannot_evict_good_entries(world: World, snapshots: Snapshots[str, int]) -> None:
    world.numbers["good"] = 1
    snapshots.get_from_thread("good", "good")

    async def flood() -> None:
        for start in range(0, MAX_ENTRIES + 500, 500):
            names = [f"bad{number}" for number in range(start, start + 500)]
            await asyncio.gather(*(snapshots.get(name, name) for name in names))

    asyncio.run(flood())
    assert snapshots.look_up("good") == (True, 1)
    assert len(snapshots._absent) <= MAX_ENTRIES
