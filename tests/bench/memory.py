"""The server's memory for an open stream."""

import asyncio

from tests.bench import traffic
from tests.bench.gateway import PATH
from tests.bench.ground import Ground, upstream_stat
from tests.bench.load import BenchError, Connection, Traffic, connect
from tests.bench.report import Row

# Streams that are opened at the same moment.
OPENING = 20


async def memory(ground: Ground) -> list[Row]:
    """Measure the cost of each open stream in a server that was just started and warmed up."""
    await asyncio.to_thread(ground.gateway.restart)
    await ground.warm_up()
    count = ground.scale.held_streams
    load = traffic.streams(ground.gateway.port, PATH, key=ground.gateway.key, chunks=2, mode="hold")
    await asyncio.sleep(1)
    before = ground.gateway.process.memory()
    held = _HeldStreams(load)
    try:
        await held.open(count)
        await asyncio.sleep(1)
        if await upstream_stat(ground, "held") != count:
            raise BenchError(f"the upstream does not hold {count} streams")
        during = ground.gateway.process.memory()
        await upstream_stat(ground, "held", "POST /release")
        await held.complete()
    finally:
        held.abort()
    ground.count(load, count)
    row = Row("memory of a stream", f"{count:,} open streams", "KB", (during.pss - before.pss) / count)
    row.more = {
        "rss_kb": (during.rss - before.rss) / count,
        "server_rss_before_kb": before.rss,
        "server_rss_during_kb": during.rss,
    }
    return [row]


class _HeldStreams:
    """Streams that have sent their first events and stay open until the upstream lets go."""

    def __init__(self, load: Traffic) -> None:
        self.load = load
        self.connections: list[Connection] = []
        self.answers: list[asyncio.Future[object]] = []

    async def open(self, count: int) -> None:
        """A few at a time, each until its first bytes are here."""
        for start in range(0, count, OPENING):
            await asyncio.wait_for(
                asyncio.gather(*(self._open_one() for _ in range(min(OPENING, count - start)))), timeout=30
            )

    async def _open_one(self) -> None:
        loop = asyncio.get_running_loop()
        connection = await connect(self.load.port)
        self.connections.append(connection)
        answered: asyncio.Future[object] = loop.create_future()
        begun: asyncio.Future[None] = loop.create_future()
        connection.on_frame = lambda _frame: begun.done() or begun.set_result(None)
        connection.send(next(self.load.requests), answered.set_result)
        self.answers.append(answered)
        await asyncio.wait((begun, answered), return_when=asyncio.FIRST_COMPLETED)
        if answered.done():
            self._check(answered.result())
            raise BenchError("a stream that was to be held has ended")

    async def complete(self) -> None:
        for answer in await asyncio.wait_for(asyncio.gather(*self.answers), 60):
            self._check(answer)

    def _check(self, answer: object) -> None:
        if isinstance(answer, BenchError):
            raise answer
        self.load.check(answer)  # type: ignore[arg-type]

    def abort(self) -> None:
        for connection in self.connections:
            connection.transport.abort()
