"""Retries of jobs, and the rescue of those whose worker died."""

from __future__ import annotations

import asyncio
import random

from procrastinate import BaseRetryStrategy, RetryDecision
from procrastinate.exceptions import UniqueViolation
from procrastinate.jobs import Job, Status
from procrastinate.manager import JobManager

HEARTBEAT_SECONDS = 5
# A worker without a heartbeat for this long counts as dead, and others run its jobs.
SILENCE_SECONDS = 30
# These make eight attempts in about 23 hours: after 15 s, 1, 4, 16 minutes, 1, 4 and 17 hours.
FIRST_PAUSE_SECONDS = 15
PAUSE_FACTOR = 4
LONGEST_PAUSE_EXPONENT = 6


class BackOff(BaseRetryStrategy):
    """Retries with growing pauses, jittered so that jobs do not retry all at once. The job itself gives up."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision:
        # The job did not fail: its worker ended.
        if isinstance(exception, asyncio.CancelledError):
            return RetryDecision(retry_in={"seconds": 0})
        pause = FIRST_PAUSE_SECONDS * PAUSE_FACTOR ** min(job.attempts, LONGEST_PAUSE_EXPONENT)
        return RetryDecision(retry_in={"seconds": round(pause * random.uniform(0.9, 1.1))})  # noqa: S311


async def run_again(manager: JobManager, job: Job) -> None:
    try:
        await manager.retry_job(job)
    except UniqueViolation:
        # An equal job is queued already, and waits for this one to end, which it never would.
        await manager.finish_job(job, status=Status.FAILED, delete_job=True)
