"""Uploads: the files that this process is taking."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from apikeys.errors import TooManyUploads

# One process takes so many at the same time, and so many of one team.
MAX_UPLOADS = 16
MAX_UPLOADS_OF_TEAM = 2


class Uploads:
    """The files that this process is taking. Nobody waits for room: a client learns at once to come again."""

    def __init__(self) -> None:
        self.by_team: Counter[str] = Counter()

    @contextmanager
    def reserve(self, team_id: str) -> Iterator[None]:
        """Hold room for one upload. Raise TooManyUploads."""
        if self.by_team.total() >= MAX_UPLOADS or self.by_team[team_id] >= MAX_UPLOADS_OF_TEAM:
            raise TooManyUploads
        self.by_team[team_id] += 1
        try:
            yield
        finally:
            self.by_team -= Counter([team_id])
