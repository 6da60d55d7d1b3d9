"""The rows of tables: of CSV as questions and answers, of spreadsheets as text that names the columns."""

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from datasets.conversion.formats import Unreadable, text_blocks

MAXIMUM_ROWS = 200_000
# A row of CSV has a question, an answer, and at most twenty more texts that the datum is found by.
MAXIMUM_COLUMNS = 22
# One field of CSV may have so many characters. The longest datum is far shorter.
MAXIMUM_FIELD = 1024 * 1024
# So many cells of a spreadsheet's row are read; what lies beyond is not.
MAXIMUM_CELLS = 500
# A first row of these is a header. FastGPT's own template has "index" and "content".
QUESTIONS = {"q", "question", "index", "问题"}
ANSWERS = {"a", "answer", "content", "回答", "答案"}


@dataclass(frozen=True, slots=True)
class Row:
    q: str
    a: str
    index_texts: list[str]


def csv_rows(file: IO[bytes]) -> Iterator[Row]:
    csv.field_size_limit(MAXIMUM_FIELD)
    lines = lines_of(text_blocks(file))
    first = next(lines, "")
    # Spreadsheets write semicolons where a comma is the decimal point.
    delimiter = max(",;\t", key=first.count)
    try:
        for number, row in enumerate(csv.reader(prepend(first, lines), delimiter=delimiter), 1):
            check_row(number, len(row))
            q, a, *others = [*row, "", ""][: max(2, len(row))]
            if number == 1 and q.strip().lower() in QUESTIONS and a.strip().lower() in ANSWERS:
                continue
            if any(field.strip() for field in row):
                yield Row(q, a, others)
    except csv.Error as error:
        raise Unreadable(f"The CSV is malformed: {error}.") from None


def check_row(number: int, columns: int) -> None:
    if number > MAXIMUM_ROWS + 1:
        raise Unreadable(f"The table has more than {MAXIMUM_ROWS:,} rows.")
    if columns > MAXIMUM_COLUMNS:
        raise Unreadable(
            f"Row {number:,} has {columns:,} columns; there may be {MAXIMUM_COLUMNS}: q, a, and more texts."
        )


def prepend(first: str, lines: Iterable[str]) -> Iterator[str]:
    yield first
    yield from lines


def lines_of(blocks: Iterable[str]) -> Iterator[str]:
    rest = ""
    for block in blocks:
        # Lines keep their ends, as `csv` wants them.
        lines = io.StringIO(rest + block, newline="").readlines()
        # The last may go on in the next block.
        rest = lines.pop() if lines else ""
        yield from lines
    if rest:
        yield rest


def xlsx_rows(file: IO[bytes]) -> Iterator[str]:
    """Yield each row as a line, `name: value; name: value`, with the names that the first row of its sheet has."""
    from openpyxl import load_workbook

    workbook = load_workbook(file, read_only=True, data_only=True)
    count = 0
    for sheet in workbook.worksheets:
        # A sheet may claim to be far larger than it is.
        sheet.reset_dimensions()
        names: list[str] | None = None
        for row in sheet.iter_rows(values_only=True, max_col=MAXIMUM_CELLS):
            cells = [cell_text(cell) for cell in row]
            if not any(cells):
                continue
            count += 1
            if count > MAXIMUM_ROWS:
                raise Unreadable(f"The workbook has more than {MAXIMUM_ROWS:,} rows.")
            if names is None:
                names = cells
                yield f"\n\n## {sheet.title}\n\n{'; '.join(filter(None, cells))}\n"
            else:
                yield line_of(names, cells) + "\n"


def cell_text(cell: Any) -> str:
    return "" if cell is None else " ".join(str(cell).split())


def line_of(names: list[str], cells: list[str]) -> str:
    named = [*names, *[""] * (len(cells) - len(names))]
    return "; ".join(f"{name}: {cell}" if name else cell for name, cell in zip(named, cells, strict=False) if cell)
