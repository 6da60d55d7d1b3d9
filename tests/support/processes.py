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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

from tests.environment import PROJECT

Result = TypeVar("Result")
# A server and a worker of jobs end within less than half of this by themselves, on an idle machine.
END_SECONDS = 60.0


def wait_for(condition: Callable[[], Result], what: str, seconds: float = 120.0) -> Result:
    """Return the condition's first true result. Raise AssertionError, which says `what`, when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)


def end(process: subprocess.Popen[Any], seconds: float = END_SECONDS) -> None:
    """End a process by SIGTERM. One that does not end is killed, so that no other test meets it, and is a failure."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise AssertionError(f"not ended {seconds:g} s after SIGTERM, and killed: {process.args}") from None


@contextmanager
def ending(process: subprocess.Popen[Any]) -> Iterator[subprocess.Popen[Any]]:
    """Close the pipes of a process behind the block, and kill it if it still runs."""
    with process:
        try:
            yield process
        finally:
            process.kill()


def environment(data_dir: Path, **variables: str) -> dict[str, str]:
    """Return variables with nothing of the developer's shell but where programs lie."""
    return {"PATH": os.environ["PATH"], "ENV_FILE": os.devnull, "DATA_DIR": str(data_dir), **variables}


def manage(
    *arguments: str, data_dir: Path, seconds: float = 600.0, **variables: str
) -> subprocess.CompletedProcess[str]:
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
    """A management command, or another Python program, that runs, its output gathered as it comes."""

    def __init__(
        self, *arguments: str, data_dir: Path, program: Sequence[str] = ("manage.py",), **variables: str
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *program, *arguments],
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

    def wait_for_output(self, text: str, seconds: float = 120.0) -> None:
        def is_there() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"ended with code {self.process.returncode} before {text!r}:\n{self.all_output}")
            return text in "".join(self.out)

        wait_for(is_there, f"{text!r} in the output", seconds)

    def wait(self, seconds: float = END_SECONDS) -> int:
        """Return the exit code, when all output has been read."""
        code = self.process.wait(seconds)
        for thread in self._threads:
            thread.join(seconds)
        return code

    def end(self, number: signal.Signals = signal.SIGTERM, seconds: float = END_SECONDS) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait(seconds)

    def close(self) -> None:
        """End it, whatever state a test has left it in. Raise AssertionError when it had to be killed."""
        try:
            end(self.process)
        finally:
            for thread in self._threads:
                thread.join(END_SECONDS)

    @property
    def all_output(self) -> str:
        return "".join(self.out) + "".join(self.err)


@contextmanager
def running(*arguments: str, data_dir: Path, **variables: str) -> Iterator[Running]:
    command = Running(*arguments, data_dir=data_dir, **variables)
    try:
        yield command
    finally:
        command.close()


def processes_of(data_dir: Path, containing: str = "") -> dict[int, str]:
    """Return the live processes that work on a data folder, by id, with their command line."""
    found = {}
    marker = os.fsencode(data_dir)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            if not command:
                # It is a zombie.
                continue
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
    """Return status and body; (0, b"") while nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()
