"""Measure the server: `python -m tests.bench [--peers] [--quick] [--json FILE] [--only NAME]`. Exit code 1: a floor is
missed or the run proves nothing."""

import argparse
import asyncio
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import uvloop

from tests.bench import comparison, interruption, machine, report
from tests.bench.gateway import running_gateway
from tests.bench.ground import FULL, QUICK, Ground, Scale, upstream_stat
from tests.bench.load import BenchError
from tests.bench.machine import Process
from tests.bench.measures import MEASURES
from tests.bench.report import Row
from tests.bench.stations import stations
from tests.bench.traffic import CONVERSATIONS

Measured = tuple[list[Row], int]
# Only what is asked for by its name: these samples say where the time goes, not how much of it there is.
BY_NAME = MEASURES | {"stations": stations}


def main() -> int:
    options = _options()
    interruption.handle_signals()
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    try:
        holds = comparison.run(options.quick, options.json) if options.peers else _measure_alone(options)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    return 0 if holds else 1


def _measure_alone(options: argparse.Namespace) -> bool:
    """Whether every floor that was measured holds."""
    described = machine.describe()
    rows, context = _run(QUICK if options.quick else FULL, options.only or list(MEASURES))
    holds = report.hold_to_floors(rows)
    print(report.table(rows))
    print(_notes(context))
    if report.disturbance(rows) > report.DISTURBANCE:
        print(
            f"Others took up to {report.disturbance(rows):.0%} of the server's core: on a quiet machine it is faster."
        )
    if options.json:
        options.json.write_text(report.as_json(rows, machine=described, quick=options.quick, **context) + "\n")
    return holds


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--peers", action="store_true", help="compare it with other gateways in interleaved rounds")
    parser.add_argument("--quick", action="store_true", help="fewer, shorter rounds: for a first impression")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round to this file too")
    parser.add_argument("--only", action="append", choices=BY_NAME, metavar="NAME", help=f"of {', '.join(BY_NAME)}")
    options = parser.parse_args()
    if options.peers and options.only:
        parser.error("--only is not for --peers, whose figures are ratios within one run")
    return options


def _run(scale: Scale, names: Iterable[str]) -> tuple[list[Row], dict[str, object]]:
    cores = machine.cores()
    machine.raise_file_limit()
    # Load, and by inheritance the database, run where the server does not.
    os.sched_setaffinity(0, {cores.rest})
    upstream = Process([sys.executable, "-m", "tests.bench.upstream"], core=cores.rest)
    try:
        upstream_port = int(upstream.read_line())
        with running_gateway(cores, upstream_port) as gateway:
            ground = Ground(cores, gateway, upstream_port, scale)
            rows, upstream_requests = interruption.run(_measure(ground, names))
            return rows, _verified(ground, upstream_requests)
    finally:
        upstream.stop()


async def _measure(ground: Ground, names: Iterable[str]) -> Measured:
    """The rows, and how many requests the upstream has answered in all."""
    await ground.warm_up()
    rows = []
    for name in names:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        rows += await BY_NAME[name](ground)
    return rows, await upstream_stat(ground, "completions") + await upstream_stat(ground, "streams")


def _verified(ground: Ground, upstream: int) -> dict[str, object]:
    """The counts of the run. Raises BenchError unless load, upstream and database agree."""
    ledger, messages = ground.gateway.stored()
    counted = {
        "rows in the ledger": (ledger, ground.accepted),
        "messages in conversations": (messages, ground.messages),
        "requests at the upstream": (upstream, ground.accepted + ground.direct),
    }
    for what, (found, expected) in counted.items():
        if found != expected:
            raise BenchError(f"the counts differ: {found} {what} where the answers say {expected}")
    return {"accepted": ground.accepted, "direct": ground.direct, "ledger_rows": ledger, "messages": messages}


def _notes(context: dict[str, object]) -> str:
    return (
        "Best of the rounds; every answer was checked. direct: the same load on the upstream without the server.\n"
        "server us: CPU time of the server's process for one. server core: how busy that process was; other core:\n"
        f"how busy load, upstream and database kept theirs. With chatId: {CONVERSATIONS} conversations in turn, new\n"
        "ones in each round. Streamed events come in step, each when the one before has arrived, so that each is\n"
        "read and written alone; in bursts, as fast as the upstream can.\n"
        f"{context['accepted']:,} accepted requests, as many rows in the ledger."
    )


if __name__ == "__main__":
    sys.exit(main())
