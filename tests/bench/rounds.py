"""The rounds of a comparison: the same load on each server in turn, while the others idle."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.bench import figures, traffic
from tests.bench.bare import REFUSE_PATH
from tests.bench.figures import BARE, DIRECT, OURS, OURS_WITH_CHAT_ID, OURS_WITH_LIMITS, Samples
from tests.bench.gateway import PATH
from tests.bench.generators import Generator, Load, Sample
from tests.bench.ground import Ground, connected, upstream_stat
from tests.bench.load import BenchError
from tests.bench.machine import Process, Usage
from tests.bench.measures import DIRECT_PATH, STREAM_CHUNKS, stepping
from tests.bench.memory import memory
from tests.bench.peers import LITELLM

CONNECTIONS = 64
HELD_STREAMS = 5000
# wrk does not count what is under way when a round ends. That must stay a small part of what LiteLLM answers.
LITELLM_ROUNDS = 3
# A just-in-time compiler has settled after so many requests: node answers the first thousands at half its speed. Slow
# servers are warmed up in no more than so many rounds of two seconds.
WARM_UP_REQUESTS = 12_000
WARM_UP_ROUNDS = 12
# New keys for each second of a round: more than any server here can refuse.
NEW_KEYS_A_SECOND = 20_000


@dataclass(frozen=True)
class Plan:
    """How many rounds there are, and the seconds of one at 64 connections, at one connection, and of streams."""

    rounds: int
    seconds: int
    latency_seconds: int
    stream_seconds: float


FULL = Plan(rounds=5, seconds=3, latency_seconds=2, stream_seconds=2.0)
QUICK = Plan(rounds=2, seconds=1, latency_seconds=1, stream_seconds=0.5)


@dataclass(frozen=True)
class Server:
    """A server under comparison, as it is asked. The direct upstream has no process on the server's core."""

    name: str
    port: int
    requests: Sequence[bytes]
    process: Process | None = None
    version: str = ""
    switched_on: str = ""
    log_path: Path | None = None

    @property
    def load(self) -> Load:
        return Load(self.port, self.requests, traffic.check_completion)

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Name the server in a BenchError, with the last words of its log."""
        try:
            yield
        except BenchError as error:
            lines = self.log_path.read_text(errors="replace").splitlines() if self.log_path else []
            raise BenchError("\n".join([f"{self.name}: {error}", *lines[-20:]])) from error


@dataclass
class Comparison:
    """One run: who takes part, what was measured, and the counts that the ledger must agree with."""

    ground: Ground
    servers: Mapping[str, Server]
    key: str
    generator: Generator
    plan: Plan
    samples: Samples = field(default_factory=Samples)
    # Requests that our server has answered to this generator, and those that may have been cut off uncounted.
    completed: int = 0
    cut: int = 0
    messages: int = 0
    cut_messages: int = 0
    taken: float = 0.0

    async def run(self) -> None:
        await self.ground.warm_up()
        for server in self.servers.values():
            await self.warm_up(server)
        async with stepping(self.ground) as step:
            steps = [*self.loads(), *self.refusals(), *self.streams(step)]
            for number in range(self.plan.rounds):
                print(f"round {number + 1} of {self.plan.rounds} ...", file=sys.stderr, flush=True)
                # Who comes after whom changes, too.
                for measure in reversed(steps) if number % 2 else steps:
                    await measure()
        self.samples.add_differences(figures.P50, figures.ADDED_P50, self.servers)
        print(f"opening {HELD_STREAMS:,} streams ...", file=sys.stderr, flush=True)
        for row in await memory(self.ground):
            self.samples.add(figures.MEMORY, OURS, row.value)

    async def warm_up(self, server: Server) -> None:
        """Look at one answer closely, then fill caches and pools."""
        async with connected(server.port) as connection:
            with server.blamed():
                server.load.check(await connection.fetch(server.requests[0]))
        if server.name in {OURS, OURS_WITH_LIMITS}:
            self.completed += 1
        answered = 0
        for _ in range(WARM_UP_ROUNDS):
            answered += (await self.load(server, server.load, CONNECTIONS, 2)).completed
            if answered >= WARM_UP_REQUESTS:
                return

    def loads(self) -> Iterator[Callable[[], Awaitable[None]]]:
        for server in self.servers.values():
            yield partial(self.measure_rate, server)
        yield self.measure_chats
        for server in self.servers.values():
            yield partial(self.measure_latency, server)

    def refusals(self) -> Iterator[Callable[[], Awaitable[None]]]:
        yield self.refuse_at_once
        yield self.refuse_one_key
        yield self.refuse_new_keys

    def streams(self, step: Callable[[bytes], None]) -> Iterator[Callable[[], Awaitable[None]]]:
        for figure, connections in zip(figures.EVENTS, figures.STREAM_CONNECTIONS, strict=True):
            for server in (DIRECT, OURS):
                yield partial(self.measure_stream, figure, server, connections, step)

    async def load(self, server: Server, load: Load, connections: int, seconds: int) -> Sample:
        with server.blamed():
            sample = await self.generator.run(load, connections, seconds)
        if server.process is self.ground.gateway.process and load.status == 200:
            self.completed += sample.completed
            self.cut += sample.cut
        return sample

    async def measured(self, server: Server, load: Load, figure: str) -> Sample:
        """A round at 64 connections, whose rate is a figure of the server."""
        usage = Usage(server.process, self.ground.cores) if server.process else None
        sample = await self.load(
            server, load, CONNECTIONS, self.plan.seconds * (LITELLM_ROUNDS if server.name == LITELLM else 1)
        )
        self.samples.add(figure, server.name, sample.rate)
        if usage is not None:
            used = usage.used()
            self.taken = max(self.taken, used.taken)
            if figure == figures.RATE:
                self.samples.add(figures.SERVER_US, server.name, used.cpu_seconds / sample.completed * 1e6)
                self.samples.add(figures.SERVER_CORE, server.name, used.server)
                self.samples.add(figures.OTHER_CORE, server.name, used.rest)
        return sample

    async def measure_rate(self, server: Server) -> None:
        sample = await self.measured(server, server.load, figures.RATE)
        self.samples.add(figures.P50_AT_64, server.name, sample.p50 * 1000)
        self.samples.add(figures.P99_AT_64, server.name, sample.p99 * 1000)

    async def measure_chats(self) -> None:
        """Ask in 50 new conversations in turn."""
        ours = self.servers[OURS]
        requests = traffic.completion_requests(PATH, key=self.key, chat_prefix=self.ground.chat_prefix())
        chats = Server(OURS_WITH_CHAT_ID, ours.port, requests, ours.process)
        sample = await self.measured(chats, chats.load, figures.RATE)
        self.messages += 2 * sample.completed
        self.cut_messages += 2 * sample.cut

    async def measure_latency(self, server: Server) -> None:
        sample = await self.load(server, server.load, 1, self.plan.latency_seconds)
        self.samples.add(figures.P50, server.name, sample.p50 * 1000)

    async def refuse_at_once(self) -> None:
        bare = self.servers[BARE]
        requests = traffic.refusal_requests(REFUSE_PATH, self.ground.gateway.unknown_keys(1))
        await self.measured(bare, Load(bare.port, requests, traffic.check_refusal, 401), figures.REFUSED)

    async def refuse_one_key(self) -> None:
        await self.refuse(self.ground.gateway.unknown_keys(1), figures.UNKNOWN_KEY)

    async def refuse_new_keys(self) -> None:
        keys = self.ground.gateway.unknown_keys(NEW_KEYS_A_SECOND * self.plan.seconds)
        sample = await self.refuse(keys, figures.NEW_KEYS)
        if sample.completed > len(keys):
            raise BenchError(f"{sample.completed} refusals of {len(keys)} keys: not all of them were new")

    async def refuse(self, keys: Sequence[str], figure: str) -> Sample:
        ours = self.servers[OURS]
        requests = traffic.refusal_requests(PATH, keys)
        return await self.measured(ours, Load(ours.port, requests, traffic.check_refusal, 401), figure)

    async def measure_stream(self, figure: str, server: str, connections: int, step: Callable[[bytes], None]) -> None:
        gateway = self.ground.gateway
        port, path, key = (
            (gateway.port, PATH, gateway.key) if server == OURS else (self.ground.upstream_port, DIRECT_PATH, "")
        )
        load = traffic.streams(port, path, key=key, chunks=STREAM_CHUNKS, mode="step", on_frame=step)
        done = await self.ground.load(load, connections, self.plan.stream_seconds)
        self.samples.add(figure, server, done.event_rate)

    async def requests_at_upstream(self) -> int:
        """How many requests the upstream of streams has answered; the static one does not count."""
        return await upstream_stat(self.ground, "completions") + await upstream_stat(self.ground, "streams")

    def verified(self, at_upstream: int) -> dict[str, object]:
        """The counts of the run. Raises BenchError unless all agree, but for requests that were cut off."""
        ground = self.ground
        ledger, messages = ground.gateway.stored()
        for what, found, least, cut in (
            ("rows in the ledger", ledger, ground.accepted + self.completed, self.cut),
            ("messages in conversations", messages, ground.messages + self.messages, self.cut_messages),
            ("requests at the upstream of streams", at_upstream, ground.accepted + ground.direct, 0),
        ):
            if not least <= found <= least + cut:
                raise BenchError(f"the counts differ: {found} {what} where {least} to {least + cut} are right")
        return {
            "accepted": self.ground.accepted + self.completed,
            "cut_at_most": self.cut,
            "ledger_rows": ledger,
            "messages": messages,
        }
