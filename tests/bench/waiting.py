"""Waits for programs that do not say when they are ready."""

import socket
import time

from tests.bench.load import BenchError
from tests.bench.machine import Process

START_SECONDS = 120


def wait_for_port(process: Process, port: int) -> None:
    """Return when `process` accepts connections. Raises BenchError if it ends or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if process.has_ended():
                raise BenchError(f"it ended with {process.popen.returncode} while starting") from None
            if time.monotonic() > deadline:
                raise BenchError(f"it did not listen within {START_SECONDS} s") from None
            time.sleep(0.1)
        else:
            return
