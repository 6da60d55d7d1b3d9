"""The jobs' worker in conditions that a test cannot wait for: `python -m tests.support.jobs_process NAME`."""

import asyncio
import contextlib
import os
import signal
import sys
from typing import Any

from django.core.management import execute_from_command_line


def deaf() -> None:
    """Ask it to end while it registers, and lose the cancellation there, as `asyncio.wait_for` can."""
    from fastgpt_site.management.commands import jobs

    class DeafConnector(jobs.PsycopgConnector):  # type: ignore[misc, name-defined]
        async def execute_query_one_async(self, query: Any, **arguments: Any) -> Any:
            os.kill(os.getpid(), signal.SIGTERM)
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.5)
            return await super().execute_query_one_async(query, **arguments)

    jobs.PsycopgConnector = DeafConnector


def hurried() -> None:
    """Let it wait for its jobs for a second, and for its threads for three."""
    from fastgpt_site.management.commands import jobs

    jobs.DRAIN_SECONDS, jobs.END_SECONDS = 1, 3


if __name__ == "__main__":
    os.environ["DJANGO_SETTINGS_MODULE"] = "fastgpt_site.settings"
    import django

    django.setup()
    {"deaf": deaf, "hurried": hurried}[sys.argv[1]]()
    execute_from_command_line(["manage.py", "jobs"])
