"""The comparison with other gateways: starts all of them, takes their rounds, and prints what came of it."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tests.bench import figures, interruption, machine, peers, traffic
from tests.bench.figures import BARE, DIRECT, OURS, OURS_WITH_LIMITS
from tests.bench.gateway import PATH, Gateway, create_keys, running_gateway
from tests.bench.generators import find_generator
from tests.bench.ground import Ground, Scale
from tests.bench.load import BenchError
from tests.bench.machine import Cores, Process
from tests.bench.measures import DIRECT_PATH
from tests.bench.peers import LITELLM, NotInstalledError
from tests.bench.report import DISTURBANCE
from tests.bench.rounds import FULL, HELD_STREAMS, LITELLM_ROUNDS, QUICK, Comparison, Server
from tests.bench.static_upstream import StaticUpstream, running_static_upstream
from tests.bench.waiting import wait_for_port

# A stream has two sockets in the server, which keeps half of its files for connections to others.
NEEDED_FILES = 16384
# So that one key from one address may hold them all: a team gets at most half of what may wait to be recorded.
SETTINGS = {
    "MAX_CONNECTIONS_PER_ADDRESS": str(HELD_STREAMS + 500),
    "MAX_OPEN_REQUESTS_PER_KEY": str(HELD_STREAMS + 500),
    "RECORDER_QUEUE_SIZE": str(HELD_STREAMS * 2 + 1000),
}


def run(is_quick: bool, json_path: Path | None) -> bool:
    """Print the comparison. Return whether every floor of what was measured holds."""
    described = machine.describe()
    # The folders of those that could be installed, before anything is started.
    installed, missing = _install()
    cores = machine.cores()
    machine.raise_file_limit(NEEDED_FILES)
    # Load, and by inheritance the database, run where the servers do not.
    os.sched_setaffinity(0, {cores.rest})
    with ExitStack() as stack:
        static = stack.enter_context(running_static_upstream(cores.rest))
        others = _start_others(stack, cores, static.port, installed)
        upstream = Process([sys.executable, "-m", "tests.bench.upstream"], core=cores.rest)
        stack.callback(upstream.stop)
        upstream_port = int(upstream.read_line())
        gateway = stack.enter_context(running_gateway(cores, upstream_port, SETTINGS))
        key, limited_key = create_keys("Static", static.port)
        ready = [server for server in others if _is_ready(server, missing)]
        servers = _servers(static, ready, gateway, key, limited_key)
        plan = QUICK if is_quick else FULL
        scale = Scale(plan.rounds, plan.seconds, 0, HELD_STREAMS)
        ground = Ground(cores, gateway, upstream_port, scale)
        comparison = Comparison(ground, {server.name: server for server in servers}, key, find_generator(), plan)
        at_upstream = interruption.run(_measure(comparison))
        counts = comparison.verified(at_upstream)
    return _report(comparison, static, missing, {"machine": described, "quick": is_quick, **counts}, json_path)


async def _measure(comparison: Comparison) -> int:
    await comparison.run()
    return await comparison.requests_at_upstream()


def _install() -> tuple[dict[str, Path], dict[str, str]]:
    """The folders of peers, and why others are missing."""
    installed, missing = {}, {}
    for name in peers.PEERS:
        try:
            installed[name] = peers.install(name)
        except NotInstalledError as error:
            missing[name] = f"it could not be installed: {error}"
            print(f"bench: {name} could not be installed: {error}", file=sys.stderr)
    return installed, missing


def _start_others(stack: ExitStack, cores: Cores, static_port: int, installed: Mapping[str, Path]) -> list[Server]:
    """Start the bare program and the peers. They may not be ready yet."""
    bare = Process([sys.executable, "-m", "tests.bench.bare", str(static_port)], core=cores.server)
    stack.callback(bare.stop)
    requests = traffic.completion_requests(DIRECT_PATH)
    versions = ", ".join(f"{name} {version(name)}" for name in ("uvicorn", "httptools", "uvloop", "msgspec", "aiohttp"))
    servers = [Server(BARE, int(bare.read_line()), requests, bare, versions, "nothing: no keys, no log, no record")]
    for name, folder in installed.items():
        files = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        peer = peers.PEERS[name].start(folder, files, cores.server, static_port)
        stack.callback(peer.process.stop)
        requests = traffic.completion_requests(DIRECT_PATH, headers=peer.headers)
        servers.append(Server(name, peer.port, requests, peer.process, peer.version, peer.switched_on, peer.log_path))
    return servers


def _is_ready(server: Server, missing: dict[str, str]) -> bool:
    """Wait for the server; where it fails to start, say so and add it to the missing ones."""
    assert server.process is not None
    try:
        with server.blamed():
            wait_for_port(server.process, server.port)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        missing[server.name] = "it did not start"
        return False
    return True


def _servers(
    static: StaticUpstream, others: Sequence[Server], gateway: Gateway, key: str, limited_key: str
) -> list[Server]:
    from django.conf import settings

    direct = Server(DIRECT, static.port, traffic.completion_requests(DIRECT_PATH), None, static.name)
    process, port, own = gateway.process, gateway.port, settings.VERSION
    everything = "everything: keys, a ledger that is durable before the last byte, access log to a file, metrics"
    ours = Server(OURS, port, traffic.completion_requests(PATH, key=key), process, own, everything)
    limited = traffic.completion_requests(PATH, key=limited_key)
    with_limits = "the same, and a limit of requests and one of tokens on the key"
    return [direct, *others, ours, Server(OURS_WITH_LIMITS, port, limited, process, own, with_limits)]


def _report(
    comparison: Comparison,
    static: StaticUpstream,
    missing: Mapping[str, str],
    context: Mapping[str, object],
    json_path: Path | None,
) -> bool:
    rows = figures.rows(comparison.samples)
    servers = comparison.servers
    date = datetime.now(UTC).isoformat(timespec="minutes")
    print(figures.table(rows), end="\n\n")
    print(figures.servers_table(comparison.samples, servers), end="\n\n")
    for server in servers.values():
        print(f"{server.name}: {server.version}. {server.switched_on}".rstrip(". "))
    for name, reason in missing.items():
        print(f"{name} is missing: {reason}")
    described = context["machine"]
    assert isinstance(described, dict)
    plan, cores = comparison.plan, comparison.ground.cores
    print(
        f"{date}, Python {platform.python_version()}, {described['system']}, {described['cores']} cores of "
        f"{described['processor']}: the server under test alone on core {cores.server}; load, upstreams and database "
        f"on core {cores.rest}.\n"
        f"Load: {comparison.generator.name}; the bench's own for streams. Upstream: {static.name}; the bench's own for "
        "streams.\n"
        f"Medians of {plan.rounds} interleaved rounds; ratios are of medians. Added p50: the server's less that of the "
        "direct upstream in the same round.\n"
        f"{LITELLM}'s rounds at 64 connections are {LITELLM_ROUNDS} times as long: what the end of one cuts off is not "
        "counted.\nStreamed events come in step: each is sent when the one before has arrived, so that each is written "
        "alone.\n"
        f"{context['accepted']:,} requests accepted by ours, {context['ledger_rows']:,} rows in the ledger; the ends "
        f"of rounds cut off at most {context['cut_at_most']:,}, whose rows are right too."
    )
    if comparison.taken > DISTURBANCE:
        print(f"Others took up to {comparison.taken:.0%} of the servers' core: on a quiet machine they are faster.")
    if json_path:
        about = {server.name: [server.version, server.switched_on] for server in servers.values()}
        more = {
            "date": date,
            "generator": comparison.generator.name,
            "upstream": static.name,
            "servers": about,
            "missing": dict(missing),
        }
        json_path.write_text(figures.as_json(rows, comparison.samples, {**context, **more}) + "\n")
    return all(row.is_held is not False for row in rows)
