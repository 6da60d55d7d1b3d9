"""How jobs are tried again, and how those of a dead worker are rescued."""

from __future__ import annotations

import asyncio
import random

from procrastinate import BaseRetryStrategy, RetryDecision
from procrastinate.exceptions import UniqueViolation
from procrastinate.jobs import Job, Status
from procrastinate.manager import JobManager

HEARTBEAT_SECONDS = 5
# A worker that has said nothing for this long is missing, and its jobs are others' to run.
SILENCE_SECONDS = 30
# Eight attempts in about 23 hours: after 15 s, 1, 4, 16 minutes, 1, 4 and 17 hours.
FIRST_PAUSE_SECONDS = 15
PAUSE_FACTOR = 4
LONGEST_PAUSE_EXPONENT = 6


class BackOff(BaseRetryStrategy):
    """Try again ever later, and never all at one moment. When to give up is for the job itself to say."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision:
        # Only cut off by the worker's own end.
        if isinstance(exception, asyncio.CancelledError):
            return RetryDecision(retry_in={"seconds": 0})
        pause = FIRST_PAUSE_SECONDS * PAUSE_FACTOR ** min(job.attempts, LONGEST_PAUSE_EXPONENT)
        return RetryDecision(retry_in={"seconds": round(pause * random.uniform(0.9, 1.1))})  # noqa: S311


async def run_again(manager: JobManager, job: Job) -> None:
    try:
        await manager.retry_job(job)
    except UniqueViolation:
        # The same waits in the queue already: for this one to end, which it never would.
        await manager.finish_job(job, status=Status.FAILED, delete_job=True)
