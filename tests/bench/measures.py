"""The measures: each takes the bench's ground and returns rows of the table."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from statistics import quantiles
from time import perf_counter

from tests.bench import traffic
from tests.bench.gateway import PATH
from tests.bench.ground import Ground, connected
from tests.bench.load import BenchError, Connection, Round, Traffic
from tests.bench.machine import Usage, Used
from tests.bench.memory import memory
from tests.bench.report import Row
from tests.bench.upstream import NUMBER_LENGTH, WORD

DIRECT_PATH = "/v1/chat/completions"
CONNECTIONS = (1, 16, 64)
STREAM_CHUNKS = 200
_STREAM_NUMBER = re.compile(rf"{WORD}(\d{{{NUMBER_LENGTH}}})".encode())


def _best(
    name: str,
    load: str,
    unit: str,
    rounds: list[tuple[Round, Used]],
    direct: list[Round],
    rate: Callable[[Round], float],
) -> Row:
    best, used = max(rounds, key=lambda each: rate(each[0]))
    percentiles = quantiles(best.latencies, n=100) if len(best.latencies) > 1 else best.latencies * 99
    row = Row(name, load, unit, rate(best), [rate(each[0]) for each in rounds])
    row.direct = max(map(rate, direct)) if direct else None
    row.server_core, row.taken_core, row.other_core = used.server, used.taken, used.rest
    row.server_us = min(each.cpu_seconds / (rate(done) * done.seconds) for done, each in rounds) * 1e6
    row.more = {"p50_ms": percentiles[49] * 1000, "p99_ms": percentiles[98] * 1000}
    return row


def _connections(count: int) -> str:
    return f"{count} connections" if count > 1 else "1 connection"


async def completions(ground: Ground) -> list[Row]:
    """Requests per second without and with chatId; the rounds of all take turns."""
    key, port = ground.gateway.key, ground.gateway.port
    plain: list[Row] = []
    chatting: list[Row] = []
    for connections in CONNECTIONS:
        without, within, direct = [], [], []
        for _ in ground.rounds():
            direct.append(await ground.load(traffic.completions(ground.upstream_port, DIRECT_PATH), connections))
            without.append(await ground.measured(traffic.completions(port, PATH, key=key), connections))
            chats = traffic.completions(port, PATH, key=key, chat_prefix=ground.chat_prefix())
            within.append(await ground.measured(chats, connections))
        load = _connections(connections)
        plain.append(_best("completions", load, "requests/s", without, direct, lambda done: done.rate))
        chatting.append(_best("completions with chatId", load, "requests/s", within, direct, lambda done: done.rate))
    return plain + chatting


async def limits(ground: Ground) -> list[Row]:
    """Requests per second of a key with a rate and a budget, beside those of one without, in turns."""
    key, limited_key, port = ground.gateway.key, ground.gateway.limited_key, ground.gateway.port
    rows, ratios = [], []
    for connections in CONNECTIONS:
        without, within = [], []
        for _ in ground.rounds():
            without.append(await ground.measured(traffic.completions(port, PATH, key=key), connections))
            within.append(await ground.measured(traffic.completions(port, PATH, key=limited_key), connections))
        plain = [done for done, _ in without]
        row = _best(
            "completions with limits", _connections(connections), "requests/s", within, plain, lambda done: done.rate
        )
        rows.append(row)
        assert row.direct is not None
        ratio = Row("with limits, against without", row.load, "ratio", row.value / row.direct)
        ratios.append(ratio)
    return rows + ratios


async def latency(ground: Ground) -> list[Row]:
    """Measure how much the gateway adds at one connection: direct call and gateway call take turns."""
    port = ground.gateway.port
    direct = traffic.completions(ground.upstream_port, DIRECT_PATH)
    rows = []
    for suffix in ("", " with chatId", " with limits"):
        prefix = ground.chat_prefix() if suffix == " with chatId" else ""
        key = ground.gateway.limited_key if suffix == " with limits" else ground.gateway.key
        gateway = traffic.completions(port, PATH, key=key, chat_prefix=prefix)
        rounds = []
        for _ in ground.rounds():
            usage = Usage(ground.gateway.process, ground.cores)
            percentiles = await _both_ways(ground, direct, gateway)
            rounds.append((*percentiles, ground.used(usage)))
        for percentile in (50, 99):
            added = [(through[percentile - 1] - straight[percentile - 1]) * 1000 for straight, through, _ in rounds]
            best = added.index(min(added))
            straight, through, used = rounds[best]
            row = Row(f"added latency{suffix} p{percentile}", "1 connection", "ms", added[best], added)
            row.direct = straight[percentile - 1] * 1000
            row.taken_core = used.taken
            row.more = {"through_gateway_ms": through[percentile - 1] * 1000}
            rows.append(row)
    return rows


async def _both_ways(ground: Ground, direct: Traffic, gateway: Traffic) -> tuple[list[float], list[float]]:
    """The percentiles 1 to 99 of the seconds that a request takes directly, and through the gateway."""
    straight, through = [], []
    async with connected(direct.port) as to_upstream, connected(gateway.port) as to_gateway:
        for _ in range(ground.scale.pairs):
            straight.append(await _timed(to_upstream, direct))
            through.append(await _timed(to_gateway, gateway))
    ground.count(direct, ground.scale.pairs)
    ground.count(gateway, ground.scale.pairs)
    return quantiles(straight, n=100), quantiles(through, n=100)


async def _timed(connection: Connection, load: Traffic) -> float:
    started = perf_counter()
    answered: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    answers = []

    def on_answer(answer: object) -> None:
        answers.append(answer)
        answered.set_result(perf_counter() - started)

    connection.send(next(load.requests), on_answer)
    seconds = await asyncio.wait_for(answered, 30)
    if isinstance(answers[0], BenchError):
        raise answers[0]
    load.check(answers[0])
    return seconds


async def streams(ground: Ground) -> list[Row]:
    """Events per second: in step, so that each is read and written on its own; and as fast as the upstream can."""
    rows = []
    async with stepping(ground) as step:
        for connections in CONNECTIONS:
            rows.append(await _stream_row(ground, "streamed events", connections, "step", step))
    rows.append(await _stream_row(ground, "streamed events in bursts", CONNECTIONS[-1], "", None))
    return rows


@asynccontextmanager
async def stepping(ground: Ground) -> AsyncIterator[Callable[[bytes], None]]:
    """Give what tells the upstream, for each frame that has come, that its stream may go on."""
    async with connected(ground.upstream_port) as steps:
        await steps.fetch(b"POST /steps HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")

        def step(frame: bytes) -> None:
            steps.transport.write(b"".join(_STREAM_NUMBER.findall(frame)))

        yield step


async def _stream_row(
    ground: Ground, name: str, connections: int, mode: str, on_frame: Callable[[bytes], None] | None
) -> Row:
    through, direct = [], []
    for _ in ground.rounds():
        for port, path, key in (
            (ground.upstream_port, DIRECT_PATH, ""),
            (ground.gateway.port, PATH, ground.gateway.key),
        ):
            load = traffic.streams(port, path, key=key, chunks=STREAM_CHUNKS, mode=mode, on_frame=on_frame)
            if port == ground.upstream_port:
                direct.append(await ground.load(load, connections))
            else:
                through.append(await ground.measured(load, connections))
    row = _best(name, _connections(connections), "events/s", through, direct, lambda done: done.event_rate)
    best = max((each[0] for each in through), key=lambda done: done.event_rate)
    row.more["events_per_write"] = best.events / best.frames
    return row


async def refusals(ground: Ground) -> list[Row]:
    """Bad keys per second: the same unknown one, ever new unknown ones, and one with a wrong checksum."""
    port = ground.gateway.port
    (unknown,) = ground.gateway.unknown_keys(1)
    wrong = unknown[:-1] + ("0" if unknown[-1] != "0" else "1")
    fresh = ground.gateway.unknown_keys(20_000)
    kinds = {
        "refusals, one unknown key": [unknown],
        "refusals, ever new unknown keys": fresh,
        "refusals, wrong checksum": [wrong],
    }
    rows = []
    for name, keys in kinds.items():
        load = traffic.refusals(port, PATH, keys)
        rounds = [await ground.measured(load, 16) for _ in ground.rounds()]
        rows.append(_best(name, "16 connections", "requests/s", rounds, [], lambda done: done.rate))
    return rows


MEASURES: dict[str, Callable[[Ground], Awaitable[list[Row]]]] = {
    "completions": completions,
    "limits": limits,
    "latency": latency,
    "streams": streams,
    "refusals": refusals,
    "memory": memory,
}
