"""Read-through snapshots of policy, which the listener drops when the database changes."""

import threading
import time
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

from apikeys.hot_path.group_commit import Batcher
from apikeys.hot_path.listener import Listener

Key = TypeVar("Key", bound=Hashable)
Snapshot = TypeVar("Snapshot")

TTL_SECONDS = 10.0
MAX_ENTRIES = 10_000


class Snapshots(Generic[Key, Snapshot]):
    """Immutable snapshots by key, at most 10 s old and dropped on any change of policy.

    Keys that do not exist are cached too, in a map of their own, so that garbage cannot evict good entries.
    """

    def __init__(self, batcher: Batcher[Any, Snapshot | None], listener: Listener) -> None:
        self.name = batcher.name
        # Metrics read these. They are counted without a lock, so threads that race may lose one.
        self.hits = 0
        self.misses = 0
        self._batcher = batcher
        self._listener = listener
        self._present: dict[Key, tuple[float, Snapshot]] = {}
        self._absent: dict[Key, tuple[float, None]] = {}
        self._fill_lock = threading.Lock()
        listener.register(self)

    def clear(self) -> None:
        self._present = {}
        self._absent = {}

    def look_up(self, key: Key) -> tuple[bool, Snapshot | None]:
        """Return whether an answer is cached, and the answer: None if the key does not exist."""
        entry = self._present.get(key) or self._absent.get(key)
        if entry is None or entry[0] < time.monotonic() or not self._listener.is_alive:
            return False, None
        return True, entry[1]

    def get_cached(self, key: Key) -> tuple[bool, Snapshot | None]:
        """Look up, and count it as one that the database was not asked for. A miss is left to whoever asks then."""
        found = self.look_up(key)
        if found[0]:
            self.hits += 1
        return found

    async def get(self, key: Key, item: Any) -> Snapshot | None:
        """Return the snapshot of `key`, loaded by submitting `item` if not cached. Raise ServiceUnavailable."""
        is_cached, snapshot = self.get_cached(key)
        if is_cached:
            return snapshot
        self.misses += 1
        generation = self._listener.generation
        snapshot = await self._batcher.submit(item)
        self._store(key, snapshot, generation)
        return snapshot

    def get_from_thread(self, key: Key, item: Any) -> Snapshot | None:
        is_cached, snapshot = self.get_cached(key)
        if is_cached:
            return snapshot
        self.misses += 1
        generation = self._listener.generation
        snapshot = self._batcher.submit_from_thread(item)
        self._store(key, snapshot, generation)
        return snapshot

    def _store(self, key: Key, snapshot: Snapshot | None, generation: int) -> None:
        entries: dict[Key, Any] = self._absent if snapshot is None else self._present
        # A snapshot that was loaded while a change was announced may show the policy before it: good for the request
        # that was under way all the while, not for a later one. `clear` replaces the maps after the generation has
        # moved on, so an entry that slips in behind this check lands in a map that is thrown away.
        if generation != self._listener.generation:
            return
        # Threads fill the maps as well as the event loop does.
        with self._fill_lock:
            while len(entries) >= MAX_ENTRIES:
                entries.pop(next(iter(entries)))
            entries[key] = (time.monotonic() + TTL_SECONDS, snapshot)
