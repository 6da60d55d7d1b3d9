"""How quickly a file's items get their vectors, on one core, and what memory its size costs."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench import machine
from tests.bench.load import BenchError
from tests.bench.machine import Process
from tests.bench.report import Row

ITEMS = 20_000
# Texts have so many MiB: memory is to be the same for both.
SMALL, LARGE = 1, 50
# A MiB makes at least so many: its chunks have some 500 tokens.
CHUNKS = 300
# Items a minute.
FLOOR = 10_000.0
# The larger file may take this many times the memory.
FLAT = 1.3
PATIENCE_SECONDS = 1_800


def measured() -> list[Row]:
    """By the real worker, which has one core for itself and the process that reads; the database has the other."""
    rows = []
    seconds, _, _ = _imported(_table(), "items.csv", ITEMS)
    row = Row("import with vectors", f"csv of {ITEMS:,} items", "/min", ITEMS / seconds * 60, [seconds])
    row.floor, row.is_missed = FLOOR, row.value < FLOOR
    rows.append(row)
    peaks: dict[int, tuple[float, float]] = {}
    for size in (SMALL, LARGE):
        seconds, *peak = _imported(_text(size), "text.txt", size * CHUNKS)
        peaks[size] = (peak[0], peak[1])
        for name, small, value in zip(("worker", "reader"), peaks[SMALL], peaks[size], strict=True):
            row = Row(f"peak memory of the {name}", f"{size} MiB of text, {seconds:.0f} s", "MiB", value)
            if size == LARGE:
                row.direct, row.floor = small, small * FLAT
                row.is_missed = value > row.floor
            rows.append(row)
    return rows


def _table() -> io.BytesIO:
    lines = (
        f"Which film has the number {n} in our list?,The film number {n} is on the second shelf.\n"
        for n in range(ITEMS)
    )
    return io.BytesIO(b"q,a\n" + "".join(lines).encode())


def _text(mebibytes: int) -> io.BytesIO:
    """No paragraph twice: what is there already would not be embedded."""
    paragraphs = (
        f"Paragraph {n} tells of the film that has the number {n}. It was shown on day {n % 365} of its year, "
        f"and {n * 7919 % 100_003} people came to see it.\n\n"
        for n in range(mebibytes * 2**20 // 128)
    )
    return io.BytesIO("".join(paragraphs).encode())


def _imported(file: io.BytesIO, name: str, least: int) -> tuple[float, float, float]:
    """(seconds from the worker's first step to the last vector, peak MiB of the worker, and of what reads the file)."""
    from apikeys.teams import Team
    from datasets.imports import sources
    from datasets.models import Dataset, ImportState
    from datasets.vectors import sets

    team, _ = Team.objects.get_or_create(name="Imports")
    dataset = Dataset.objects.create(team=team, name=name)
    sets.create(dataset, None, "")
    collection = sources.from_file(dataset, file, name, sources.ImportOptions())
    worker = Process([sys.executable, "manage.py", "jobs"], core=machine.cores().server)
    peaks = Peaks(worker)

    def state() -> tuple[str, int]:
        peaks.look()
        collection.refresh_from_db()
        return collection.state, collection.pending.count()

    try:
        _wait(lambda: state()[0] != ImportState.WAITING)
        started = time.perf_counter()
        _wait(lambda: state() == (ImportState.READY, 0))
        seconds = time.perf_counter() - started
    finally:
        worker.stop()
    if collection.data.count() < least:
        raise BenchError(f"{name} was not imported whole")
    dataset.delete()
    return seconds, peaks.worker, peaks.reader


def _wait(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError("an import did not end")
        time.sleep(0.05)


class Peaks:
    """The most memory that was resident at once: of the worker, and of any child of it. In MiB."""

    def __init__(self, worker: Process) -> None:
        self.pid = worker.pid
        self.worker = self.reader = 0.0

    def look(self) -> None:
        self.worker = max(self.worker, _peak(self.pid))
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                self.reader = max(self.reader, _peak(int(child)))


def _peak(pid: int) -> float:
    """0 of what has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0.0)
