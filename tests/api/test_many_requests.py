"""Thousands of requests under way in one server process."""

import asyncio
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from django.db import connection

from apikeys.accounting.ledger import UsageRecord
from apikeys.keys.models import ApiKey
from apikeys.lifecycle.revocation import broadcast_revocation
from tests.bench import traffic
from tests.bench.load import Answer, BenchError, Connection, connect
from tests.conftest import Server, running_server
from tests.environment import PROJECT
from tests.support import factories
from tests.support.conversations import make_app, make_app_key
from tests.support.fake_provider import FakeProvider
from tests.support.processes import wait_for

PATH = "/api/v1/chat/completions"
STREAMS = 5_000
KEYS = 10
STALLED = 2_000
# A stream has two sockets in the server, which keeps some files for all else.
NEEDED_FILES = 2 * STREAMS + 1_000
ROOM = {
    "MAX_CONNECTIONS_PER_ADDRESS": "9000",
    "MAX_OPEN_REQUESTS_PER_KEY": "4000",
    "RECORDER_QUEUE_SIZE": "20000",
    "STREAM_STALL_SECONDS": "600",
    "STREAM_MAX_SECONDS": "3600",
}
# A busy machine takes minutes to open so many streams.
PATIENT = {"first_byte_seconds": 3600, "between_chunks_seconds": 3600, "total_seconds": 3600}


@pytest.fixture(scope="module")
def roomy_server(database: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < NEEDED_FILES:
        pytest.skip(f"a process may open {hard} files (ulimit -Hn), and these need {NEEDED_FILES}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with running_server(tmp_path_factory.mktemp("server") / "log", ROOM) as server:
        yield server


@pytest.fixture(scope="module")
def upstream() -> Iterator[int]:
    """A provider that costs little, and holds its streams until it is told to go on. Return its port."""
    command = [sys.executable, "-m", "tests.bench.upstream"]
    with subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield int(process.stdout.readline())
        process.stdin.close()


class Call:
    """One request on a connection of its own."""

    def __init__(self, connection: Connection, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        self.begun: asyncio.Future[None] = loop.create_future()
        self.answered: asyncio.Future[Answer | BenchError] = loop.create_future()
        self.connection = connection
        connection.on_frame = lambda _: None if self.begun.done() else self.begun.set_result(None)
        connection.send(request, self._end)

    def _end(self, answer: Answer | BenchError) -> None:
        if not self.answered.done():
            self.answered.set_result(answer)
        if not self.begun.done():
            self.begun.set_result(None)


@asynccontextmanager
async def calling(port: int) -> AsyncIterator[Callable[[bytes], Awaitable[Call]]]:
    """Yield what makes a call. All connections are dropped at the end."""
    calls: list[Call] = []

    async def call(request: bytes) -> Call:
        calls.append(Call(await connect(port), request))
        return calls[-1]

    try:
        yield call
    finally:
        for made in calls:
            made.connection.transport.abort()
        # The transports close their sockets in the loop's next turn.
        await asyncio.sleep(0)


async def ask_upstream(port: int, request: str) -> None:
    connection = await connect(port)
    await connection.fetch(f"{request} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    connection.transport.abort()


def test_keys_are_revoked_among_thousands_of_streams(roomy_server: Server, upstream: int) -> None:
    team = factories.make_team()
    app = factories.make_app(team, factories.make_provider(team, f"http://127.0.0.1:{upstream}/v1", **PATIENT))
    made = [factories.make_key(app=app) for _ in range(KEYS)]
    revoked, kept = made[: KEYS // 2], made[KEYS // 2 :]

    async def run() -> tuple[Counter[str], Counter[str]]:
        async with calling(roomy_server.port) as call:
            cut, others = [], []
            for _ in range(STREAMS // KEYS):
                opened = [await call(stream_request(key)) for _, key in made]
                await asyncio.wait_for(asyncio.gather(*(each.begun for each in opened)), 600)
                cut += opened[: len(revoked)]
                others += opened[len(revoked) :]
            assert not any(each.answered.done() for each in cut + others)
            await asyncio.to_thread(revoke_all, [api_key for api_key, _ in revoked])
            ended = await asyncio.wait_for(asyncio.gather(*(each.answered for each in cut)), 600)
            assert not any(each.answered.done() for each in others)
            await ask_upstream(upstream, "POST /release")
            whole = await asyncio.wait_for(asyncio.gather(*(each.answered for each in others)), 600)
            return Counter(map(end_of, ended)), Counter(map(end_of, whole))

    ended, whole = asyncio.run(run())
    assert ended == {"revoked": STREAMS // 2}
    assert whole == {"done": STREAMS // 2}
    assert outcomes_of([api_key for api_key, _ in revoked]) == {"terminated": STREAMS // 2}
    assert outcomes_of([api_key for api_key, _ in kept]) == {"complete": STREAMS // 2}


def stream_request(key: str) -> bytes:
    body = {"stream": True, "messages": [{"role": "user", "content": "chunks=2 hold"}]}
    return traffic.request(PATH, body, key=key)


def revoke_all(keys: list[ApiKey]) -> None:
    """It runs in a thread, which leaves no connection behind."""
    try:
        for api_key in keys:
            api_key.revoke(by="test", reason="It leaked.")
            broadcast_revocation(api_key, terminate_streams=True)
    finally:
        connection.close()


def end_of(answer: Answer | BenchError) -> str:
    if isinstance(answer, BenchError):
        return f"nothing: {answer}"
    if answer.body.endswith(b"data: [DONE]\n\n") and answer.body.count(b"loopback") == 2:
        return "done"
    return "revoked" if b'"revoked_api_key"' in answer.body else answer.body[-200:].decode()


def outcomes_of(keys: list[ApiKey]) -> Counter[str]:
    return Counter(UsageRecord.objects.filter(key__in=keys).values_list("outcome", flat=True))


def test_a_provider_that_stalls_holds_up_nobody_else(roomy_server: Server, provider: FakeProvider) -> None:
    stalled_key, stalled = factories.make_key(app=make_app(provider, "never"))
    answered = make_app_key(provider)
    request = traffic.request(PATH, {"messages": [{"role": "user", "content": "hello"}]}, key=stalled)

    async def run() -> list[int]:
        async with calling(roomy_server.port) as call:
            calls = [await call(request) for _ in range(STALLED)]
            await wait_until_asked(provider, STALLED)
            statuses = await asyncio.to_thread(lambda: [roomy_server.ask(answered).status_code for _ in range(50)])
            assert not any(each.answered.done() for each in calls)
            return statuses

    assert asyncio.run(run()) == [200] * 50
    wait_for(
        lambda: outcomes_of([stalled_key]) == {"cancelled": STALLED},
        "those who left are in the ledger",
        seconds=600,
    )


async def wait_until_asked(provider: FakeProvider, count: int) -> None:
    deadline = asyncio.get_running_loop().time() + 600
    while len(provider.calls) < count:
        assert asyncio.get_running_loop().time() < deadline, len(provider.calls)
        await asyncio.sleep(0.05)
