"""The server under attack, the people on it, and the bystanders who only want their answers meanwhile."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Any

from tests.attack.proxies import running_proxy
from tests.bench import machine
from tests.bench.gateway import Gateway, running_gateway
from tests.bench.machine import Process
from tests.bench.upstream import MODEL

CHAT = "/api/v1/chat/completions"
LIST = "/api/core/dataset/list"
LOGIN = "/admin/login/"
# A file of some 20 KB that anybody may read.
STATIC = "/static/admin/css/base.css"
PROXY = "127.0.0.9"
BYSTANDER = "127.0.3.1"
# The settings that the server has; all others are the defaults.
SETTINGS = {"ENV_FILE": os.devnull, "TRUSTED_PROXIES": f"{PROXY}/32,127.0.0.1/32"}
# An attacker has a few addresses, and never that of a bystander.
addresses = (f"127.1.{number // 250}.{number % 250 + 1}" for number in itertools.count(1))


@dataclass
class Target:
    """One server, with two teams: what the first has, the second may not even know of."""

    gateway: Gateway
    keys: dict[str, str] = field(default_factory=dict)
    # Of the second team, by the name of the field that a request has it in.
    foreign: dict[str, str] = field(default_factory=dict)
    app_id: str = ""
    # Of the server, or of the proxy in front of it.
    port: int = 0

    def rss_mib(self) -> float:
        return self.gateway.process.memory().rss / 1024

    def connect(self, address: str, *, slow: bool = False) -> socket.socket:
        """Open a connection. A slow reader's system takes little for it."""
        connection = socket.socket()
        if slow:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(10)
        try:
            connection.bind((address, 0))
            connection.connect(("127.0.0.1", self.port))
        except OSError:
            connection.close()
            raise
        return connection

    def ask(
        self, method: str, path: str, key: str | None = None, body: bytes | None = None, *, address: str, **headers: str
    ) -> tuple[int, bytes]:
        """Return the status and the body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30, source_address=(address, 0))
        sent = {
            "Content-Type": "application/json",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        if key:
            sent["Authorization"] = f"Bearer {key}"
        try:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


@contextmanager
def running_target(behind: str | None = None) -> Iterator[Target]:
    for name in list(os.environ):
        # Nothing of a developer's shell reaches the server.
        if name in {"DATABASE_URL", "DATABASE_DIRECT_URL", "HTTPS", "ALLOWED_HOSTS"}:
            del os.environ[name]
    os.environ |= SETTINGS
    cores = machine.cores()
    machine.raise_file_limit()
    os.sched_setaffinity(0, {cores.rest})
    upstream = Process([sys.executable, "-m", "tests.bench.upstream"], core=cores.rest)
    try:
        with running_gateway(cores, int(upstream.read_line())) as gateway:
            target = Target(gateway, port=gateway.port)
            _seed(target)
            with ExitStack() as stack:
                if behind:
                    target.port = stack.enter_context(running_proxy(behind, gateway.port))
                yield target
    finally:
        upstream.stop()


def _seed(target: Target) -> None:
    from datetime import timedelta

    from django.utils import timezone

    from apikeys.teams import Team
    from chat.models import App
    from tests.support import factories

    team = Team.objects.get(name="Bench")
    app = App.objects.get(name="Bench")
    other = factories.make_team()
    other_app = factories.make_app(other, model=MODEL)
    dataset = factories.make_dataset(other)
    collection = factories.make_collection(dataset)
    revoked, revoked_key = factories.make_key(app=app)
    revoked.revoke(by="attack", reason="attack")
    target.app_id = app.pk
    target.keys = {
        "app key": target.gateway.key,
        "busy app key": factories.make_key(app=app)[1],
        "global key": factories.make_key(team)[1],
        "global key that may name an app": factories.make_key(team, can_name_app=True)[1],
        "revoked key": revoked_key,
        "expired key": factories.make_key(app=app, expires_at=timezone.now() - timedelta(days=1))[1],
        "key of one network": factories.make_key(team, allowed_networks=["203.0.113.0/24"])[1],
        "unknown key": target.gateway.unknown_keys(1)[0],
        "foreign app key": factories.make_key(app=other_app)[1],
    }
    target.foreign = {
        "appId": other_app.pk,
        "datasetId": dataset.pk,
        "id": dataset.pk,
        "collectionId": collection.pk,
        "parentId": collection.pk,
    }


class Bystanders:
    """Two who ask all the while, each on a connection of its own: for a completion, and for /healthz."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.latencies: dict[str, list[float]] = {CHAT: [], "/healthz": []}
        self.failures: list[str] = []
        self.peak_mib = target.rss_mib()
        self._is_over = threading.Event()

    def __enter__(self) -> Bystanders:
        watched = [threading.Thread(target=self._ask, args=(path,), daemon=True) for path in self.latencies]
        self._threads = [*watched, threading.Thread(target=self._watch_memory, daemon=True)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(60)

    def p99_ms(self, path: str) -> float:
        latencies = self.latencies[path]
        return quantiles(latencies, n=100)[98] * 1000 if len(latencies) > 1 else float("inf")

    def _ask(self, path: str) -> None:
        body = json.dumps({"messages": [{"role": "user", "content": "hi"}]})
        headers = {"Authorization": f"Bearer {self.target.keys['app key']}", "Content-Type": "application/json"}
        while not self._is_over.is_set():
            connection = http.client.HTTPConnection(
                "127.0.0.1", self.target.port, timeout=30, source_address=(BYSTANDER, 0)
            )
            with suppress(OSError, http.client.HTTPException):
                connection.connect()
                while not self._is_over.wait(0.02):
                    started = time.perf_counter()
                    try:
                        if path == CHAT:
                            connection.request("POST", path, body, headers)
                        else:
                            connection.request("GET", path)
                        response = connection.getresponse()
                        response.read()
                    except (OSError, http.client.HTTPException) as error:
                        self.failures.append(f"{path}: {type(error).__name__}")
                        raise
                    self.latencies[path].append(time.perf_counter() - started)
                    if response.status != 200:
                        self.failures.append(f"{path}: {response.status}")
            connection.close()

    def _watch_memory(self) -> None:
        while not self._is_over.wait(0.2):
            self.peak_mib = max(self.peak_mib, self.target.rss_mib())


@contextmanager
def closing_all() -> Iterator[Any]:
    """Give a function that keeps a connection until the end of the block."""
    with ExitStack() as stack:
        yield stack.enter_context
