"""Fixtures of most tests: a real database that keeps what is committed, a real server, a scripted provider."""

import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from django.conf import settings
from django.contrib import admin
from django.db import connection
from django.utils import timezone, translation

from apikeys.access.rules import EndpointRule
from tests.environment import PROJECT, copy_data_dir, installation, temporary_data_dir
from tests.support.fake_provider import FakeProvider
from tests.support.processes import end, wait_for

# Tests import the admin's classes in any order. Those of other apps, which they replace, come first.
admin.autodiscover()
# Users of tests need no slow password hash.
settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
logging.getLogger("httpx2").setLevel(logging.WARNING)

# They are short, so that a test of one does not take long.
SERVER_SETTINGS = {
    "OUTBOUND_ALLOWED_NETWORKS": "127.0.0.0/8",
    "TRUSTED_PROXIES": "127.0.0.9/32",
    "CORS_ALLOWED_ORIGINS": "https://chat.example",
    "API_BODY_SECONDS": "2",
    "STREAM_STALL_SECONDS": "2",
}
# The files that take longest, from half a minute on, begin first, so that at the end no process works alone at one.
LONG_FILES = [
    *("e2e/test_accessibility.py", "commands/test_quickstart.py", "api/test_limits.py", "commands/test_jobs.py"),
    *("commands/test_jobs_import.py", "api/test_database_outage.py", "commands/test_migrate.py"),
    *("e2e/test_languages.py", "commands/test_serve.py", "unit/datasets/conversion/test_items.py"),
    *("commands/test_backup.py", "e2e/test_content_policy.py", "e2e/test_datasets.py", "e2e/test_dashboard.py"),
    *("api/test_collection_create_local_file.py", "api/test_completions_provider.py"),
    *("api/test_completions_leaving.py", "commands/test_apikey_revoke.py", "api/test_completions_bad_input.py"),
    *("admin/test_dashboard.py", "unit/datasets/conversion/test_chunks.py", "api/test_policy.py"),
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {PROJECT / "tests" / name: rank for rank, name in enumerate(LONG_FILES)}
    assert all(path.exists() for path in ranks)
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@dataclass
class Server:
    """A server process, and how to speak to it."""

    process: subprocess.Popen[bytes]
    port: int
    log_path: Path
    client: httpx2.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx2.Client(base_url=self.url, timeout=30, trust_env=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.url}/api"

    def request(self, method: str, path: str, key: str | None = None, **options: Any) -> httpx2.Response:
        headers = dict(options.pop("headers", {}))
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        return self.client.request(method, path, headers=headers, **options)

    def get(self, path: str, key: str | None = None, **options: Any) -> httpx2.Response:
        return self.request("GET", path, key, **options)

    def post(self, path: str, key: str | None = None, **options: Any) -> httpx2.Response:
        return self.request("POST", path, key, **options)

    def ask(self, key: str, question: str = "hello", **body: Any) -> httpx2.Response:
        """Ask for a completion."""
        messages = body.pop("messages", [{"role": "user", "content": question}])
        return self.post("/api/v1/chat/completions", key, json={"messages": messages, **body})

    def log(self) -> str:
        return self.log_path.read_text()

    def is_up(self) -> bool:
        try:
            return self.client.get("/healthz").status_code < 500
        except httpx2.TransportError:
            return False

    def is_ready(self) -> bool:
        """Return whether every part is there but the jobs' worker, which only tests of jobs start."""
        parts = self.get("/readyz").json()["parts"]
        return all(state == "ok" for name, state in parts.items() if name != "jobs")


@contextmanager
def running_server(
    log_path: Path, changes: Mapping[str, str] | None = None, *, is_ready: bool = True
) -> Iterator[Server]:
    """Run one server process of the project on the test database, with a port of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    descriptor = listener.fileno()
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "fastgpt_site.settings",
        **SERVER_SETTINGS,
        **(changes or {}),
    }
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.server_process", str(descriptor)],
            cwd=PROJECT,
            env=environment,
            stderr=log,
            pass_fds=[descriptor],
        )
        server = Server(process, listener.getsockname()[1], log_path)
        listener.close()
        try:
            wait_for(server.is_up, "the server", seconds=30)
            if is_ready:
                wait_for(server.is_ready, "ready: " + server.get("/readyz").text, seconds=10)
            yield server
        finally:
            server.client.close()
            end(process)


@pytest.fixture
def installed_data_dir() -> Iterator[Path]:
    """Make a data folder for tests of what comes after the first start."""
    with temporary_data_dir() as path:
        copy_data_dir(installation(), path)
        yield path


@pytest.fixture(scope="session")
def django_db_setup() -> None:
    """Make no test database: the session has a cluster of its own, in which the usual one is as good."""


@pytest.fixture(scope="session", autouse=True)
def database(django_test_environment: None, django_db_blocker: Any) -> Iterator[None]:
    """Open the database to every test. Their writes are committed, so that server processes see them."""
    with django_db_blocker.unblock():
        # Tests that go past Django find it started.
        connection.ensure_connection()
        yield
        close_batchers()


@pytest.fixture(scope="module", autouse=True)
def no_rule_stays(database: None) -> Iterator[None]:
    """Rules hold for the whole site, so one that a module leaves would close an endpoint to the tests of another."""
    yield
    EndpointRule.objects.all().delete()


@pytest.fixture(autouse=True)
def no_visitor_stays() -> Iterator[None]:
    """Forget the language and the time zone of whoever a page was rendered for."""
    yield
    translation.deactivate()
    timezone.deactivate()


def close_batchers() -> None:
    """End the connections and threads that tests began in this process."""
    from datasets.search.retrieval import readers
    from fastgpt_site.process.lifespan import BATCHERS

    async def close() -> None:
        await asyncio.gather(*(batcher.close() for batcher in BATCHERS))

    asyncio.run(close())
    readers.close()


@pytest.fixture(scope="session")
def server(database: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("server") / "log") as server:
        yield server


@pytest.fixture(scope="module")
def new_server(database: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that has refused nobody yet: of refusals without a key, it keeps only the first of each minute whole."""
    with running_server(tmp_path_factory.mktemp("server") / "log") as server:
        yield server


@pytest.fixture(scope="session")
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as provider:
        yield provider
