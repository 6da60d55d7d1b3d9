"""Reading the body of a request within bounds of bytes and time."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile

from django.conf import settings

from apikeys.api.views import ApiView
from apikeys.errors import BodyTooLarge, BodyTooSlow, ServiceUnavailable
from fastgpt_site.http.body_coding import Coding
from fastgpt_site.http.body_room import HeldRoom
from fastgpt_site.http.exchange import Exchange

# So much of a body stays in memory while it arrives. The rest goes to the disk.
MEMORY_BYTES = 256 * 1024
# A body of files or images may take so many times longer than another, if so many bytes have come for each second
# beyond that.
PATIENCE = 20
BYTES_A_SECOND = 16 * 1024


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most bytes that a body may have, and whether it may take longer the more of it has come."""

    most: int
    is_patient: bool = False

    def check(self, size: int) -> None:
        if size > self.most:
            raise BodyTooLarge(f"The body is larger than {self.most} bytes.")


USUAL = Bounds(settings.API_MAX_BODY_BYTES)
# By the setting that a view names.
LARGE = {
    name: Bounds(getattr(settings, name), is_patient=True)
    for name in ("COMPLETIONS_MAX_BODY_BYTES", "EMBEDDINGS_MAX_BODY_BYTES")
}
WITH_FILE = Bounds(settings.API_MAX_BODY_BYTES + settings.DATASET_MAX_FILE_BYTES, is_patient=True)


def bounds_of(view_class: type[ApiView]) -> Bounds:
    if view_class.takes_file:
        return WITH_FILE
    return LARGE.get(view_class.max_body_setting, USUAL)


class BodyReader:
    """The body of one request. The client is not asked for it before something reads."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self._first: tuple[bytes, bool] | None = None

    async def has_come(self) -> bool:
        """Return whether all of it came at once, as most bodies do. Raise BodyTooSlow or ClientGone."""
        # What is compressed may become a thousand times as large.
        if self.exchange.expects_continue or self.exchange.head.coding:
            return False
        try:
            async with asyncio.timeout(settings.API_BODY_SECONDS):
                self._first = await self._next()
        except TimeoutError:
            raise BodyTooSlow from None
        return not self._first[1]

    async def read(self, bounds: Bounds, held: HeldRoom) -> bytes:
        """Return the whole body. Raise what `read_into` raises."""
        with make_file() as file:
            size = await self.read_into(file, bounds, held)
            return await asyncio.to_thread(file.read) if size > MEMORY_BYTES else file.read()

    async def read_into(self, file: SpooledTemporaryFile[bytes], bounds: Bounds, held: HeldRoom | None = None) -> int:
        """Read the whole body into a file of `make_file`, without its coding, rewind it, and return its size.

        Raise BodyTooLarge, BodyTooSlow, TooManyBodies, UnsupportedCoding, MalformedRequest or ClientGone.
        """
        seconds, began, size, received = settings.API_BODY_SECONDS, asyncio.get_running_loop().time(), 0, 0
        coding = Coding(self.exchange.head.coding)
        self._check_size(self.exchange.head.body_length or 0, bounds, held)
        try:
            async with asyncio.timeout(seconds) as end:
                has_more = True
                while has_more:
                    received_piece, has_more = await self._next()
                    received += len(received_piece)
                    for piece in coding.decode(received_piece, is_last=not has_more):
                        size += len(piece)
                        # What decodes to nothing has an end too.
                        self._check_size(max(size, received), bounds, held)
                        # The disk may let one wait.
                        if size > MEMORY_BYTES:
                            await asyncio.to_thread(file.write, piece)
                        else:
                            file.write(piece)
                    if bounds.is_patient:
                        end.reschedule(began + min(seconds * PATIENCE, seconds + received / BYTES_A_SECOND))
        except TimeoutError:
            raise BodyTooSlow from None
        file.seek(0)
        return size

    @staticmethod
    def _check_size(size: int, bounds: Bounds, held: HeldRoom | None) -> None:
        bounds.check(size)
        if held is not None:
            held.fit(size)

    async def _next(self) -> tuple[bytes, bool]:
        if self._first is None:
            return await self.exchange.read_piece()
        first, self._first = self._first, None
        return first


def make_file() -> SpooledTemporaryFile[bytes]:
    """Return a file for a body, in memory as long as that is small."""
    return SpooledTemporaryFile(MEMORY_BYTES)


class SmallBodies:
    """The bodies of callers who are not known yet, such as the form that signs one in. Few and small."""

    BOUNDS = Bounds(64 * 1024)
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
