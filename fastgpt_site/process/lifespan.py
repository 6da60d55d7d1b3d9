"""The life of a server process: what it starts before its first request, and ends after its last."""

import asyncio
import ctypes
import gc
import logging
from contextlib import suppress
from typing import Any

from django.db import connection

from apikeys.access import lookup
from apikeys.accounting import admission, refusals
from apikeys.accounting.recording import usage_batcher
from apikeys.hot_path import broadcasts, home_loop, servers
from apikeys.hot_path.listener import listener
from apikeys.outbound import client, sites
from chat import model_names, team_models
from chat.completions import app_snapshots, histories, recorder
from chat.responses import stored_answers
from chat.routing import circuits
from datasets.search import retrieval
from fastgpt_site.http.asgi_types import Receive, Send
from fastgpt_site.observability import metrics

logger = logging.getLogger(__name__)

BATCHERS = (
    lookup.policy_batcher,
    lookup.site_rules_batcher,
    admission.reserve_batcher,
    admission.release_batcher,
    refusals.batcher,
    app_snapshots.batcher,
    histories.batcher,
    team_models.batcher,
    circuits.batcher,
    model_names.batcher,
    recorder.batcher,
    stored_answers.batcher,
    usage_batcher,
)
DRAIN_SECONDS = 5.0
# A block of memory of this size, such as a large body, goes back to the system when it is freed.
LARGE_BLOCK_BYTES = 1024 * 1024
# The parameter of glibc's mallopt that says so.
M_MMAP_THRESHOLD = -3
# So many synchronous requests run at the same time. Each takes a thread and a database connection.
MAX_SYNC_REQUESTS = 32
# Connections of Django's threads: some are not of requests. Times are in seconds. While the database cannot be
# reached, each request tries again: the pool's own attempts come ever more seldom, so it must give them up soon.
POOL = {
    "min_size": 1,
    "max_size": MAX_SYNC_REQUESTS + 8,
    "timeout": 3.0,
    "reconnect_timeout": 1.0,
    "max_idle": 60.0,
}


async def run(receive: Receive, send: Send, open_requests: set[asyncio.Task[Any]]) -> None:
    measuring: asyncio.Task[None] | None = None
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            settle_memory()
            pool_connections()
            home_loop.adopt(asyncio.get_running_loop())
            broadcasts.start(asyncio.get_running_loop())
            measuring = asyncio.create_task(metrics.measure(BATCHERS, open_requests))
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            try:
                await shut_down(open_requests)
            finally:
                metrics.write_tallies()
            if measuring is not None:
                measuring.cancel()
            await send({"type": "lifespan.shutdown.complete"})
            return


def settle_memory() -> None:
    # Collections take a sixth of a request's time: they leave out what was imported, and come less often.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    # Once glibc has seen a large block, it keeps those that come after it for good. Other libraries have no such habit.
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)


def pool_connections() -> None:
    # Django's threads borrow their connections: to make one takes longer than most requests do.
    database = connection.settings_dict
    database["OPTIONS"] = {**database.get("OPTIONS", {}), "pool": POOL}
    # One that died in the pool is not given out, and none is kept past its request.
    database["CONN_HEALTH_CHECKS"], database["CONN_MAX_AGE"] = True, 0


async def shut_down(open_requests: set[asyncio.Task[Any]]) -> None:
    """Let requests that were cut off hand over their records, then write every record that is queued."""
    if open_requests:
        await asyncio.wait(set(open_requests), timeout=DRAIN_SECONDS)
    await client.close()
    await sites.close()
    await asyncio.gather(*(batcher.close() for batcher in BATCHERS))
    unwritten = recorder.batcher.queue_length + usage_batcher.queue_length
    if unwritten:
        logger.error("%d records could not be written before the end", unwritten)
    await asyncio.to_thread(retrieval.readers.close)
    await asyncio.to_thread(listener.stop)
    await asyncio.to_thread(servers.deregister)
    await asyncio.to_thread(connection.close_pool)  # type: ignore[attr-defined]
