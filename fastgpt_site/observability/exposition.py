"""`/metrics`: the series of all server processes and of the database, and who may read them.

The server processes of one `serve` write files in a folder that the supervisor names to them, and whichever is asked
adds them all up. A process without a folder exposes its own. Its own series are exact, those of the others up to a
second old.
"""

import hmac
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
from django.conf import settings
from django.db import Error as DatabaseError
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from apikeys.accounting.reconciliation import Reconciliation
from apikeys.client_address import address_of
from apikeys.hot_path import servers
from apikeys.hot_path.servers import ServerProcess
from fastgpt_site.observability.metrics import logger, own, write_tallies


def server_processes() -> Iterator[Metric]:
    is_beating = Now() - timedelta(seconds=servers.SILENCE_SECONDS)
    alive = ServerProcess.objects.filter(heartbeat_at__gt=is_beating).count()
    yield GaugeMetricFamily("fastgpt_server_processes", "Server processes alive, on all machines.", alive)


def reconciliation() -> Iterator[Metric]:
    last = Reconciliation.objects.order_by("-pk").first()
    if last is not None:
        of = "of the last nightly reconciliation."
        yield GaugeMetricFamily("fastgpt_reconcile_limits", f"Counters compared {of}", last.limits)
        yield GaugeMetricFamily("fastgpt_reconcile_drifted", f"Counters that were wrong {of}", last.drifted)
        yield GaugeMetricFamily("fastgpt_reconcile_timestamp_seconds", f"Unix time {of}", last.at.timestamp())


# A scrape asks each in the thread that responds: the database knows these, and every process gives the same.
READ_FROM_DATABASE: tuple[Callable[[], Iterable[Metric]], ...] = (server_processes, reconciliation)


class FromDatabase(Collector):
    """Series from the database. All others are exposed while it cannot be reached, which is when they matter most."""

    def collect(self) -> Iterator[Metric]:
        try:
            for read in READ_FROM_DATABASE:
                yield from read()
        except (DatabaseError, psycopg.Error, OSError) as error:
            logger.warning("metrics: the database cannot be reached: %s", type(error).__name__)


class AllProcesses(MultiProcessCollector):
    """Leaves out a file that a process is just making: it is empty for a moment, and reading it then would fail."""

    def collect(self) -> Iterable[Metric]:
        files = [path for path in Path(self._path).glob("*.db") if has_begun(path)]
        return self.merge(files)  # type: ignore[no-untyped-call, no-any-return]


def has_begun(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:  # its process died, and it was taken away meanwhile
        return False


def make_registry() -> CollectorRegistry:
    made = CollectorRegistry()
    try:
        AllProcesses(made)  # type: ignore[no-untyped-call]
    except ValueError:  # no folder was named
        made = own
    made.register(FromDatabase())
    return made


registry = make_registry()


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    reason = refusal(request)
    if reason is not None:
        return HttpResponse(f"{reason}\n", status=403, content_type="text/plain; charset=utf-8")
    write_tallies()
    return HttpResponse(
        generate_latest(registry), content_type=CONTENT_TYPE_PLAIN_0_0_4, headers={"Cache-Control": "no-store"}
    )


def refusal(request: HttpRequest) -> str | None:
    if settings.METRICS_TOKEN:
        scheme, _, given = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        is_right = hmac.compare_digest(given.strip().encode(), settings.METRICS_TOKEN.encode())
        if scheme.lower() != "bearer" or not is_right:
            return "Send METRICS_TOKEN as: Authorization: Bearer <token>."
        return None
    address = address_of(request)
    if address is None or not address.is_loopback or is_forwarded(request):
        return "Without METRICS_TOKEN, only this machine may read the metrics."
    return None


def is_forwarded(request: HttpRequest) -> bool:
    # A proxy's word counts whether it is believed or not: a local one makes strangers look local.
    return any(
        name.startswith("HTTP_X_FORWARDED") or name in ("HTTP_FORWARDED", "HTTP_VIA", "HTTP_X_REAL_IP")
        for name in request.META
    )
