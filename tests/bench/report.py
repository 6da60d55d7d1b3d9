"""The measured values, the floors it is held to, the table, and the JSON with every round in it."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Sequence
from dataclasses import asdict, dataclass, field

# Above this, others on the server's core have spoiled the figures.
DISTURBANCE = 0.05
# For the 2-core target machine: (floor, whether more is better), held by the best row of that name.
FLOORS = {
    "completions": (1200.0, True),
    "completions with chatId": (500.0, True),
    "added latency p50": (3.0, False),
    "with limits, against without": (0.75, True),
    "added latency with limits p50": (3.0, False),
    "streamed events": (8000.0, True),
    "memory of a stream": (60.0, False),
}


@dataclass
class Row:
    """One line of the table. `value` is the best of `rounds`, `direct` the same without the gateway."""

    name: str
    load: str
    unit: str
    value: float
    rounds: list[float] = field(default_factory=list)
    direct: float | None = None
    # The server's CPU time for one unit in microseconds, the least of the rounds: what noise disturbs least.
    server_us: float | None = None
    # Fractions of a core in the best round: the server's process; strangers on its core; all on the other core.
    server_core: float | None = None
    taken_core: float | None = None
    other_core: float | None = None
    more: dict[str, float] = field(default_factory=dict)
    floor: float | None = None
    is_missed: bool = False

    @property
    def ratio(self) -> float | None:
        return self.value / self.direct if self.direct else None


def hold_to_floors(rows: Iterable[Row]) -> bool:
    """Write each floor into the best row of its name. Whether every floor that was measured holds."""
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        by_name.setdefault(row.name, []).append(row)
    for name, (floor, more_is_better) in FLOORS.items():
        if name not in by_name:
            continue
        best = (max if more_is_better else min)(by_name[name], key=lambda row: row.value)
        best.floor = floor
        best.is_missed = best.value < floor if more_is_better else best.value > floor
    return not any(row.is_missed for row in rows)


def table(rows: Iterable[Row], direct: str = "direct") -> str:
    """`direct` names the column of what each result is compared with."""
    head = [
        "measure",
        "load",
        "result",
        "unit",
        direct,
        "ratio",
        "server us",
        "server core",
        "other core",
        "floor",
        "",
    ]
    lines = [head]
    for row in rows:
        decision = "" if row.floor is None else "MISSED" if row.is_missed else "ok"
        numbers = [
            number(row.server_us),
            percent(row.server_core),
            percent(row.other_core),
            number(row.floor),
            decision,
        ]
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        lines.append([row.name, row.load, number(row.value), row.unit, number(row.direct), ratio, *numbers])
    return align(lines, left={0, 1, 3, 10})


def align(lines: Sequence[Sequence[str]], left: Container[int]) -> str:
    """A head and lines as a table; the columns of `left` are aligned to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    head, *rest = lines
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [head, ["-" * width for width in widths], *rest]
    )


def disturbance(rows: Iterable[Row]) -> float:
    """The most that strangers took of the server's core in any row's best round."""
    return max((row.taken_core or 0.0 for row in rows), default=0.0)


def as_json(rows: Iterable[Row], **context: object) -> str:
    return json.dumps(context | {"rows": [asdict(row) | {"ratio": row.ratio} for row in rows]}, indent=2)


def number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"


def percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"
