"""The files that this process is taking."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from apikeys.errors import TooManyUploads

# Of uploads: how many one process takes at the same time, and how many of one team; what of one stays in memory; how
# many times longer than another body it may take, and how many bytes must have come for each second of that.
MAX_UPLOADS = 16
MAX_UPLOADS_OF_TEAM = 2
UPLOAD_MEMORY_BYTES = 256 * 1024


class Uploads:
    """The files that this process is taking. Nobody waits for room: a client is told at once to come again."""

    def __init__(self) -> None:
        self.by_team: Counter[str] = Counter()

    @contextmanager
    def held(self, team_id: str) -> Iterator[None]:
        """Room for one. Raises TooManyUploads."""
        if self.by_team.total() >= MAX_UPLOADS or self.by_team[team_id] >= MAX_UPLOADS_OF_TEAM:
            raise TooManyUploads
        self.by_team[team_id] += 1
        try:
            yield
        finally:
            self.by_team -= Counter([team_id])
