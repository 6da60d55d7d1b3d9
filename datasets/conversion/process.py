"""The process in which a file is read: its start, what it says, and its end, whatever becomes of either side."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import IO

import msgspec
from django.conf import settings

from datasets.conversion.formats import Format, Unreadable
from datasets.conversion.items import LENGTH, Frame, cpu_seconds

logger = logging.getLogger(__name__)

# The process may say nothing for so long: a single page or cell that takes longer is made to.
SILENCE_SECONDS = 120
MAXIMUM_FRAME = 64 * 1024 * 1024
# Each library has one thread: threads take address space, which is bounded. No secret of this process is handed on.
ENVIRONMENT = {
    "PYTHONUTF8": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
}
_frames = msgspec.msgpack.Decoder(Frame)


async def frames(file: IO[bytes], format: Format, chunk_size: int, skip: int) -> AsyncGenerator[Frame, None]:
    """Yield a file's frames behind its first `skip` items, no quicker than they are taken. Raise Unreadable."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "datasets.conversion", format.value, str(chunk_size), str(skip)),
        stdin=file,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=settings.BASE_DIR,
        env=ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    try:
        async with aclosing(read_frames(process, cpu_seconds(os.fstat(file.fileno()).st_size))) as stream:
            async for frame in stream:
                yield frame
    finally:
        if process.returncode is None:
            process.kill()
        # The pipe is read to its end: asyncio reports no exit while it still holds more than the reader took.
        await process.communicate()


async def read_frames(process: asyncio.subprocess.Process, seconds: int) -> AsyncGenerator[Frame, None]:
    assert process.stdout is not None  # noqa: S101 - it was asked for
    while True:
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
                if length > MAXIMUM_FRAME:
                    raise Unreadable("The file contains a single text that is too long.")
                frame = _frames.decode(await process.stdout.readexactly(length))
        except TimeoutError:
            raise Unreadable(f"A part of the file takes more than {SILENCE_SECONDS} seconds to read.") from None
        except asyncio.IncompleteReadError:
            raise Unreadable(reason_of_exit(await process.wait(), seconds)) from None
        if frame.failure:
            logger.info("a file cannot be imported: %s %s", frame.failure, frame.detail)
            raise Unreadable(frame.failure)
        yield frame
        if frame.is_last:
            return


def reason_of_exit(code: int, seconds: int) -> str:
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"Reading the file takes more than {seconds} seconds, or too much memory."
    return "Reading the file takes too much memory, or crashes its reader."
