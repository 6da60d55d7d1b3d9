"""The common ground of all measures: the server, the upstream, and the counts that both must agree with."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.bench import traffic
from tests.bench.gateway import PATH, Gateway
from tests.bench.load import BenchError, Connection, Round, Traffic, connect, run_round
from tests.bench.machine import Cores, Usage, Used
from tests.bench.report import DISTURBANCE


@dataclass(frozen=True)
class Scale:
    """How much of everything one run does."""

    rounds: int
    seconds: float
    pairs: int
    held_streams: int


FULL = Scale(rounds=3, seconds=3.0, pairs=700, held_streams=1000)
QUICK = Scale(rounds=2, seconds=1.0, pairs=300, held_streams=250)
# Rounds are repeated while strangers disturb them, up to this many times as many.
PATIENCE = 3


@dataclass
class Ground:
    """The ground of all measures, and the counts that database and upstream must agree with."""

    cores: Cores
    gateway: Gateway
    upstream_port: int
    scale: Scale
    accepted: int = 0
    direct: int = 0
    messages: int = 0
    conversations: int = 0
    is_disturbed: bool = False

    def rounds(self) -> Iterator[int]:
        """As many rounds as the scale says, or more until so many were undisturbed, within patience."""
        undisturbed = 0
        for number in range(self.scale.rounds * PATIENCE):
            self.is_disturbed = False
            yield number
            undisturbed += not self.is_disturbed
            if undisturbed == self.scale.rounds:
                return

    async def load(self, load: Traffic, connections: int, seconds: float | None = None, most: int = 1_000_000) -> Round:
        """A round of load; whatever it completes is counted as accepted or direct."""
        done = await run_round(load, connections, seconds or self.scale.seconds, most)
        if not done.completed:
            raise BenchError("a round completed no request")
        if load.check is not traffic.check_refusal:
            self.count(load, done.completed)
        return done

    def count(self, load: Traffic, completed: int) -> None:
        if load.port == self.upstream_port:
            self.direct += completed
        else:
            self.accepted += completed
            self.messages += completed * load.messages

    async def measured(self, load: Traffic, connections: int) -> tuple[Round, Used]:
        usage = Usage(self.gateway.process, self.cores)
        done = await self.load(load, connections)
        return done, self.used(usage)

    def used(self, usage: Usage) -> Used:
        used = usage.used()
        self.is_disturbed = self.is_disturbed or used.taken > DISTURBANCE
        return used

    async def warm_up(self) -> None:
        """Fill caches, pools and connections; the first answers of a process say nothing about the others."""
        key, port = self.gateway.key, self.gateway.port
        await self.load(traffic.completions(port, PATH, key=key), 64, 10, most=500)
        await self.load(traffic.completions(port, PATH, key=key, chat_prefix="warm"), 16, 10, most=100)
        await self.load(traffic.streams(port, PATH, key=key, chunks=20), 16, 10, most=32)

    def chat_prefix(self) -> str:
        """A name for 50 new conversations, so that no round inherits the history of another."""
        self.conversations += 1
        return f"bench-{self.conversations}"


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    connection = await connect(port)
    try:
        yield connection
    finally:
        connection.transport.abort()


async def upstream_stat(ground: Ground, name: str, request: str = "GET /stats") -> int:
    async with connected(ground.upstream_port) as connection:
        answer = await connection.fetch(f"{request} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    return int(json.loads(answer.body)[name])
