"""The requests that this process is answering, so that those of a revoked key can be terminated."""

from __future__ import annotations

import asyncio
from collections import Counter

from django.conf import settings

from apikeys.errors import ApiError, TooManyOpenRequests
from apikeys.hot_path.trace import Reader

# A terminated request whose reader holds it up may take so long to end by itself. One that the server is slow with, as
# when thousands are terminated at once, takes what it takes: no more of its text goes out than the piece at hand.
GRACE_SECONDS = 0.5


class InFlight:
    """One request that may run for long, of a key or of a signed-in user who tries an app.

    Making one raises TooManyOpenRequests. It is made and terminated in the event loop. While its task waits for a
    provider, `waiting` is that task.
    """

    __slots__ = ("app_id", "is_open", "key_id", "reader", "terminated_by", "user_id", "waiting")

    def __init__(self, key_id: str | None, reader: Reader, *, user_id: int | None = None) -> None:
        if key_id is not None:
            if _by_key[key_id] >= settings.MAX_OPEN_REQUESTS_PER_KEY:
                raise TooManyOpenRequests(settings.MAX_OPEN_REQUESTS_PER_KEY)
            _by_key[key_id] += 1
        self.key_id = key_id
        self.user_id = user_id
        self.app_id: str | None = None
        self.reader = reader
        self.terminated_by: ApiError | None = None
        self.waiting: asyncio.Task[object] | None = None
        self.is_open = True
        _open.add(self)

    def close(self) -> None:
        if not self.is_open:
            return
        self.is_open = False
        _open.discard(self)
        if self.key_id is not None:
            _by_key[self.key_id] -= 1
            if not _by_key[self.key_id]:
                del _by_key[self.key_id]

    def terminate(self, error: ApiError) -> None:
        """End the request with this error: at once if it waits for its provider, otherwise at its next `check`."""
        if self.terminated_by is not None:
            return
        self.terminated_by = error
        if self.waiting is not None:
            self.waiting.cancel()
        asyncio.get_running_loop().call_later(GRACE_SECONDS, self._abort_if_held_up)

    def check(self) -> None:
        if self.terminated_by is not None:
            raise self.terminated_by

    def is_cancelled_by_termination(self) -> bool:
        """Return whether the current task was cancelled by `terminate`, and not also by its caller who left."""
        task = asyncio.current_task()
        return self.terminated_by is not None and task is not None and task.uncancel() == 0

    def _abort_if_held_up(self) -> None:
        if not self.is_open:
            return
        if self.reader.is_behind:
            self.reader.abort()
        else:
            asyncio.get_running_loop().call_later(GRACE_SECONDS, self._abort_if_held_up)


_open: set[InFlight] = set()
_by_key: Counter[str] = Counter()


def count() -> int:
    return len(_open)


def count_of_user(user_id: int) -> int:
    return sum(request.user_id == user_id for request in _open)


def terminate(error: ApiError, *, key_id: str | None = None, app_id: str | None = None) -> None:
    """Terminate all requests of this key or to this app. Must be called in the event loop."""
    for request in list(_open):
        if (key_id is not None and request.key_id == key_id) or (app_id is not None and request.app_id == app_id):
            request.terminate(error)
