"""Attack the server: `python -m tests.attack [--only NAME] [--behind PROXY]`. Exit code 1: something was not held."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass

from tests.attack.attacks import ATTACKS, NOT_BEHIND_A_PROXY, Outcome
from tests.attack.proxies import PROXIES
from tests.attack.target import CHAT, Bystanders, Target, running_target
from tests.bench.load import BenchError

# What others may wait meanwhile, and how much more memory the server may have when it is over.
MOST_MS = 500
SPARE_MIB = 50
REST_SECONDS = 60
LEAST_SECONDS = 5


@dataclass
class Row:
    """One attack in the table."""

    name: str
    outcome: Outcome
    seconds: float
    chat_ms: float
    healthz_ms: float
    before_mib: float
    peak_mib: float
    after_mib: float
    failures: list[str]

    @property
    def faults(self) -> list[str]:
        found = list(self.outcome.wrong)
        found += [f"a bystander was not answered: {failure}" for failure in self.failures]
        for who, waited in (("a completion", self.chat_ms), ("/healthz", self.healthz_ms)):
            if waited > MOST_MS:
                found.append(f"{who} waited {waited:.0f} ms (p99)")
        if self.after_mib - self.before_mib > SPARE_MIB:
            found.append(f"{self.after_mib - self.before_mib:.0f} MiB more after {REST_SECONDS} s")
        return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description=__doc__)
    parser.add_argument("--only", action="append", choices=ATTACKS, metavar="NAME", help=f"of {', '.join(ATTACKS)}")
    parser.add_argument("--behind", choices=PROXIES, help="with this proxy in front of the server")
    options = parser.parse_args()
    # A proxy has bounds of its own on what does not reach the server.
    names = [name for name in options.only or ATTACKS if not (options.behind and name in NOT_BEHIND_A_PROXY)]
    try:
        with running_target(options.behind) as target:
            rows = [run(target, name) for name in names]
    except BenchError as error:
        print(f"attack: {error}", file=sys.stderr)
        return 1
    print(table(rows))
    for row in rows:
        for fault in row.faults[:10]:
            print(f"NOT HELD  {row.name}: {fault}")
    return 1 if any(row.faults for row in rows) else 0


def run(target: Target, name: str) -> Row:
    print(f"attacking: {name} ...", file=sys.stderr, flush=True)
    warm_up(target)
    before, started = target.rss_mib(), time.monotonic()
    with Bystanders(target) as bystanders:
        outcome = ATTACKS[name](target)
        seconds = time.monotonic() - started
        # A short attack may still cost others something when it is over.
        time.sleep(max(LEAST_SECONDS - seconds, 0))
    deadline = time.monotonic() + REST_SECONDS
    while (after := target.rss_mib()) - before > SPARE_MIB and time.monotonic() < deadline:
        time.sleep(1)
    return Row(
        name,
        outcome,
        seconds,
        bystanders.p99_ms(CHAT),
        bystanders.p99_ms("/healthz"),
        before,
        bystanders.peak_mib,
        after,
        bystanders.failures,
    )


def warm_up(target: Target) -> None:
    with Bystanders(target):
        time.sleep(1)


def table(rows: list[Row]) -> str:
    lines = ["attack                          tried  held      s   chat p99  healthz p99   MiB before  peak  after"]
    lines += [
        f"{row.name:30}{row.outcome.tried:7,}  {'no' if row.faults else 'yes':4}{row.seconds:7.0f}"
        f"{row.chat_ms:8.0f} ms{row.healthz_ms:10.0f} ms{row.before_mib:13.0f}{row.peak_mib:6.0f}{row.after_mib:7.0f}"
        for row in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
