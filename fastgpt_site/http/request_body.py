"""Reading the body of a request within bounds of bytes and time."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from django.conf import settings

from apikeys.errors import BodyTooLarge, BodyTooSlow, ServiceUnavailable
from fastgpt_site.http.asgi_types import Message, Receive, Scope
from fastgpt_site.http.cors import header_of

# An upload may take so many times longer than another body, if so many bytes have come for each second beyond that.
UPLOAD_PATIENCE = 20
UPLOAD_BYTES_A_SECOND = 16 * 1024


class ClientGone(Exception):
    """The client closed the connection before it had sent its body."""


class BodyReader:
    """The body of one request. The client is not asked for it before something reads."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self.receive = receive
        self._first: Message | None = None

    async def has_come(self) -> bool:
        """Return whether all of it came at once, as most bodies do. Raise BodyTooSlow or ClientGone."""
        if header_of(self.scope, b"expect"):
            return False
        try:
            async with asyncio.timeout(settings.API_BODY_SECONDS):
                self._first = await self._next()
        except TimeoutError:
            raise BodyTooSlow from None
        return not self._first["more_body"]

    async def read_into(self, file: IO[bytes], *, limit: int | None = None, is_file: bool = False) -> None:
        """Read the whole body into a file and rewind it. Raise BodyTooLarge, BodyTooSlow or ClientGone."""
        seconds = settings.API_BODY_SECONDS
        if limit is None:
            limit = settings.API_MAX_BODY_BYTES + (settings.DATASET_MAX_FILE_BYTES if is_file else 0)
        began, size = asyncio.get_running_loop().time(), 0
        try:
            async with asyncio.timeout(seconds) as end:
                while True:
                    message = await self._next()
                    size += len(message["body"])
                    if size > limit:
                        raise BodyTooLarge(f"The body is larger than {limit} bytes.")
                    # A file goes to the disk, which may let one wait; other bodies stay in memory.
                    if is_file:
                        await asyncio.to_thread(file.write, message["body"])
                    else:
                        file.write(message["body"])
                    if not message["more_body"]:
                        file.seek(0)
                        return
                    if is_file:
                        end.reschedule(began + min(seconds * UPLOAD_PATIENCE, seconds + size / UPLOAD_BYTES_A_SECOND))
        except TimeoutError:
            raise BodyTooSlow from None

    async def _next(self) -> Message:
        message, self._first = self._first or await self.receive(), None
        if message["type"] == "http.disconnect":
            raise ClientGone
        return message


class SmallBodies:
    """The bodies of callers who are not known yet, such as the form that signs one in. Few and small."""

    BYTES = 64 * 1024
    MOST = 64

    def __init__(self) -> None:
        self.count = 0

    @contextmanager
    def reserve(self) -> Iterator[None]:
        """Hold room for one. Raise ServiceUnavailable."""
        if self.count >= self.MOST:
            raise ServiceUnavailable
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1
