"""Uploads: the files that this process is taking, and who may send one."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.http import HttpRequest

from apikeys.api.views import ApiView
from apikeys.errors import TooManyUploads

# One process takes so many at the same time, and so many of one team; so much of each stays in memory.
MAX_UPLOADS = 16
MAX_UPLOADS_OF_TEAM = 2
UPLOAD_MEMORY_BYTES = 256 * 1024


class Uploads:
    """The files that this process is taking. Nobody waits for room: a client is told at once to come again."""

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


async def team_of_sender(view_class: type[ApiView], request: HttpRequest) -> str:
    """Return the team for which the sender may upload here. Raise whatever a call without a body would."""
    async with ThreadSensitiveContext():
        return await sync_to_async(view_class.check_caller)(request)
