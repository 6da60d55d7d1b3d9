"""Reading the body of a request within bounds of bytes and time."""

import asyncio
from typing import IO

from django.conf import settings

from apikeys.errors import BodyTooLarge, BodyTooSlow
from fastgpt_site.http.asgi_types import Message, Receive, Scope

# A refused body is read on for a while, so that the client gets to read the answer before the connection ends.
DRAIN_BYTES = 16 * 1024 * 1024
DRAIN_SECONDS = 5.0
# An upload may take so many times longer than another body, if so many bytes have come for each second beyond that.
UPLOAD_PATIENCE = 20
UPLOAD_BYTES_A_SECOND = 16 * 1024


class ClientGone(Exception):
    """The client closed the connection before it had sent its body."""


class BodyRead:
    """A `receive` for Django whose body has been read; messages after it still arrive."""

    def __init__(self, body: IO[bytes], receive: Receive) -> None:
        self.body, self.receive = body, receive

    async def __call__(self) -> Message:
        return await self.receive()


def without_body(scope: Scope) -> Scope:
    dropped = (b"content-type", b"content-length", b"transfer-encoding")
    return {**scope, "headers": [(name, value) for name, value in scope["headers"] if name not in dropped]}


async def read_body(receive: Receive, body: IO[bytes], *, is_file: bool = False) -> None:
    """Read the whole body into a file and rewind it. Raise BodyTooLarge, BodyTooSlow or ClientGone."""
    limit, seconds = settings.API_MAX_BODY_BYTES, settings.API_BODY_SECONDS
    if is_file:
        limit += settings.DATASET_MAX_FILE_BYTES
    began, size = asyncio.get_running_loop().time(), 0
    try:
        async with asyncio.timeout(seconds) as end:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > limit:
                    break
                # A file goes to the disk, which may let one wait; other bodies stay in memory.
                await asyncio.to_thread(body.write, chunk) if is_file else body.write(chunk)
                if not message.get("more_body", False):
                    body.seek(0)
                    return
                if is_file:
                    end.reschedule(began + min(seconds * UPLOAD_PATIENCE, seconds + size / UPLOAD_BYTES_A_SECOND))
    except TimeoutError:
        raise BodyTooSlow from None
    await drain(receive, limit)
    raise BodyTooLarge(f"The body is larger than {limit} bytes.")


async def drain(receive: Receive, limit: int = 0) -> None:
    dropped = 0
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            while dropped < max(DRAIN_BYTES, limit):
                message = await receive()
                dropped += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return
