"""The load generators of a comparison: wrk where it is installed, otherwise the bench's own, which is slower."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from statistics import quantiles
from typing import Protocol

from tests.bench.load import Answer, BenchError, Traffic, run_round

SCRIPT = Path(__file__).with_name("wrk.lua")
# LiteLLM answers some requests after seconds.
TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class Load:
    """The requests to send in turn, where, and what each answer must be. `check` raises BenchError."""

    port: int
    requests: Sequence[bytes]
    check: Callable[[Answer], int]
    status: int = 200


@dataclass(frozen=True)
class Sample:
    """The result of one round. Latencies are in seconds; at most `cut` requests were under way when it ended."""

    completed: int
    seconds: float
    p50: float
    p99: float
    cut: int

    @property
    def rate(self) -> float:
        return self.completed / self.seconds


class Generator(Protocol):
    @property
    def name(self) -> str: ...

    async def run(self, load: Load, connections: int, seconds: int) -> Sample:
        """Keep every connection busy for so long. Raises BenchError unless all answers are as they must be."""


def find_generator() -> Generator:
    program = shutil.which("wrk")
    return Own() if program is None else Wrk(program)


class Wrk:
    """wrk with one thread. It looks at each answer's status alone."""

    def __init__(self, program: str) -> None:
        self.program = program
        # It has no option that prints its version and nothing else, and ends with an error.
        printed = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout.split()
        self.name = " ".join(printed[:2])

    async def run(self, load: Load, connections: int, seconds: int) -> Sample:
        with tempfile.NamedTemporaryFile(prefix="bench-") as file:
            file.write(b"\0".join(load.requests))
            file.flush()
            process = await asyncio.create_subprocess_exec(
                self.program,
                "--threads=1",
                f"--connections={connections}",
                f"--duration={seconds}s",
                f"--timeout={TIMEOUT_SECONDS}s",
                f"--script={SCRIPT}",
                f"http://127.0.0.1:{load.port}",
                "--",
                file.name,
                str(load.status),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                printed, _ = await process.communicate()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        if process.returncode:
            raise BenchError(f"wrk ended with {process.returncode}: {printed.decode(errors='replace')[-500:]}")
        counted = json.loads(printed.splitlines()[-1])
        if not counted["completed"] or counted["wrong"] or counted["broken"]:
            raise BenchError(
                f"of {counted['completed']} answers {counted['wrong']} did not have the status {load.status}, and "
                f"{counted['broken']} connections or requests failed"
            )
        return Sample(
            counted["completed"],
            counted["microseconds"] / 1e6,
            counted["p50"] / 1e6,
            counted["p99"] / 1e6,
            cut=connections,
        )


class Own:
    """The bench's own load generator. It reads every answer, and lets what is under way end."""

    name = "the bench's own"

    async def run(self, load: Load, connections: int, seconds: int) -> Sample:
        done = await run_round(Traffic(load.port, cycle(load.requests), load.check), connections, seconds)
        if done.completed < 2:
            raise BenchError("a round completed no two requests")
        percentiles = quantiles(done.latencies, n=100)
        return Sample(done.completed, done.seconds, percentiles[49], percentiles[98], cut=0)
