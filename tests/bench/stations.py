"""Where the server's CPU time for a request goes, by the stations of its road: sampled by py-spy, not instrumented."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from asyncio.subprocess import DEVNULL
from collections import Counter
from pathlib import Path

from tests.bench import traffic
from tests.bench.gateway import PATH
from tests.bench.ground import Ground
from tests.bench.load import Traffic
from tests.bench.machine import Usage
from tests.bench.report import Row

SECONDS = 10
SAMPLES_A_SECOND = 500
# At fewer the server waits now and then, which a sampler cannot tell from work.
CONNECTIONS = 64
# The innermost function of these on the stack says where a sample was taken; the file's end, then the function's name.
STATIONS = {
    "read the request": ["http/connection.py", "http/heads.py", "http/bodies.py", "http/request_body.py"],
    "authenticate": ["access/authentication.py", "access/lookup.py", "keys/crypto.py"],
    "decide": ["access/permissions.py", "access/policy.py", "rest_framework/views.py:check_permissions"],
    "read the body, pick the app": [
        "completions/request.py",
        "completions/body_text.py",
        "api/bodies.py",
        "completions/app_selection.py",
    ],
    "read history": ["completions/histories.py"],
    "reserve": ["accounting/admission.py", "accounting/metered.py:_reserve"],
    # Calls and answers alike: see the outbox.
    "send": ["apikeys/outbound/outbox.py"],
    "call the provider": [
        *("completions/provider_calls.py", "completions/provider_answers.py", "chat/routing/"),
        "apikeys/outbound/",
    ],
    "record": [
        *("accounting/metered.py", "completions/recorder.py", "accounting/recording.py"),
        *("hot_path/group_commit.py", "hot_path/statements.py"),
    ],
    "answer": [
        *("http/responses.py:send_answer", "http/responses.py:_own_headers", "api/completions.py:build_body"),
        *("http/exchange.py:answer", "http/exchange.py:begin", "http/exchange.py:write"),
    ],
    "log and count": ["http/access_log.py", "observability/logs.py", "observability/metrics.py", "responses.py:end"],
}
ELSEWHERE = "all between, and the event loop"


async def stations(ground: Ground) -> list[Row]:
    """Microseconds of the server's CPU time for a request at each station, without limits and with them."""
    gateway = ground.gateway
    rows = []
    for name, key, prefix in (
        ("", gateway.key, ""),
        (", with limits", gateway.limited_key, ""),
        (", with chatId", gateway.key, ground.chat_prefix()),
    ):
        load = traffic.completions(gateway.port, PATH, key=key, chat_prefix=prefix)
        for station, microseconds in (await _sampled(ground, load)).items():
            rows.append(Row(f"{station}{name}", f"{CONNECTIONS} connections", "us", microseconds))
    return rows


async def _sampled(ground: Ground, load: Traffic) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        stacks = Path(folder) / "stacks"
        command = [
            *(str(Path(sys.executable).with_name("py-spy")), "record", "--pid", str(ground.gateway.process.pid)),
            *("--duration", str(SECONDS), "--rate", str(SAMPLES_A_SECOND), "--format", "raw", "--output", str(stacks)),
        ]
        # Without it first: the sampler stops the server for each sample, and the time is not the server's.
        usage = Usage(ground.gateway.process, ground.cores)
        done = await ground.load(load, CONNECTIONS)
        each = ground.used(usage).cpu_seconds / done.completed * 1e6
        sampler = await asyncio.create_subprocess_exec(*command, stdout=DEVNULL, stderr=DEVNULL)
        await ground.load(load, CONNECTIONS, SECONDS + 1)
        await sampler.wait()
        counted = _count(stacks.read_text())
    total = sum(counted.values())
    return {station: each * counted[station] / total for station in (*STATIONS, ELSEWHERE)} | {"in all": each}


def _count(stacks: str) -> Counter[str]:
    counted: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        # Threads wait, and only the main one runs requests.
        if "(threading.py" not in stack:
            counted[_station_of(stack.split(";"))] += int(count)
    return counted


def _station_of(frames: list[str]) -> str:
    # A frame is `function (path:line)`.
    for frame in reversed(frames):
        function, _, place = frame.rpartition(" (")
        path = place.rpartition(":")[0]
        for station, patterns in STATIONS.items():
            for pattern in patterns:
                file, _, name = pattern.partition(":")
                if file in path and (not name or function.rpartition(".")[2] == name):
                    return station
    return ELSEWHERE
