"""Reading the body of a request within bounds of bytes and time."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import IO

from django.conf import settings

from apikeys.errors import BodyTooLarge, BodyTooSlow, ServiceUnavailable
from fastgpt_site.http.exchange import Exchange

# An upload may take so many times longer than another body, if so many bytes have come for each second beyond that.
UPLOAD_PATIENCE = 20
UPLOAD_BYTES_A_SECOND = 16 * 1024


async def read_body(exchange: Exchange) -> bytes:
    """Return the whole body. Raise BodyTooLarge, BodyTooSlow or ClientGone."""
    if exchange.has_whole_body and not exchange.is_gone:
        # Most bodies have come with the head.
        body = exchange.take_body()
        if len(body) > settings.API_MAX_BODY_BYTES:
            raise BodyTooLarge(f"The body is larger than {settings.API_MAX_BODY_BYTES} bytes.")
        return body
    with BytesIO() as content:
        await BodyReader(exchange).read_into(content)
        return content.getvalue()


class BodyReader:
    """The body of one request. The client is not asked for it before something reads."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self._first: tuple[bytes, bool] | None = None

    async def has_come(self) -> bool:
        """Return whether all of it came at once, as most bodies do. Raise BodyTooSlow or ClientGone."""
        if self.exchange.expects_continue:
            return False
        try:
            async with asyncio.timeout(settings.API_BODY_SECONDS):
                self._first = await self._next()
        except TimeoutError:
            raise BodyTooSlow from None
        return not self._first[1]

    async def read_into(self, file: IO[bytes], *, limit: int | None = None, is_file: bool = False) -> None:
        """Read the whole body into a file and rewind it. Raise BodyTooLarge, BodyTooSlow or ClientGone."""
        seconds = settings.API_BODY_SECONDS
        if limit is None:
            limit = settings.API_MAX_BODY_BYTES + (settings.DATASET_MAX_FILE_BYTES if is_file else 0)
        began, size = asyncio.get_running_loop().time(), 0
        try:
            async with asyncio.timeout(seconds) as end:
                while True:
                    piece, has_more = await self._next()
                    size += len(piece)
                    if size > limit:
                        raise BodyTooLarge(f"The body is larger than {limit} bytes.")
                    # A file goes to the disk, which may let one wait; other bodies stay in memory.
                    if is_file:
                        await asyncio.to_thread(file.write, piece)
                    else:
                        file.write(piece)
                    if not has_more:
                        file.seek(0)
                        return
                    if is_file:
                        end.reschedule(began + min(seconds * UPLOAD_PATIENCE, seconds + size / UPLOAD_BYTES_A_SECOND))
        except TimeoutError:
            raise BodyTooSlow from None

    async def _next(self) -> tuple[bytes, bool]:
        if self._first is None:
            return await self.exchange.read_piece()
        first, self._first = self._first, None
        return first


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
