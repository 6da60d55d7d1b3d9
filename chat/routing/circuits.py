"""Circuit breakers: a route that fails again and again is left alone for a while, in all processes.

A process counts a route's failures in a row. From the fifth on the circuit is open: the route is tried only where
every other one of its model has failed. After a pause, one request at a time of each process tries it. Its success
closes the circuit, its failure opens it for twice as long.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from apikeys.errors import ServiceUnavailable
from apikeys.hot_path.group_commit import Batcher
from apikeys.hot_path.listener import listener
from apikeys.hot_path.statements import StatementConnection

FAILURES = 5
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 10.0, 160.0
# A request that tries a route after its pause holds others off so long, should it never end.
PROBE_SECONDS = 10.0
# More routes are not remembered; the one that failed first is forgotten.
MAX_ROUTES = 10_000
CHANNEL = "circuits_changed"


@dataclass(slots=True)
class Circuit:
    """The failures of a route in a row, as this process knows them. Times on its monotonic clock."""

    failures: int = 0
    # It is zero as long as the circuit has not opened.
    pause: float = 0.0
    open_until: float = 0.0
    is_probed: bool = False


class Change(msgspec.Struct, frozen=True):
    """A circuit that opened for some seconds; None if it closed."""

    route_id: int
    seconds: float | None
    failure: str = ""


_circuits: dict[int, Circuit] = {}


def is_open(route_id: int) -> bool:
    """Return whether the route is left alone."""
    circuit = _circuits.get(route_id)
    return circuit is not None and bool(circuit.pause) and time.monotonic() < circuit.open_until


def begin(route_id: int) -> None:
    """Take note that a request tries the route. After its pause, others leave it alone until this one has ended."""
    circuit = _circuits.get(route_id)
    if circuit is not None and circuit.pause and time.monotonic() >= circuit.open_until:
        circuit.is_probed, circuit.open_until = True, time.monotonic() + PROBE_SECONDS


def succeed(route_id: int) -> None:
    # Nearly always there is nothing to forget.
    circuit = _circuits.pop(route_id, None) if _circuits else None
    if circuit is not None and circuit.pause:
        _share(Change(route_id, None))


def fail(route_id: int, failure: str) -> None:
    circuit = _find_or_make(route_id)
    circuit.failures += 1
    # While it is open, requests fail that began before, or that had no other route left: they tell nothing new.
    if not circuit.is_probed and (circuit.pause or circuit.failures < FAILURES):
        return
    circuit.pause = min(circuit.pause * 2 or FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
    circuit.is_probed, circuit.open_until = False, time.monotonic() + circuit.pause
    _share(Change(route_id, circuit.pause, failure))


def note(route_id: int, seconds: float) -> None:
    """Take from another process, or from the database, that a circuit is open for so long."""
    circuit = _find_or_make(route_id)
    circuit.pause = max(circuit.pause, FIRST_PAUSE_SECONDS)
    circuit.open_until = max(circuit.open_until, time.monotonic() + seconds)


def hear(payload: str) -> None:
    """Take a notification of another process."""
    change = msgspec.json.decode(payload, type=Change)
    if change.seconds is None:
        _circuits.pop(change.route_id, None)
    else:
        note(change.route_id, change.seconds)


def _find_or_make(route_id: int) -> Circuit:
    circuit = _circuits.get(route_id)
    if circuit is None:
        while len(_circuits) >= MAX_ROUTES:
            _circuits.pop(next(iter(_circuits)), None)
        circuit = _circuits[route_id] = Circuit()
    return circuit


def _share(change: Change) -> None:
    try:
        batcher.enqueue(change)
    except ServiceUnavailable:
        # The others find out by themselves.
        return


# A route that is gone meanwhile has no circuit.
SQL = f"""
WITH change AS (
    SELECT * FROM jsonb_to_recordset($1::jsonb) AS change(route_id bigint, seconds float, failure text)
),
closed AS (
    DELETE FROM chat_circuit AS circuit USING change
    WHERE circuit.route_id = change.route_id AND change.seconds IS NULL
),
opened AS (
    INSERT INTO chat_circuit AS circuit (route_id, open_until, failure)
    SELECT route_id, statement_timestamp() + make_interval(secs => seconds), left(failure, 1000) FROM change
    JOIN chat_route AS route ON route.id = change.route_id
    WHERE seconds IS NOT NULL
    ON CONFLICT (route_id) DO UPDATE SET
        open_until = greatest(circuit.open_until, excluded.open_until), failure = excluded.failure
)
SELECT pg_notify('{CHANNEL}', row_to_json(change)::text)
FROM (SELECT route_id, seconds, left(failure, 1000) AS failure FROM change) AS change
"""  # noqa: S608 - built from a constant


async def _write(connection: StatementConnection, batch: Sequence[Change]) -> list[None]:
    latest = {change.route_id: change for change in batch}
    await connection.execute(SQL, [msgspec.json.encode(list(latest.values()))])
    return [None] * len(batch)


batcher: Batcher[Change, None] = Batcher("circuits", _write, capacity=1_000)
listener.subscribe(CHANNEL, hear)
