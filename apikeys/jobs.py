"""Background jobs, run by the worker of `manage.py jobs`, which `serve` and `quickstart` start.

The queue is in the database, so a job survives its worker. Those of a worker that died are run again.
"""

from __future__ import annotations

import logging

from asgiref.sync import sync_to_async
from django.conf import settings
from procrastinate import JobContext
from procrastinate.contrib.django import app
from procrastinate.exceptions import ConnectorException

from apikeys import retention
from apikeys.accounting import reconciliation
from apikeys.alerts import deliveries, expiry
from apikeys.statistics import leaders, rollup
from apikeys.worker import SILENCE_SECONDS, BackOff, run_again

logger = logging.getLogger(__name__)

# Cron expressions have minute, hour, day, month and weekday; a sixth field is the second.
SCHEDULE = {
    "queue_deliveries": "* * * * * */10",
    "rescue": "* * * * * */10",
    "statistics": "* * * * *",
    "expiry": "7 * * * *",
    "reconcile": "17 3 * * *",
    "prune": "41 3 * * *",
}


@app.periodic(cron=SCHEDULE["queue_deliveries"])
@app.task(name="queue_deliveries", lock="queue_deliveries")
async def queue_deliveries(timestamp: int) -> None:
    for delivery_id in await sync_to_async(deliveries.prepare)():
        # `prepare` recognizes by this lock that a delivery is under way.
        await deliver.configure(lock=delivery_id).defer_async(delivery_id=delivery_id)


@app.task(name="deliver", retry=BackOff())
async def deliver(delivery_id: str) -> None:
    await deliveries.attempt(delivery_id)


@app.periodic(cron=SCHEDULE["rescue"])
@app.task(name="rescue", pass_context=True)
async def rescue(context: JobContext, timestamp: int) -> None:
    manager = context.app.job_manager
    for job in await manager.get_stalled_jobs(seconds_since_heartbeat=SILENCE_SECONDS):
        try:
            await run_again(manager, job)
        except ConnectorException:
            # The job has ended in the meantime, or another worker was quicker.
            continue
        logger.warning("job %s (%s) of a dead worker runs again", job.id, job.task_name)


@app.periodic(cron=SCHEDULE["statistics"])
@app.task(name="statistics", lock="statistics", queueing_lock="statistics")
def roll_up(timestamp: int) -> None:
    # The first run reads the whole ledger. The queueing lock keeps later ones from piling up behind it.
    rollup.roll_up()
    leaders.recompute()


@app.periodic(cron=SCHEDULE["expiry"])
@app.task(name="expiry", lock="expiry")
def raise_expiry_alerts(timestamp: int) -> None:
    expiry.raise_alerts()


@app.periodic(cron=SCHEDULE["reconcile"])
@app.task(name="reconcile", lock="reconcile")
def reconcile(timestamp: int) -> None:
    reconciliation.reconcile_and_remember()


@app.periodic(cron=SCHEDULE["prune"])
@app.task(name="prune", lock="prune")
def prune(timestamp: int) -> None:
    # Refusals are pruned in any case; usage records only if RETENTION_DAYS limits how long their detail is kept.
    if settings.RETENTION_DAYS:
        retention.prune(settings.RETENTION_DAYS)
    else:
        retention.prune_refusals()
