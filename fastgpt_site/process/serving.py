"""The common part of `serve` and `quickstart`: options, migrations, and the server processes."""

from __future__ import annotations

import socket
import sys
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Mapping
from pathlib import Path

from django.conf import settings
from django.core.management import call_command
from django.db import connection, connections
from prometheus_client.multiprocess import mark_process_dead

from fastgpt_site import theme
from fastgpt_site.process import worker
from fastgpt_site.process.supervisor import Supervisor, responds

# This is an arbitrary number. It keeps two nodes that start at once from migrating side by side.
MIGRATION_LOCK = 0x66677074
# This is longer than the worker itself waits for the jobs that it has in hand.
JOBS_STOP_SECONDS = 20.0
WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="Address to listen on. Default: 127.0.0.1.")
    parser.add_argument(
        "--port", type=port, default=settings.PORT, help="Default: PORT, otherwise 8000. 0 is any free."
    )


def port(value: str) -> int:
    number = int(value)
    # The system would take the rest of a division for a larger one.
    if not 0 <= number <= 65535:
        raise ArgumentTypeError("a port is between 0 and 65535")
    return number


def embedded_data_dir() -> Path | None:
    """Return the folder of the project's own database; None when DATABASE_URL names another."""
    return None if settings.DATABASE_URL else settings.DATA_DIR


def announce(supervisor: Supervisor) -> None:
    """Say which version starts, before anything that may fail."""
    supervisor.say(theme.release())


def migrate(supervisor: Supervisor) -> None:
    supervisor.say("Starting the database and migrating it.")
    with supervisor.defer_signals():
        connection.ensure_connection()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
        try:
            call_command("migrate", interactive=False, stdout=sys.stderr, stderr=sys.stderr)
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [MIGRATION_LOCK])


def start_workers(
    supervisor: Supervisor, listener: socket.socket, count: int, environment: Mapping[str, str] | None = None
) -> None:
    """Return when the first of `count` server processes responds; all accept from the one listening socket."""
    connections.close_all()
    folder = str(supervisor.temporary_folder("fastgpt-metrics-"))

    def forget_gauges(process_id: int) -> None:
        # Its counts stay counted.
        mark_process_dead(process_id, folder)  # type: ignore[no-untyped-call]

    for _ in range(count):
        supervisor.start(
            "the server",
            [sys.executable, "-m", "fastgpt_site.process.worker", str(listener.fileno())],
            # prometheus_client reads the variable when it is imported; each process writes files of its own there.
            environment={**(environment or {}), "PROMETHEUS_MULTIPROC_DIR": folder},
            # Then come the records of requests that were cut off, and everything that is queued.
            stop_seconds=worker.DRAIN_SECONDS + 20,
            descriptors=[listener.fileno()],
            when_ended=forget_gauges,
        )
    host, number = listener.getsockname()[:2]
    supervisor.wait_until(lambda: responds(WILDCARDS.get(host, host), number, "/healthz"), "The server")


def start_jobs(supervisor: Supervisor, environment: Mapping[str, str] | None = None) -> None:
    # One worker of the background jobs is enough for any number of nodes; more share the work.
    supervisor.start(
        "the jobs",
        [sys.executable, str(settings.BASE_DIR / "manage.py"), "jobs"],
        environment=environment,
        stop_seconds=JOBS_STOP_SECONDS,
    )


def origin(listener: socket.socket) -> str:
    host, number = listener.getsockname()[:2]
    name = WILDCARDS.get(host, host)
    return f"http://[{name}]:{number}" if ":" in name else f"http://{name}:{number}"
