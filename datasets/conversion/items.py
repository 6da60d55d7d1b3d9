"""Files as items. They are read by a process with bounds, see `__main__`.

A file may be made to harm its reader, so that process has bounds that the system enforces, no secrets in its
environment and no database; `process` starts it and reads what it writes.
"""

import struct
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import IO

import msgspec

from datasets.conversion.formats import DOCUMENTS, Format, Unreadable, check_archive, text_blocks

MEMORY_BYTES = 1024**3
# A file gets so many seconds of CPU time, and more for each MiB of it: a small one that takes long is made to.
LEAST_CPU_SECONDS, CPU_SECONDS_OF_MIB, MOST_CPU_SECONDS = 60, 10, 600
# One file may hold so many characters of text.
MAXIMUM_TEXT = 256 * 1024 * 1024
# One frame holds at most so many items.
FRAME_ITEMS = 256
LENGTH = struct.Struct("!I")


def cpu_seconds(size: int) -> int:
    """Return how long a file of so many bytes may take to read."""
    return min(LEAST_CPU_SECONDS + CPU_SECONDS_OF_MIB * size // 2**20, MOST_CPU_SECONDS)


class Item(msgspec.Struct, array_like=True):
    """The texts that become one datum."""

    q: str
    a: str = ""
    index_texts: list[str] = []


class Frame(msgspec.Struct, omit_defaults=True):
    """One message of the process, behind its length in four bytes. The last one ends it, or says why it failed."""

    items: list[Item] = []
    # Rows are counted from the file's beginning.
    left_out: int = 0
    title: str = ""
    is_last: bool = False
    failure: str = ""
    # It is for the log alone.
    detail: str = ""


class Conversion:
    """One file on its way to items."""

    def __init__(self, file: IO[bytes], format: Format, chunk_size: int) -> None:
        self.file, self.format, self.chunk_size = file, format, chunk_size
        self.left_out = 0
        self.title = ""

    def items(self) -> Iterator[Item]:
        """Raise Unreadable, or whatever a library raises for a damaged file."""
        if self.format in DOCUMENTS:
            check_archive(self.file, self.format)
        if self.format is Format.CSV:
            return self.rows()
        return self.chunks()

    def chunks(self) -> Iterator[Item]:
        from datasets.conversion.chunks import split

        is_markdown = self.format not in (Format.TEXT, Format.PDF, Format.XLSX)
        for chunk in split(limit_length(self.texts()), self.chunk_size, is_markdown=is_markdown):
            yield Item(chunk)

    def texts(self) -> Iterator[str]:
        from datasets.conversion import documents, tables

        if self.format is Format.PDF:
            yield from documents.pdf_pages(self.file)
        elif self.format is Format.PPTX:
            yield from documents.pptx_slides(self.file)
        elif self.format is Format.XLSX:
            yield from tables.xlsx_rows(self.file)
        elif self.format is Format.DOCX:
            yield documents.docx_markdown(self.file)
        elif self.format is Format.HTML:
            self.title, text = documents.html_page(self.file)
            yield text
        else:
            yield from text_blocks(self.file)

    def rows(self) -> Iterator[Item]:
        from datasets.conversion.tables import csv_rows
        from datasets.texts import are_too_long

        rows = csv_rows(self.file)
        while batch := list(islice(rows, FRAME_ITEMS)):
            found = iter(are_too_long([text for row in batch for text in (f"{row.q}\n{row.a}", *row.index_texts)]))
            for row in batch:
                is_too_long = any(list(islice(found, 1 + len(row.index_texts))))
                if row.q.strip() and not is_too_long:
                    yield Item(row.q, row.a, row.index_texts)
                else:
                    # It has no question, or is longer than a datum may be.
                    self.left_out += 1


def limit_length(texts: Iterable[str]) -> Iterator[str]:
    size = 0
    for text in texts:
        size += len(text)
        if size > MAXIMUM_TEXT:
            raise Unreadable(f"The file contains more than {MAXIMUM_TEXT:,} characters of text.")
        yield text


def frames(conversion: Conversion, skip: int) -> Iterator[Frame]:
    """Yield a file's frames behind its first `skip` items. The last one says how it ended: nothing is raised."""
    count = 0
    try:
        items = conversion.items()
        count = sum(1 for _ in islice(items, skip))
        while batch := list(islice(items, FRAME_ITEMS)):
            count += len(batch)
            yield Frame(batch, conversion.left_out, conversion.title)
        if not count:
            raise Unreadable("There is no text in the file.")
        yield Frame(left_out=conversion.left_out, title=conversion.title, is_last=True)
    except Unreadable as error:
        yield Frame(failure=str(error))
    except MemoryError:
        yield Frame(failure=f"Reading the file takes more than {MEMORY_BYTES // 2**20} MiB of memory.")
    except RecursionError:
        yield Frame(failure="The file is nested too deeply.")
    except Exception as error:  # noqa: BLE001 - parsers raise anything at all for a file that was made to break them
        yield Frame(failure="The file is damaged, or not what its name says.", detail=type(error).__name__)
