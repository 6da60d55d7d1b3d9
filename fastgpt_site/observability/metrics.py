"""Metrics of this process for Prometheus: responses counted as they end, gauges taken each second.

A metric of several processes takes some microseconds to move, so responses only add to plain sums. These are written
to the metrics each second, before a scrape, and at the end of the process.
"""

import asyncio
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from django.conf import settings
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    disable_created_metrics,
)

from apikeys.hot_path.group_commit import Batcher
from apikeys.hot_path.listener import listener
from apikeys.hot_path.trace import Trace
from fastgpt_site.observability.sums import InProgress, Observations, SummedHistogram

logger = logging.getLogger(__name__)

MEASURE_SECONDS = 1.0
DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)
FIRST_BYTE_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
# A response that nobody waited for any more before it had a status gets this one.
GONE = "gone"
# Paths outside the API are distinguished so. A label is never taken from a path, of which callers could invent any.
SITE_PARTS = frozenset({"admin", "healthz", "metrics", "readyz", "static"})
UNKNOWN_PATH = "unknown_path"

# Several processes together have none of these, so one has none either.
disable_created_metrics()  # type: ignore[no-untyped-call]
own = CollectorRegistry()
PER_KEY: bool = settings.METRICS_PER_KEY

REQUESTS = Counter(
    "fastgpt_requests",
    "Answers by endpoint and HTTP status.",
    ["endpoint", "status", "key_id"] if PER_KEY else ["endpoint", "status"],
    registry=own,
)
REFUSALS = Counter("fastgpt_refusals", "API errors by their codes.", ["error"], registry=own)
DURATION = SummedHistogram(
    "fastgpt_request_duration_seconds",
    "From the head of the request to the end of the response.",
    ["endpoint"],
    buckets=DURATION_BUCKETS,
    registry=own,
)
FIRST_BYTE = SummedHistogram(
    "fastgpt_time_to_first_byte_seconds",
    "From the request to the provider's first byte.",
    ["endpoint"],
    buckets=FIRST_BYTE_BUCKETS,
    registry=own,
)
TOKENS = Counter(
    "fastgpt_tokens", "Tokens charged, by kind and by the source of the count.", ["kind", "source"], registry=own
)
CACHE_HITS = Counter("fastgpt_cache_hits", "Look-ups answered from memory.", ["cache"], registry=own)
CACHE_MISSES = Counter("fastgpt_cache_misses", "Look-ups that asked the database.", ["cache"], registry=own)
QUEUE_LENGTH = Gauge(
    "fastgpt_batcher_queue_length",
    "Items that wait for the database.",
    ["batcher"],
    registry=own,
    multiprocess_mode="livesum",
)
OPEN_REQUESTS = Gauge("fastgpt_open_requests", "Requests being answered.", registry=own, multiprocess_mode="livesum")
OPEN_STREAMS = InProgress(
    Gauge("fastgpt_open_streams", "Streams being sent.", registry=own, multiprocess_mode="livesum")
)
LISTENER_LAG = Gauge(
    "fastgpt_listener_lag_seconds",
    "Since the listener of policy changes last received its own ping, in the worst process.",
    registry=own,
    multiprocess_mode="livemax",
)


class Tallies:
    """Responses that no metric knows yet. The keys are values of the metrics' labels."""

    __slots__ = ("durations", "first_bytes", "refusals", "requests", "tokens")

    def __init__(self) -> None:
        self.requests: defaultdict[tuple[str | int, ...], int] = defaultdict(int)
        self.refusals: defaultdict[str, int] = defaultdict(int)
        self.durations = defaultdict[str, Observations](partial(Observations, DURATION_BUCKETS))
        self.first_bytes = defaultdict[str, Observations](partial(Observations, FIRST_BYTE_BUCKETS))
        self.tokens: defaultdict[tuple[str, str], int] = defaultdict(int)


_tallies = Tallies()
# The event loop adds, and a scrape takes them away in a thread: between the two nothing is lost or counted twice.
_adding = threading.Lock()
_writing = threading.Lock()


def count_refusal(error_code: str) -> None:
    with _adding:
        _tallies.refusals[error_code] += 1


def observe(trace: Trace, path: str, status: int | None, *, is_api: bool) -> None:
    """Count a response that has ended. Every request pays for this: one or two microseconds."""
    endpoint = trace.endpoint or site_part(path, is_api=is_api)
    outcome = status or GONE
    labels = (endpoint, outcome, trace.key_id or "") if PER_KEY else (endpoint, outcome)
    usage = trace.usage
    with _adding:
        tallies = _tallies
        tallies.requests[labels] += 1
        tallies.durations[endpoint].add(time.monotonic() - trace.started)
        if trace.error_code is not None:
            tallies.refusals[trace.error_code] += 1
        if usage is None:
            return
        if usage.time_to_first_byte_ms is not None:
            tallies.first_bytes[endpoint].add(usage.time_to_first_byte_ms / 1000)
        if usage.token_source:
            tallies.tokens["prompt", usage.token_source] += usage.prompt_tokens
            tallies.tokens["completion", usage.token_source] += usage.completion_tokens


def write_tallies() -> None:
    """Write everything that was counted before this call to the metrics. Any thread may call it."""
    global _tallies
    # Who comes while another one writes must wait for it to finish, not only find nothing left to write.
    with _writing:
        with _adding:
            written, _tallies = _tallies, Tallies()
        for labels, count in written.requests.items():
            REQUESTS.labels(*labels).inc(count)
        for error_code, count in written.refusals.items():
            REFUSALS.labels(error_code).inc(count)
        for endpoint, durations in written.durations.items():
            DURATION.labels(endpoint).take_over(durations)
        for endpoint, first_bytes in written.first_bytes.items():
            FIRST_BYTE.labels(endpoint).take_over(first_bytes)
        for (kind, source), tokens in written.tokens.items():
            TOKENS.labels(kind, source).inc(tokens)
        OPEN_STREAMS.write()


def site_part(path: str, *, is_api: bool) -> str:
    """Return a name for a path without an endpoint: one of a handful, whatever the path."""
    if is_api:
        return "api"
    part = path[1:].partition("/")[0]
    return part if part in SITE_PARTS else UNKNOWN_PATH


class Followed:
    """A counter that keeps up with a number which only grows."""

    def __init__(self, counter: Counter, read: Callable[[], int]) -> None:
        self._counter = counter
        self._read = read
        self._counted = 0

    def keep_up(self) -> None:
        now = self._read()
        self._counter.inc(now - self._counted)
        self._counted = now


async def measure(batchers: Sequence[Batcher[Any, Any]], open_requests: set[asyncio.Task[Any]]) -> None:
    """Take over each second what this process keeps in plain numbers, until cancelled.

    It runs in the event loop, and not with the listener's ping, which stops when the database does.
    """
    queues = [(batcher, QUEUE_LENGTH.labels(batcher.name)) for batcher in batchers]
    followed = [
        Followed(counter.labels(snapshots.name), read)
        for snapshots in listener.caches
        for counter, read in (
            (CACHE_HITS, lambda snapshots=snapshots: snapshots.hits),
            (CACHE_MISSES, lambda snapshots=snapshots: snapshots.misses),
        )
    ]
    while True:
        write_tallies()
        OPEN_REQUESTS.set(len(open_requests))
        LISTENER_LAG.set(listener.lag)
        for batcher, length in queues:
            length.set(batcher.queue_length)
        for counter in followed:
            counter.keep_up()
        await asyncio.sleep(MEASURE_SECONDS)
