"""Thousands of requests under way in one server process."""

import asyncio
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from apikeys.accounting.ledger import UsageRecord
from apikeys.keys.models import ApiKey
from apikeys.lifecycle.revocation import broadcast_revocation
from tests.bench import traffic
from tests.bench.load import Answer, BenchError, Connection, connect
from tests.conftest import Server, running_server
from tests.environment import PROJECT
from tests.support import factories
from tests.support.conversations import make_app_key
from tests.support.fake_provider import FakeProvider
from tests.support.processes import wait_for

PATH = "/api/v1/chat/completions"
STREAMS = 5_000
KEYS = 10
STALLED = 2_000
ROOM = {
    "MAX_CONNECTIONS_PER_ADDRESS": "9000",
    "MAX_OPEN_REQUESTS_PER_KEY": "4000",
    "RECORDER_QUEUE_SIZE": "20000",
    "STREAM_STALL_SECONDS": "60",
}


@pytest.fixture(scope="module")
def roomy_server(database: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
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


async def open_streams(port: int, keys: list[str], count: int) -> list[tuple[str, Call]]:
    body = {"stream": True, "messages": [{"role": "user", "content": "chunks=2 hold"}]}
    requests = [(key, traffic.request(PATH, body, key=key)) for key in keys]
    calls = []
    for number in range(0, count, 50):
        opened = [(key, Call(await connect(port), request)) for key, request in requests * (50 // len(keys))]
        await asyncio.wait_for(asyncio.gather(*(call.begun for _, call in opened)), 60)
        calls += opened
        assert number + 50 == len(calls)
    return calls


async def ask_upstream(port: int, request: str) -> None:
    connection = await connect(port)
    await connection.fetch(f"{request} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    connection.transport.abort()


def test_keys_are_revoked_among_thousands_of_streams(roomy_server: Server, upstream: int) -> None:
    team = factories.make_team()
    app = factories.make_app(team, factories.make_provider(team, f"http://127.0.0.1:{upstream}/v1"))
    made = [factories.make_key(app=app) for _ in range(KEYS)]
    revoked, kept = made[: KEYS // 2], made[KEYS // 2 :]

    async def run() -> tuple[Counter[str], Counter[str]]:
        calls = await open_streams(roomy_server.port, [key for _, key in made], STREAMS)
        assert not any(call.answered.done() for _, call in calls)
        await asyncio.to_thread(revoke_all, [api_key for api_key, _ in revoked])
        keys = {key for _, key in revoked}
        ended = await asyncio.wait_for(asyncio.gather(*(call.answered for key, call in calls if key in keys)), 60)
        assert not any(call.answered.done() for key, call in calls if key not in keys)
        await ask_upstream(upstream, "POST /release")
        whole = await asyncio.wait_for(asyncio.gather(*(call.answered for key, call in calls if key not in keys)), 60)
        for _, call in calls:
            call.connection.transport.abort()
        return Counter(map(end_of, ended)), Counter(map(end_of, whole))

    ended, whole = asyncio.run(run())
    assert ended == {"revoked": STREAMS // 2}
    assert whole == {"done": STREAMS // 2}
    assert outcomes_of([api_key for api_key, _ in revoked]) == {"terminated": STREAMS // 2}
    assert outcomes_of([api_key for api_key, _ in kept]) == {"complete": STREAMS // 2}


def revoke_all(keys: list[ApiKey]) -> None:
    for api_key in keys:
        api_key.revoke(by="test", reason="")
        broadcast_revocation(api_key, terminate_streams=True)


def end_of(answer: Answer | BenchError) -> str:
    if isinstance(answer, BenchError):
        return f"nothing: {answer}"
    if answer.body.endswith(b"data: [DONE]\n\n") and answer.body.count(b"loopback") == 2:
        return "done"
    return "revoked" if b'"revoked_api_key"' in answer.body else answer.body[-200:].decode()


def outcomes_of(keys: list[ApiKey]) -> Counter[str]:
    return Counter(UsageRecord.objects.filter(key__in=keys).values_list("outcome", flat=True))


def test_a_provider_that_stalls_holds_up_nobody_else(roomy_server: Server, provider: FakeProvider) -> None:
    stalled, answered = make_app_key(provider, "never"), make_app_key(provider)
    request = traffic.request(PATH, {"messages": [{"role": "user", "content": "hello"}]}, key=stalled)

    async def run() -> list[int]:
        calls = []
        for _ in range(STALLED):
            calls.append(Call(await connect(roomy_server.port), request))
        await wait_until_asked(provider, STALLED)
        statuses = await asyncio.to_thread(lambda: [roomy_server.ask(answered).status_code for _ in range(50)])
        assert not any(call.answered.done() for call in calls)
        for call in calls:
            call.connection.transport.abort()
        return statuses

    assert asyncio.run(run()) == [200] * 50
    wait_for(
        lambda: UsageRecord.objects.filter(app__model="never", outcome="cancelled").count() >= STALLED,
        "those who left are in the ledger",
        seconds=60,
    )


async def wait_until_asked(provider: FakeProvider, count: int) -> None:
    deadline = asyncio.get_running_loop().time() + 60
    while len(provider.calls) < count:
        assert asyncio.get_running_loop().time() < deadline, len(provider.calls)
        await asyncio.sleep(0.05)
