"""The server under test with a data folder of its own: database, seed, process, and what it stored."""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import django

from fastgpt_site.process import supervisor
from tests.bench.load import BenchError
from tests.bench.machine import Cores, Process
from tests.bench.upstream import MODEL
from tests.environment import temporary_data_dir

START_SECONDS = 60
PATH = "/api/v1/chat/completions"


class Gateway:
    """One server process, which can be started anew on the same data."""

    process: Process
    port: int

    def __init__(self, core: int, key: str, limited_key: str, data_dir: Path, settings: Mapping[str, str]) -> None:
        self.core = core
        self.key = key
        self.limited_key = limited_key
        self.log_path = data_dir / "server.log"
        # `serve` makes its workers share their metrics through files, and so does one worker here.
        self.metrics_path = data_dir / "metrics"
        self.settings = settings

    def start(self) -> None:
        """Start the server as the project's own entry points do, alone on its core, and wait until it answers."""
        self.metrics_path.mkdir(exist_ok=True)
        environment = {**os.environ, **self.settings, "PROMETHEUS_MULTIPROC_DIR": str(self.metrics_path)}
        with supervisor.bind("127.0.0.1", 0) as listener, self.log_path.open("ab") as log:
            self.port = listener.getsockname()[1]
            command = [sys.executable, "-m", "fastgpt_site.process.worker", str(listener.fileno())]
            self.process = Process(
                command, core=self.core, descriptors=[listener.fileno()], log=log, environment=environment
            )
        deadline = time.monotonic() + START_SECONDS
        while not supervisor.responds("127.0.0.1", self.port, "/healthz"):
            if self.process.has_ended():
                raise BenchError(f"the server ended with {self.process.popen.returncode} while starting")
            if time.monotonic() > deadline:
                raise BenchError(f"the server did not answer within {START_SECONDS} s")
            time.sleep(0.1)

    def stop(self) -> None:
        if hasattr(self, "process"):
            self.process.stop()

    def restart(self) -> None:
        self.stop()
        self.start()

    def last_words(self) -> str:
        """The end of its log, without what merely tells of requests."""
        lines = self.log_path.read_text(errors="replace").splitlines() if self.log_path.exists() else []
        return "\n".join([line for line in lines if '"level":"info"' not in line][-20:])

    def stored(self) -> tuple[int, int]:
        """How many accepted requests the ledger knows, and how many messages are in conversations."""
        from apikeys.accounting.ledger import UsageRecord
        from chat.models import Message

        return UsageRecord.objects.count(), Message.objects.count()

    def unknown_keys(self, count: int) -> list[str]:
        """Well-formed keys with a right checksum that nobody was given."""
        from apikeys.keys import crypto

        return [crypto.generate() for _ in range(count)]


@contextmanager
def running_gateway(cores: Cores, upstream_port: int, settings: Mapping[str, str] | None = None) -> Iterator[Gateway]:
    """A server on a new database, with these settings besides the bench's own.

    Django runs in this process too, to seed the database and to read the ledger.
    """
    with temporary_data_dir() as data_dir:
        os.environ |= {"DATA_DIR": str(data_dir), "OUTBOUND_ALLOWED_NETWORKS": "127.0.0.0/8"}
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fastgpt_site.settings")
        django.setup()
        from django.core.management import call_command
        from django.db import connections

        try:
            # The first connection starts the database, which so inherits the core of this process.
            call_command("migrate", verbosity=0)
            gateway = Gateway(cores.server, *create_keys("Bench", upstream_port), data_dir, settings or {})
            try:
                gateway.start()
                yield gateway
            except BenchError:
                print("the server's last words:", gateway.last_words(), sep="\n", file=sys.stderr)
                raise
            finally:
                gateway.stop()
        finally:
            connections.close_all()


def create_keys(name: str, upstream_port: int) -> tuple[str, str]:
    """A team with one app on the upstream; the app's key, and another one with limits that are never reached."""
    from django.contrib.auth.models import User

    from apikeys.accounting.limits import Limit
    from apikeys.keys.models import ApiKey
    from apikeys.teams import Membership, Team
    from chat.catalog import CatalogModel, Provider
    from chat.models import App

    team = Team.objects.create(name=name)
    owner = User.objects.create_user(name.lower())
    Membership.objects.create(team=team, user=owner)
    base_url = f"http://127.0.0.1:{upstream_port}/v1"
    # Held streams are silent until all of them are open.
    provider = Provider.objects.create(team=team, name="Loopback", base_url=base_url, between_chunks_seconds=300)
    model = CatalogModel.objects.create(team=team, name=MODEL)
    model.routes.create(provider=provider, upstream_name=MODEL)
    app = App.objects.create(team=team, name=name, model=model, max_tokens=1000, history_length=6)
    _, plaintext = ApiKey.objects.create_key(team=team, owner=owner, name=name, app=app)
    limited, limited_plaintext = ApiKey.objects.create_key(team=team, owner=owner, name="Limited", app=app)
    for measure, period in (("requests", "minute"), ("tokens", "month")):
        Limit.objects.create(team=team, key=limited, measure=measure, period=period, amount=2**53)
    return plaintext, limited_plaintext
