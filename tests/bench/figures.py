"""The figures of a comparison: medians of its rounds, ratios between servers, and the floors that they are held to."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median

from tests.bench.peers import LITELLM, PORTKEY
from tests.bench.report import align, number

DIRECT = "direct"
BARE = "bare ASGI"
OURS = "ours"
OURS_WITH_LIMITS = "ours, limits"
OURS_WITH_CHAT_ID = "ours, chatId"

STREAM_CONNECTIONS = (1, 16, 64)
RATE = "requests/s, c=64"
P50 = "p50 in ms, c=1"
ADDED_P50 = "added p50 in ms, c=1"
P50_AT_64 = "p50 in ms, c=64"
P99_AT_64 = "p99 in ms, c=64"
SERVER_US = "server us a request, c=64"
SERVER_CORE = "server core, c=64"
OTHER_CORE = "other core, c=64"
EVENTS = tuple(f"streamed events/s, c={connections}" for connections in STREAM_CONNECTIONS)
UNKNOWN_KEY = "refusals/s, one unknown key, c=64"
NEW_KEYS = "refusals/s, ever new unknown keys, c=64"
REFUSED = "refusals/s, 401 at once, c=64"
MEMORY = "memory in KB, 5,000 open streams"
# The columns of the table of servers.
COLUMNS = {
    "c=64: requests/s": RATE,
    "p50 ms": P50_AT_64,
    "p99 ms": P99_AT_64,
    "server us": SERVER_US,
    "server core": SERVER_CORE,
    "other core": OTHER_CORE,
    "c=1: p50 ms": P50,
    "added p50 ms": ADDED_P50,
}


@dataclass(frozen=True)
class Bound:
    """What must hold of a figure: at least `floor`, or below it where less is better.

    It is held by the ratio between the medians of two servers, or by the median itself where there is no other one. Of
    several figures the one with the best median counts.
    """

    figures: Sequence[str]
    server: str
    floor: float
    other: str | None = None
    other_figure: str | None = None
    less_is_better: bool = False


BOUNDS = (
    Bound((RATE,), OURS, 2.0, PORTKEY),
    Bound((RATE,), OURS_WITH_LIMITS, 1.7, PORTKEY),
    Bound((RATE,), OURS, 35.0, LITELLM),
    Bound((RATE,), OURS, 0.45, BARE),
    Bound((RATE,), OURS_WITH_CHAT_ID, 0.8, OURS),
    Bound((ADDED_P50,), OURS, 1.0, PORTKEY, less_is_better=True),
    Bound((ADDED_P50,), OURS_WITH_LIMITS, 2.0, PORTKEY, less_is_better=True),
    Bound(EVENTS, OURS, 0.6, DIRECT),
    Bound((UNKNOWN_KEY,), OURS, 0.45, BARE, REFUSED),
    Bound((NEW_KEYS,), OURS, 0.3, BARE, REFUSED),
    Bound((MEMORY,), OURS, 30.0, less_is_better=True),
)


class Samples:
    """What was measured: by figure and server, one number for each round."""

    def __init__(self) -> None:
        self.rounds: defaultdict[tuple[str, str], list[float]] = defaultdict(list)

    def add(self, figure: str, server: str, value: float) -> None:
        self.rounds[figure, server].append(value)

    def of(self, figure: str, server: str) -> list[float]:
        return self.rounds.get((figure, server), [])

    def median(self, figure: str, server: str) -> float | None:
        rounds = self.of(figure, server)
        return median(rounds) if rounds else None

    def add_differences(self, figure: str, difference: str, servers: Iterable[str]) -> None:
        """Add, as the figure `difference`, what each server's rounds have more than the direct ones beside them."""
        for server in servers:
            direct = self.of(figure, DIRECT)
            if rounds := self.of(figure, server):
                self.rounds[difference, server] = [value - base for value, base in zip(rounds, direct, strict=True)]


@dataclass
class Row:
    """One line of the table of figures. `is_held` is None where no floor is held or something was not measured."""

    figure: str
    server: str
    value: float | None
    other: str
    other_value: float | None
    rounds: list[float] = field(default_factory=list)
    ratio: float | None = None
    bound: str = ""
    is_held: bool | None = None

    @property
    def verdict(self) -> str:
        if self.is_held is not None:
            return "ok" if self.is_held else "MISSED"
        return "not measured" if self.bound else ""


def rows(samples: Samples) -> list[Row]:
    return [row for bound in BOUNDS for row in _rows(samples, bound)]


def _rows(samples: Samples, bound: Bound) -> list[Row]:
    made = [_row(samples, figure, bound) for figure in bound.figures]
    best = max(made, key=lambda row: (row.value or 0.0) * (-1 if bound.less_is_better else 1))
    held = best.ratio if bound.other else best.value
    best.bound = f"{'<' if bound.less_is_better else '>='} {bound.floor:g}"
    if held is not None:
        best.is_held = held < bound.floor if bound.less_is_better else held >= bound.floor
    return made


def _row(samples: Samples, figure: str, bound: Bound) -> Row:
    value = samples.median(figure, bound.server)
    other_value = samples.median(bound.other_figure or figure, bound.other) if bound.other else None
    row = Row(figure, bound.server, value, bound.other or "", other_value, samples.of(figure, bound.server))
    if value is not None and other_value:
        row.ratio = value / other_value
    return row


def table(rows: Iterable[Row]) -> str:
    lines = [["figure", "of", "median", "rounds", "against", "median", "ratio", "floor", ""]]
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        spread = f"{number(min(row.rounds))} to {number(max(row.rounds))}" if len(row.rounds) > 1 else ""
        values = [number(row.value), spread, row.other, number(row.other_value)]
        lines.append([row.figure, row.server, *values, ratio, row.bound, row.verdict])
    return align(lines, left={0, 1, 4, 8})


def servers_table(samples: Samples, servers: Iterable[str]) -> str:
    """The medians of each server."""
    lines = [["server", *COLUMNS]]
    for server in servers:
        lines.append([server, *(_cell(figure, samples.median(figure, server)) for figure in COLUMNS.values())])
    return align(lines, left={0})


def _cell(figure: str, value: float | None) -> str:
    return f"{value:.0%}" if value is not None and figure in {SERVER_CORE, OTHER_CORE} else number(value)


def as_json(rows: Iterable[Row], samples: Samples, context: Mapping[str, object]) -> str:
    rounds: defaultdict[str, dict[str, list[float]]] = defaultdict(dict)
    for (figure, server), values in samples.rounds.items():
        rounds[figure][server] = values
    made = [asdict(row) | {"verdict": row.verdict} for row in rows]
    return json.dumps({**context, "figures": made, "rounds": rounds}, indent=2)
