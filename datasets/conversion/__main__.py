"""Files as items, in a process of its own: `python -m datasets.conversion FORMAT CHUNK_SIZE SKIP`, file on stdin."""

import os
import resource
import sys

import msgspec

from datasets.conversion.formats import Format
from datasets.conversion.items import LENGTH, MEMORY_BYTES, Conversion, cpu_seconds, frames


def main(format: str, chunk_size: str, skip: str) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    seconds = cpu_seconds(os.fstat(sys.stdin.fileno()).st_size)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A library's own output must not come between the frames.
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    conversion = Conversion(sys.stdin.buffer, Format(format), int(chunk_size))
    for frame in frames(conversion, int(skip)):
        content = msgspec.msgpack.encode(frame)
        output.write(LENGTH.pack(len(content)) + content)
        output.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
