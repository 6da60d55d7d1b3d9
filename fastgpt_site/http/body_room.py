"""The room that large bodies have in this process."""

from collections import Counter
from typing import Self

from apikeys.errors import TooManyBodies


class BodyRoom:
    """The room for large bodies of known callers, in bytes: those that are arriving, and those that are being answered.

    Nobody waits for it. A team gets no more of it than it leaves for others.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.taken = 0
        self.by_team: Counter[str | None] = Counter()

    def take(self, team_id: str | None, size: int) -> None:
        """Raise TooManyBodies."""
        free = self.capacity - self.taken
        if self.by_team[team_id] + size > free:
            raise TooManyBodies
        self.taken += size
        self.by_team[team_id] += size

    def give_back(self, team_id: str | None, size: int) -> None:
        self.taken -= size
        self.by_team[team_id] -= size
        if not self.by_team[team_id]:
            del self.by_team[team_id]


class HeldRoom:
    """What one body takes of the room. It is held until the request has been answered."""

    __slots__ = ("room", "size", "team_id")

    # A small body needs none.
    FREE_BYTES = 64 * 1024

    def __init__(self, room: BodyRoom, team_id: str | None = None) -> None:
        self.room, self.team_id = room, team_id
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def fit(self, size: int) -> None:
        """Hold room for a body of this size, or what has come of it. Raise TooManyBodies."""
        if size > self.FREE_BYTES and size > self.size:
            self.room.take(self.team_id, size - self.size)
            self.size = size

    def release(self) -> None:
        if self.size:
            self.room.give_back(self.team_id, self.size)
            self.size = 0
