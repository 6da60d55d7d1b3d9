"""Real processes of the project, each on a data folder of its own, and ways to wait for what they do."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

from tests.environment import PROJECT

Result = TypeVar("Result")


def wait_for(condition: Callable[[], Result], what: str, seconds: float = 30.0) -> Result:
    """The condition's first true result; a failure that says `what` when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)


def environment(data_dir: Path, **variables: str) -> dict[str, str]:
    """Nothing of the developer's shell but where programs lie."""
    return {"PATH": os.environ["PATH"], "ENV_FILE": os.devnull, "DATA_DIR": str(data_dir), **variables}


def manage(
    *arguments: str, data_dir: Path, seconds: float = 60.0, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a management command to its end."""
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=PROJECT,
        env=environment(data_dir, **variables),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


class Running:
    """A management command that runs, its output gathered as it comes."""

    def __init__(self, *arguments: str, data_dir: Path, **variables: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", *arguments],
            cwd=PROJECT,
            env=environment(data_dir, **variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self._threads = [
            threading.Thread(target=self._read, args=(self.process.stdout, self.out), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr, self.err), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _read(stream: IO[str], lines: list[str]) -> None:
        with stream:
            lines.extend(iter(stream.readline, ""))

    def wait_for_output(self, text: str, seconds: float = 60.0) -> None:
        def is_there() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"ended with code {self.process.returncode} before {text!r}:\n{self.all_output}")
            return text in "".join(self.out)

        wait_for(is_there, f"{text!r} in the output", seconds)

    def wait(self, seconds: float = 30.0) -> int:
        """The exit code, when all output has been read."""
        code = self.process.wait(seconds)
        for thread in self._threads:
            thread.join(seconds)
        return code

    def end(self, number: signal.Signals = signal.SIGTERM, seconds: float = 30.0) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait(seconds)

    @property
    def all_output(self) -> str:
        return "".join(self.out) + "".join(self.err)


@contextmanager
def running(*arguments: str, data_dir: Path, **variables: str) -> Iterator[Running]:
    command = Running(*arguments, data_dir=data_dir, **variables)
    try:
        yield command
    finally:
        command.end()


def processes_of(data_dir: Path, containing: str = "") -> dict[int, str]:
    """Live processes that work on a data folder, by id, with their command line."""
    found = {}
    marker = os.fsencode(data_dir)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            if not command:
                continue  # a zombie
            belongs = marker in command or marker in (entry / "environ").read_bytes()
            belongs = belongs or os.fsencode(os.readlink(entry / "cwd")).startswith(marker)
        except OSError:
            continue
        line = command.replace(b"\0", b" ").decode(errors="replace")
        if belongs and containing in line:
            found[int(entry.name)] = line
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def get(port: int, path: str) -> tuple[int, bytes]:
    """Status and body; (0, b"") while nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()
