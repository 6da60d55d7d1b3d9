"""The machine under the bench: which core does what, processes that end with us, and what they cost."""

import os
import platform
import resource
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.bench.load import BenchError
from tests.environment import PROJECT

STOP_SECONDS = 20
NEEDED_FILES = 4096
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cores:
    """One core for the server, another for everything else: load, upstream, database."""

    server: int
    rest: int


def cores() -> Cores:
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        raise BenchError("two cores are needed: one for the server, one for load, upstream and database")
    return Cores(server=available[0], rest=available[1])


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Run on `core` inside; what is started here inherits it from its first instruction on."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def raise_file_limit(needed: int = NEEDED_FILES) -> None:
    """1,000 streams need two sockets each in the server and one in the load generator and the upstream."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= needed or soft == resource.RLIM_INFINITY:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise BenchError(f"the limit of open files is {hard}; the bench needs {needed} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


@dataclass(frozen=True)
class Memory:
    """Kibibytes: resident, and resident with shared pages divided among who shares them."""

    rss: int
    pss: int


class Process:
    """A child on a core of its own, in a session of its own so that Ctrl-C reaches it only through us."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        core: int,
        descriptors: Sequence[int] = (),
        log: IO[bytes] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start it, with this bench's environment unless another one is given."""
        with pinned(core):
            self.popen = subprocess.Popen(
                arguments,
                cwd=PROJECT,
                env=environment,
                pass_fds=descriptors,
                stdin=subprocess.PIPE,
                stdout=log or subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def read_line(self) -> str:
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline().decode().strip()
        if not line:
            raise BenchError(f"{self.popen.args!r} ended with {self.popen.wait()} before it was ready")
        return line

    def has_ended(self) -> bool:
        return self.popen.poll() is not None

    def memory(self) -> Memory:
        lines = Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()[1:]
        kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
        return Memory(rss=kilobytes["Rss"], pss=kilobytes["Pss"])

    def cpu_seconds(self) -> float:
        """User and system time of all its threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that is not obeyed in time."""
        if self.popen.stdin:
            self.popen.stdin.close()
        if not self.has_ended():
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
        if self.popen.stdout:
            self.popen.stdout.close()


def core_busy_seconds(core: int) -> float:
    """How long `core` has been busy since boot, whoever kept it so."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *values = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, irq, softirq, steal = (int(value) for value in values[:8])
            return (user + nice + system + irq + softirq + steal) / _TICKS
    raise BenchError(f"/proc/stat does not know core {core}")


@dataclass(frozen=True)
class Used:
    """The load of both cores over a span of time, in fractions of one core, and the server's CPU seconds."""

    server: float
    # Strangers took this much of the server's core: it makes every figure worse than it is.
    taken: float
    rest: float
    cpu_seconds: float


class Usage:
    """Measures from where it is made to `used`."""

    def __init__(self, server: Process, cores: Cores) -> None:
        self.server, self.cores = server, cores
        self.started = time.perf_counter()
        self.before = self._now()

    def _now(self) -> tuple[float, float, float]:
        return self.server.cpu_seconds(), core_busy_seconds(self.cores.server), core_busy_seconds(self.cores.rest)

    def used(self) -> Used:
        seconds = time.perf_counter() - self.started
        server, its_core, rest = (now - before for now, before in zip(self._now(), self.before, strict=True))
        return Used(server / seconds, max(its_core - server, 0) / seconds, rest / seconds, server)


def describe() -> dict[str, object]:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_average_before": os.getloadavg()[0],
    }
