"""Run the background jobs, which `serve` and `quickstart` do by themselves."""

import asyncio
from typing import Any

from django.core.management.base import BaseCommand
from procrastinate.contrib.django import app
from procrastinate.jobs import DeleteJobCondition
from procrastinate.psycopg_connector import PsycopgConnector

from apikeys import database, outbound
from apikeys.jobs import HEARTBEAT_SECONDS, SILENCE_SECONDS

# A receiver that does not answer holds one of these for ten seconds.
CONCURRENCY = 16
# How long jobs in hand may take when the worker is to end; then they are cut off, and run again later.
DRAIN_SECONDS = 12


class Command(BaseCommand):
    help = "Run the background jobs until Ctrl-C or SIGTERM. `serve` starts this unless told --no-jobs."

    def handle(self, *args: Any, **options: Any) -> None:
        # A worker listens, and so needs the database itself, not a transaction pooler.
        connector = PsycopgConnector(kwargs=database.parameters(direct=True), min_size=1, max_size=4)
        with app.replace_connector(connector):
            asyncio.run(work())


async def work() -> None:
    try:
        async with app.open_async():
            await app.run_worker_async(
                concurrency=CONCURRENCY,
                update_heartbeat_interval=HEARTBEAT_SECONDS,
                stalled_worker_timeout=SILENCE_SECONDS,
                shutdown_graceful_timeout=DRAIN_SECONDS,
                # What failed for good is in the log.
                delete_jobs=DeleteJobCondition.ALWAYS,
            )
    finally:
        await outbound.close()
