"""Read-through snapshots of policy, and the listener that ends them when the database changes."""

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

    What does not exist is remembered too, in a map of its own, so that garbage cannot push out what is good.
    """

    def __init__(self, batcher: Batcher[Any, Snapshot | None], listener: Listener) -> None:
        self.name = batcher.name
        # For metrics. Counted without a lock: threads that race may lose one.
        self.hits = 0
        self.misses = 0
        self._batcher = batcher
        self._listener = listener
        self._found: dict[Key, tuple[float, Snapshot]] = {}
        self._absent: dict[Key, tuple[float, None]] = {}
        self._filling = threading.Lock()
        listener.register(self)

    def clear(self) -> None:
        self._found = {}
        self._absent = {}

    def look_up(self, key: Key) -> tuple[bool, Snapshot | None]:
        """(whether it is known, what is known)."""
        entry = self._found.get(key) or self._absent.get(key)
        if entry is None or entry[0] < time.monotonic() or not self._listener.is_alive:
            return False, None
        return True, entry[1]

    async def get(self, key: Key, item: Any) -> Snapshot | None:
        """The snapshot of `key`, loaded by submitting `item` when it is not cached. Raises ServiceUnavailable."""
        is_known, snapshot = self.look_up(key)
        if is_known:
            self.hits += 1
            return snapshot
        self.misses += 1
        generation = self._listener.generation
        snapshot = await self._batcher.submit(item)
        self._keep(key, snapshot, generation)
        return snapshot

    def get_from_thread(self, key: Key, item: Any) -> Snapshot | None:
        """The same as `get`, for synchronous callers."""
        is_known, snapshot = self.look_up(key)
        if is_known:
            self.hits += 1
            return snapshot
        self.misses += 1
        generation = self._listener.generation
        snapshot = self._batcher.submit_from_thread(item)
        self._keep(key, snapshot, generation)
        return snapshot

    def _keep(self, key: Key, snapshot: Snapshot | None, generation: int) -> None:
        entries: dict[Key, Any] = self._absent if snapshot is None else self._found
        # Loaded while a change was heard of: it may show what was before. Good for the request that was
        # under way all the while, not for a later one. `clear` replaces the maps after the generation has
        # moved on, so an entry that slips in behind this check lands in a map that is thrown away.
        if generation != self._listener.generation:
            return
        # Threads fill the maps as well as the event loop.
        with self._filling:
            while len(entries) >= MAX_ENTRIES:
                entries.pop(next(iter(entries)))
            entries[key] = (time.monotonic() + TTL_SECONDS, snapshot)
