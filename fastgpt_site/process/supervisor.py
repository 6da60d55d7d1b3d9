"""Starts the processes of a site, keeps them running, and ends them in order: jobs, server, model, database.

A child is in a session of its own, so that Ctrl-C in a terminal reaches only the supervisor, and the kernel
ends it when the supervisor is gone, however that died.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO

from fastgpt_site.postgres import cluster

PR_SET_PDEATHSIG = 1
POLL_SECONDS = 0.1
LONGEST_BACK_OFF = 30.0
# A child that lived this long starts its back-off from the beginning.
SETTLED_SECONDS = 60.0

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class StartError(Exception):
    """The site cannot be started. The message is for the person who started it."""


# Variables that say where things are, and are no secrets.
HARMLESS = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "DATA_DIR")


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM. Not an Exception, so that nothing on the way handles it."""


@dataclass
class Child:
    """A process that is started again when it ends by itself."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    stop_seconds: float
    descriptors: Sequence[int] = ()
    when_ended: Callable[[int], None] | None = None
    inherits: bool = True
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    failures: int = 0
    restart_at: float | None = field(default=None)

    def start(self) -> None:
        supervisor = os.getpid()

        def end_with_supervisor() -> None:
            if _libc is not None:
                _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != supervisor:
                os._exit(1)

        self.restart_at = None
        self.started_at = time.monotonic()
        inherited = {name: value for name, value in os.environ.items() if self.inherits or name in HARMLESS}
        self.process = subprocess.Popen(
            self.command,
            env={**inherited, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            pass_fds=self.descriptors,
            start_new_session=True,
            preexec_fn=end_with_supervisor,
        )

    @property
    def exit_code(self) -> int | None:
        return self.process.poll() if self.process else None

    def terminate(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.terminate()

    def kill(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Supervisor:
    """A context manager: leaving it, for whatever reason, stops all that was started in it."""

    def __init__(self, say: Callable[[str], None], data_dir: Path | None) -> None:
        # `data_dir` is None when the database is not the embedded one, which the supervisor then does not stop.
        self._say = say
        self.data_dir = data_dir
        self._children: list[Child] = []
        self._folders: list[Path] = []
        self._presence: IO[str] | None = None
        self._signals = 0
        self._is_deferring = False
        self._handlers: dict[int, signal.Handlers | Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> Supervisor:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Under nohup the end of the terminal is to be ignored.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                self._handlers[number] = signal.signal(number, self._on_signal)
        if self.data_dir:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            self._presence = (self.data_dir / "supervisors.lock").open("a")
            fcntl.flock(self._presence, fcntl.LOCK_SH)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._is_deferring = True
        # Children end in reverse order of their start; the workers are one group and drain side by side.
        for name in dict.fromkeys(child.name for child in reversed(self._children)):
            self._stop([child for child in self._children if child.name == name])
        self._remove_folders()
        if self.data_dir and self._is_last():
            if cluster.is_running(self.data_dir):
                self.say("Stopping the database.")
            cluster.stop(self.data_dir)
        if self._presence:
            self._presence.close()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        # The interrupted code may have failed in a way of its own, as a database transaction does.
        return self._signals > 0

    @contextlib.contextmanager
    def defer_signals(self) -> Iterator[None]:
        """Let a signal wait for the end of the block: a half-started child could not be found and stopped."""
        self._is_deferring = True
        try:
            yield
        finally:
            self._is_deferring = False
        if self._signals:
            raise Interrupted

    def say(self, line: str) -> None:
        # Whoever read this may be gone, as when a terminal is closed; the rest is to be stopped all the same.
        with contextlib.suppress(OSError):
            self._say(line)

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        stop_seconds: float = 5.0,
        descriptors: Sequence[int] = (),
        when_ended: Callable[[int], None] | None = None,
        inherits: bool = True,
    ) -> None:
        """Start a child. `when_ended` is called with its process id when it ended by itself, before it starts again.

        One that does not inherit gets no secret of this process.
        """
        child = Child(name, command, environment or {}, stop_seconds, descriptors, when_ended, inherits)
        self._children.append(child)
        with self.defer_signals():
            child.start()

    def temporary_folder(self, prefix: str) -> Path:
        """Make a folder that only this user may enter, removed when all children have ended."""
        with self.defer_signals():
            folder = Path(tempfile.mkdtemp(prefix=prefix))
            self._folders.append(folder)
        return folder

    def wait_until(self, is_ready: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
        """Raise StartError when a child ends first, or time runs out."""
        deadline = time.monotonic() + seconds
        while not is_ready():
            for child in self._children:
                if child.exit_code is not None:
                    raise StartError(
                        f"{child.name} ended with code {child.exit_code} while starting; the reason is above."
                    )
            if time.monotonic() > deadline:
                raise StartError(f"{what} did not answer within {seconds:.0f} seconds.")
            time.sleep(POLL_SECONDS)

    def watch(self) -> None:
        while True:
            for child in self._children:
                self._revive(child)
            time.sleep(POLL_SECONDS)

    def _revive(self, child: Child) -> None:
        now = time.monotonic()
        if child.restart_at is not None:
            if now >= child.restart_at:
                with self.defer_signals():
                    child.start()
        elif child.process and child.exit_code is not None:
            if child.when_ended:
                child.when_ended(child.process.pid)
            if now - child.started_at > SETTLED_SECONDS:
                child.failures = 0
            delay = min(0.5 * 2**child.failures, LONGEST_BACK_OFF)
            child.failures += 1
            child.restart_at = now + delay
            self.say(f"{child.name} ended with code {child.exit_code}; starting it again in {delay:g} s.")

    def _stop(self, children: Sequence[Child]) -> None:
        self.say(f"Stopping {children[0].name}.")
        for child in children:
            child.terminate()
        deadline = time.monotonic() + max(child.stop_seconds for child in children)
        while any(child.process and child.exit_code is None for child in children):
            if time.monotonic() > deadline:
                self.say(f"{children[0].name} did not stop in time and is killed.")
                break
            time.sleep(POLL_SECONDS / 2)
        for child in children:
            child.kill()

    def _remove_folders(self) -> None:
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)

    def _is_last(self) -> bool:
        # The last supervisor that leaves this data folder stops the database.
        if self._presence is None:
            return False
        try:
            fcntl.flock(self._presence, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1
        if self._signals == 1 and not self._is_deferring:
            raise Interrupted
        if self._signals > 1 and number == signal.SIGINT:
            for child in self._children:
                child.kill()
            self._remove_folders()
            if self.data_dir and self._is_last():
                cluster.request_stop(self.data_dir)
            os._exit(128 + signal.SIGINT)


def bind(host: str, port: int) -> socket.socket:
    """Return a bound socket that does not listen yet: clients are refused until a server is ready to answer."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise StartError(f"Cannot listen on {host} port {port}: {reason}. Choose another with --port.") from error
    return listener


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def responds(host: str, port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
