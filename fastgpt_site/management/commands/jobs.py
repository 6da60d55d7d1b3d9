"""Run the background jobs, which `serve` and `quickstart` do by themselves."""

import asyncio
import faulthandler
import signal
from typing import Any

from django.core.management.base import BaseCommand
from procrastinate.contrib.django import app
from procrastinate.jobs import DeleteJobCondition
from procrastinate.psycopg_connector import PsycopgConnector
from procrastinate.worker import Worker

from apikeys.hot_path import connections
from apikeys.outbound import client, sites
from apikeys.worker import HEARTBEAT_SECONDS, SILENCE_SECONDS

# So many jobs of each queue run at the same time, so that long ones of one kind do not hold up the others. A receiver
# that does not answer holds one of the first for ten seconds, a provider of embeddings one of the second for a minute;
# each of the third may take a core and a gigabyte.
CONCURRENCY = {"default": 16, "embed": 8, "import": 2}
# Jobs in hand may take so long when the worker is to end; then they are cut off, and run again later.
DRAIN_SECONDS = 12
# A thread cannot be cut off. When one holds up the end, the process ends without it after so long, as by `kill -9`.
END_SECONDS = 18


class Command(BaseCommand):
    help = "Run the background jobs until Ctrl-C or SIGTERM. `serve` starts it unless given --no-jobs."

    def handle(self, *args: Any, **options: Any) -> None:
        # A worker listens, and so needs the database itself, not a transaction pooler.
        connector = PsycopgConnector(
            kwargs=connections.parameters(direct=True), min_size=1, max_size=2 * len(CONCURRENCY)
        )
        with app.replace_connector(connector):
            asyncio.run(work())


async def work() -> None:
    try:
        async with app.open_async():
            await run_workers()
    finally:
        await client.close()
        await sites.close()


async def run_workers() -> None:
    # When one of the workers ends, so do the others.
    workers = [make_worker(queue) for queue in CONCURRENCY]
    runs = [asyncio.create_task(worker.run()) for worker in workers]  # type: ignore[no-untyped-call]
    is_stopping = False

    def stop() -> None:
        nonlocal is_stopping
        if is_stopping:
            return
        is_stopping = True
        # It prints where each thread is, and needs neither the event loop nor the interpreter's lock.
        faulthandler.dump_traceback_later(END_SECONDS, exit=True)
        # A cancellation instead could be lost: `asyncio.wait_for`, in which every connection waits, drops one that
        # arrives together with what it waits for.
        for worker in workers:
            worker.stop()  # type: ignore[no-untyped-call]

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    await asyncio.wait(runs, return_when=asyncio.FIRST_COMPLETED)
    stop()
    for outcome in await asyncio.gather(*runs, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


def make_worker(queue: str) -> Worker:
    options: dict[str, Any] = {
        "queues": [queue],
        "concurrency": CONCURRENCY[queue],
        "update_heartbeat_interval": HEARTBEAT_SECONDS,
        "stalled_worker_timeout": SILENCE_SECONDS,
        "shutdown_graceful_timeout": DRAIN_SECONDS,
        "install_signal_handlers": False,
        # A job that failed for good is in the log.
        "delete_jobs": DeleteJobCondition.ALWAYS,
    }
    # The defaults close Django's connections around each job.
    return Worker(app, **{**app.worker_defaults, **options})
