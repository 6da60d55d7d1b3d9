"""Measure whether a request costs more among many keys: `python -m tests.bench.scale [--quick] [--json FILE]`.

The same is asked of a small database and of a large one. Exit code 1: something grew by more than the floor allows,
a page is slower than people should wait, or the run proves nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from tests.bench import machine, report, traffic
from tests.bench.filling import LIMITED, Size, digest_of, fill, member_of
from tests.bench.gateway import PATH, Gateway, running_gateway
from tests.bench.ground import connected
from tests.bench.load import Answer, BenchError
from tests.bench.machine import Process
from tests.bench.report import Row

NOTHING = Size(teams=0, keys=0, records=0)
# As good as empty; but a list must fill its page, and each look-up that is timed needs a key of its own.
SMALL = Size(teams=1, keys=1_000, records=1_000)
FULL = Size(teams=1_000, keys=1_000_000, records=10_000_000)
QUICK = Size(teams=20, keys=20_000, records=200_000)
KNOWN = 2_000
ROUNDS, QUICK_ROUNDS = 5, 3
# How often each is asked for in a round.
FRESH_KEYS, REQUESTS, PAGES, BATCHES, SINGLES = 100, 150, 8, 15, 100
BATCH = 64
# A batch of keys anywhere among all: in the small database they share a team and few pages of memory, in the large one
# nothing. That is more work, and not the same work among more rows, so it is told and held to nothing.
SCATTERED = "anywhere"
LIMITED_KEYS = 50
# Other work on the machine only makes it slower: rounds are added while a floor is missed, up to this many times.
PATIENCE = 3
# Most that a figure may grow by.
GROWTH = 1.5
FREE_BYTES = 12 * 2**30
KEY_PATH = "/api/v1/key"
PAGE_PATHS = {"key list": "/admin/apikeys/apikey/", "usage list": "/admin/apikeys/usagerecord/", "dashboard": "/admin/"}
# Most milliseconds that they may take.
PAGE_MS = {"key list": 500.0, "usage list": 500.0, "dashboard": 300.0}
# There is more to tell of a large site, so its first page may take longer, within its bound.
GROWING = {"dashboard"}

Figures = dict[tuple[str, str], list[float]]


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    described = machine.describe()
    large, rounds = (QUICK, QUICK_ROUNDS) if options.quick else (FULL, ROUNDS)
    try:
        small, full, context = _run(large, rounds)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    rows = [_row(name, load, small[name, load], full[name, load]) for name, load in full]
    print(report.table(rows, "small"))
    print(_notes(large, context))
    if options.json:
        options.json.write_text(report.as_json(rows, machine=described, quick=options.quick, **context) + "\n")
    return 1 if any(row.is_missed for row in rows) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scale", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK.keys:,} keys: for a first impression")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round to this file too")
    return parser.parse_args()


def _row(name: str, load: str, small: list[float], full: list[float]) -> Row:
    row = Row(name, load, "ms", min(full), full, direct=min(small))
    if not load.endswith(SCATTERED):
        row.floor = PAGE_MS[name] if name in GROWING else GROWTH
        row.is_missed = _is_missed(name, min(small), min(full))
    row.more = {f"small_round_{number}": value for number, value in enumerate(small)}
    return row


def _is_missed(name: str, small: float, full: float) -> bool:
    return (full > small * GROWTH and name not in GROWING) or full > PAGE_MS.get(name, math.inf)


def _notes(large: Size, context: dict[str, Any]) -> str:
    return (
        f"Medians in milliseconds, the best of the rounds. small: {SMALL.keys:,} keys and {SMALL.records:,} records\n"
        f"of one team. result: {large.keys:,} keys of {large.teams:,} teams, every tenth with two limits, and\n"
        f"{large.records:,} records. The floor is for the ratio, of the dashboard in ms; a list may take "
        f"{PAGE_MS['key list']:.0f} ms.\n"
        f"Filled in {context['fill_seconds']:.0f} s; the database takes {context['database_bytes'] / 2**30:.1f} GiB. "
        f"The first roll-up of all records took {context['roll_up_seconds']:.0f} s,\n"
        f"reconciling {context['limits']:,} limits {context['reconcile_seconds']:.0f} s (drift {context['drift']}). "
        "Nobody waits for either."
    )


def _run(large: Size, rounds: int) -> tuple[Figures, Figures, dict[str, Any]]:
    cores = machine.cores()
    if large == FULL and shutil.disk_usage(tempfile.gettempdir()).free < FREE_BYTES:
        raise BenchError(f"the ledger needs {FREE_BYTES / 2**30:.0f} GiB for temporary files")
    upstream = Process([sys.executable, "-m", "tests.bench.upstream"], core=cores.rest)
    try:
        upstream_port = int(upstream.read_line())
        with running_gateway(cores, upstream_port) as gateway:
            first = Known(range(1, SMALL.keys + 1))
            fill(NOTHING, SMALL, first.digests, upstream_port)
            small = _measured(gateway, SMALL, first, 1, rounds, {})
            # An odd step, so that keys of all kinds are among them.
            known = Known(range(SMALL.keys + 1, large.keys + 1, (large.keys - SMALL.keys) // KNOWN | 1))
            known.digests |= first.digests
            started = perf_counter()
            fill(SMALL, large, known.digests, upstream_port)
            context = {"fill_seconds": perf_counter() - started, "database_bytes": _database_bytes()} | _jobs()
            full = _measured(gateway, large, known, large.teams // 2, rounds, small)
            return small, full, context
    finally:
        upstream.stop()


def _jobs() -> dict[str, Any]:
    """Time the jobs that run of themselves."""
    from apikeys.accounting.reconciliation import reconcile
    from apikeys.statistics.leaders import recompute
    from apikeys.statistics.rollup import roll_up

    started = perf_counter()
    roll_up()
    recompute()
    rolled_up = perf_counter()
    limits, drifts = reconcile()
    return {
        "roll_up_seconds": rolled_up - started,
        "limits": limits,
        "drift": len(drifts),
        "reconcile_seconds": perf_counter() - rolled_up,
    }


def _measured(gateway: Gateway, size: Size, known: Known, team: int, rounds: int, small: Figures) -> Figures:
    print(f"measuring with {size.keys:,} keys ...", file=sys.stderr, flush=True)
    gateway.restart()
    return _all_rounds(Stage(gateway, size, known, team), rounds, small)


def _database_bytes() -> int:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_database_size(current_database())")
        return int(cursor.fetchone()[0])


class Known:
    """Keys whose plaintext is known, by number."""

    def __init__(self, numbers: range) -> None:
        from django.conf import settings

        from apikeys.keys import crypto

        self.pepper_id, pepper = next(iter(settings.API_KEY_PEPPERS.items()))
        self.plaintexts = {number: crypto.generate() for number in numbers}
        self.digests = {number: crypto.digest(plaintext, pepper) for number, plaintext in self.plaintexts.items()}


class Stage:
    """A database of one size, and whom to be in it."""

    def __init__(self, gateway: Gateway, size: Size, known: Known, team: int) -> None:
        self.port = gateway.port
        self.size = size
        self.known = known
        # In no order, so that none is a neighbor of the one before.
        numbers = random.sample(sorted(known.plaintexts), len(known.plaintexts))
        self.limited = [known.plaintexts[number] for number in numbers if number % LIMITED == 0][:LIMITED_KEYS]
        unlimited = [known.plaintexts[number] for number in numbers if number % LIMITED]
        self.one, self.fresh = unlimited[0], iter(unlimited[1:])
        self.cookies = {"staff of a team": _signed_in(member_of(team)), "superuser": _signed_in("superuser")}

        self.keys: Sequence[int] = range(1, size.keys + 1)
        self.keys_of_team, self.limits_of_team, self.limits = _belongings(member_of(team))

    def look_ups(self, count: int, among: Sequence[int]) -> list[dict[str, bytes]]:
        """Return items for the batcher of policies."""
        numbers = random.choices(among, k=count)  # noqa: S311 - no secrets
        return [{self.known.pepper_id: self.known.digests.get(number) or digest_of(number)} for number in numbers]

    def requests(self, count: int, among: Sequence[int]) -> list[tuple[Any, Any]]:
        """Return items for the batchers of limits and of the ledger, of the keys that have these limits."""
        from apikeys.accounting.admission import ReservationRequest
        from apikeys.accounting.limits import Limit
        from apikeys.accounting.recording import Usage
        from apikeys.object_ids import new_object_id

        ids = random.choices(among, k=count)  # noqa: S311 - no secrets
        limits = Limit.objects.in_bulk(ids)
        asked = []
        for limit in (limits[pk] for pk in ids):
            whose = {
                "id": new_object_id(),
                "team_id": limit.team_id,
                "key_id": limit.key_id,
                "endpoint": "chat.completions",
            }
            tokens = {"prompt_tokens": 10, "model": "bench-model"}
            usage = Usage(**whose, **tokens, completion_tokens=10, status=200, duration_ms=1)
            asked.append((ReservationRequest(**whose, **tokens, tokens=20), usage))
        return asked


def _belongings(member: str) -> tuple[list[int], list[int], list[int]]:
    """The numbers of the keys of this member's team, and the ids of its keys' limits and of those of all keys."""
    from apikeys.accounting.limits import Limit
    from apikeys.keys.models import ApiKey
    from apikeys.teams import Team

    team = Team.objects.get(members__username=member)
    numbers = [
        int(name.removeprefix("Key ")) for name in ApiKey.objects.for_team(team.pk).values_list("name", flat=True)
    ]
    of_keys = Limit.objects.exclude(key=None)
    return (
        numbers,
        list(of_keys.filter(team=team).values_list("pk", flat=True)),
        list(of_keys.values_list("pk", flat=True)),
    )


def _signed_in(username: str) -> str:
    """The session cookie of a member of staff who may see everything of their own teams."""
    from django.contrib.auth.models import Permission, User
    from django.test import Client

    user, _ = User.objects.get_or_create(username=username, defaults={"is_superuser": True, "is_staff": True})
    if not user.is_superuser:
        user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client = Client()
    client.force_login(user)
    return str(client.cookies["sessionid"].value)


def _all_rounds(stage: Stage, rounds: int, small: Figures) -> Figures:
    figures: Figures = {}
    for number in range(1 + rounds * PATIENCE):
        for row, seconds in [*asyncio.run(_over_http(stage)), *_by_the_gates(stage)]:
            # The first round fills what is filled once in a process.
            if number:
                figures.setdefault(row, []).append(median(seconds) * 1000)
        missed = [row for row in small if row in figures and _is_missed(row[0], min(small[row]), min(figures[row]))]
        if number >= rounds and not [load for _, load in missed if not load.endswith(SCATTERED)]:
            break
    return figures


Timed = tuple[tuple[str, str], list[float]]


async def _over_http(stage: Stage) -> list[Timed]:
    new = [_get(KEY_PATH, f"Authorization: Bearer {next(stage.fresh)}") for _ in range(FRESH_KEYS)]
    known = [_get(KEY_PATH, f"Authorization: Bearer {stage.one}")] * REQUESTS
    body = {"model": "any", "stream": False, "messages": [{"role": "user", "content": "What is the answer?"}]}
    limited = [traffic.request(PATH, body, key=key) for key in stage.limited]
    # Twice: what is measured is admission and recording, not the look-up.
    await _timed(stage.port, limited, traffic.check_completion)
    timed = [
        (("GET v1/key, key not cached", "1 connection"), await _timed(stage.port, new, _check_page)),
        (("GET v1/key, key cached", "1 connection"), await _timed(stage.port, known, _check_page)),
        (
            ("completion with limits", "1 connection"),
            await _timed(stage.port, (limited * REQUESTS)[:REQUESTS], traffic.check_completion),
        ),
    ]
    for name, path in PAGE_PATHS.items():
        for who, cookie in stage.cookies.items():
            pages = [_get(path, f"Cookie: sessionid={cookie}")] * PAGES
            timed.append(((name, who), await _timed(stage.port, pages, _check_page)))
    return timed


async def _timed(port: int, requests: list[bytes], check: Callable[[Answer], int]) -> list[float]:
    """Seconds for each, one after the other on one connection."""
    seconds = []
    async with connected(port) as connection:
        for request in requests:
            started = perf_counter()
            answer = await asyncio.wait_for(connection.fetch(request), 60)
            seconds.append(perf_counter() - started)
            check(answer)
    return seconds


def _get(path: str, header: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{header}\r\n\r\n".encode()


def _check_page(answer: Answer) -> int:
    if answer.status != 200:
        raise traffic.unexpected("a page", answer)
    return 1


def _by_the_gates(stage: Stage) -> list[Timed]:
    """Time the batchers' work in the database, without a server around it: one item alone, and a batch."""
    # They are made before the event loop runs, in which Django does not read.
    loads = [
        (load, count, size, keys, stage.requests(count * size, limits))
        for load, count, size, keys, limits in (
            ("1 item", SINGLES, 1, stage.keys, stage.limits),
            (f"{BATCH} items of a team", BATCHES, BATCH, stage.keys_of_team, stage.limits_of_team),
            (f"{BATCH} items {SCATTERED}", BATCHES, BATCH, stage.keys, stage.limits),
        )
    ]
    return asyncio.run(_time_gates(stage, loads))


async def _time_gates(
    stage: Stage, loads: Sequence[tuple[str, int, int, Sequence[int], list[tuple[Any, Any]]]]
) -> list[Timed]:
    from apikeys.access.lookup import _load_policies
    from apikeys.accounting.admission import reserve
    from apikeys.accounting.recording import write
    from apikeys.hot_path.statements import StatementConnection

    timed: list[Timed] = []
    with contextlib.closing(await StatementConnection.connect()) as connection:
        for load, count, size, keys, requests in loads:
            looked_up, reserved, settled = [], [], []
            for _ in range(count):
                items = stage.look_ups(size, keys)
                started = perf_counter()
                found = await _load_policies(connection, items)
                looked_up.append(perf_counter() - started)
                if None in found:
                    raise BenchError("a key was not found by its digest")
            for start in range(0, len(requests), size):
                asked, usage = zip(*requests[start : start + size], strict=True)
                started = perf_counter()
                decisions = await reserve(connection, asked)
                between = perf_counter()
                await write(connection, usage)
                settled.append(perf_counter() - between)
                reserved.append(between - started)
                if any(decision.refused_by or not decision.limits for decision in decisions):
                    raise BenchError("a limit was not met, or refused")
            timed += [
                (("look-up by digest", load), looked_up),
                (("reserve", load), reserved),
                (("settle", load), settled),
            ]
    return timed


if __name__ == "__main__":
    sys.exit(main())
