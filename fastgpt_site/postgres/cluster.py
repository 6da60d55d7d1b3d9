"""A PostgreSQL of the project's own on DATA_DIR/postgres, from the binaries of a wheel.

Several processes share it: whoever needs it first starts it, and it outlives them all until `stop` is called.
It listens on a unix socket inside its own folder only, and asks everyone for the password.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
from django.core.exceptions import ImproperlyConfigured
from psycopg import sql

from fastgpt_site.postgres import programs
from fastgpt_site.postgres.initialization import initialize, remove_drafts

PORT = 5432
USER = "postgres"
# sockaddr_un holds 108 bytes, the last of them zero.
LONGEST_SOCKET_PATH = 107
START_SECONDS = 60
STOP_SECONDS = 30

# These are given at each start and not written at initdb, so that a change here reaches folders that exist already.
# "." is the data folder: it may be moved, and its path needs no quoting.
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_directories": ".",
    "max_connections": "200",
    # A failed statement would carry what people wrote into the log.
    "log_min_error_statement": "panic",
    "log_checkpoints": "off",
}
# PostgreSQL's advice is a quarter of the memory. What it does not use of that, it does not take.
SMALLEST_BUFFERS, LARGEST_BUFFERS = 128 * 2**20, 4 * 2**30

_ensured: set[Path] = set()


def folder(data_dir: Path) -> Path:
    """Return where the cluster lies, which is also where its socket is."""
    return data_dir / "postgres"


def is_running(data_dir: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(_socket_path(data_dir)))
        except OSError:
            return False
    return True


def ensure(data_dir: Path, password: str, database: str | None) -> None:
    """Return when the server responds and `database`, if one is named, exists; make and start what is missing.

    This is cheap when this process has asked before and the server still listens.
    """
    if data_dir in _ensured and is_running(data_dir):
        return
    _refuse_long_path(data_dir)
    with _lock(data_dir):
        remove_drafts(data_dir)
        if not (folder(data_dir) / "PG_VERSION").exists():
            initialize(data_dir, folder(data_dir), USER, password)
        _start(data_dir, password)
        if database:
            _create_database(data_dir, password, database)
    _ensured.add(data_dir)


def stop(data_dir: Path) -> None:
    # A server that is still starting is ended too; its clients are disconnected.
    with _lock(data_dir):
        if _postmaster_pid(data_dir) is None:
            return
        result = programs.run(
            "pg_ctl", "stop", "-m", "fast", "-w", "-t", str(STOP_SECONDS), "-D", str(folder(data_dir))
        )
        if result.returncode != 0 and _postmaster_pid(data_dir) is not None:
            raise ImproperlyConfigured(f"PostgreSQL on {folder(data_dir)} did not stop: {result.stderr.strip()}")


def request_stop(data_dir: Path) -> None:
    """Ask the server to end and do not wait, not even for another process that starts or stops it."""
    pid = _postmaster_pid(data_dir)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)


def _socket_path(data_dir: Path) -> Path:
    return folder(data_dir) / f".s.PGSQL.{PORT}"


def _refuse_long_path(data_dir: Path) -> None:
    path = os.fsencode(_socket_path(data_dir))
    if len(path) > LONGEST_SOCKET_PATH:
        raise ImproperlyConfigured(
            f"The path of the data folder is too long: its socket {os.fsdecode(path)} has {len(path)} bytes, and the "
            f"operating system allows {LONGEST_SOCKET_PATH}. Set DATA_DIR to a shorter path."
        )


@contextlib.contextmanager
def _lock(data_dir: Path) -> Iterator[None]:
    # One process at a time makes, starts or stops the server. The kernel lets go when the holder dies.
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "postgres.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _start(data_dir: Path, password: str) -> None:
    # Another process may be starting, stopping or recovering the server meanwhile.
    deadline = time.monotonic() + START_SECONDS
    while (problem := _problem(data_dir, password)) is not None:
        if time.monotonic() > deadline:
            raise ImproperlyConfigured(f"PostgreSQL on {folder(data_dir)} did not start. {problem}")
        if _postmaster_pid(data_dir) is None:
            _launch(data_dir)
        time.sleep(0.05)


def _launch(data_dir: Path) -> None:
    # A failure of pg_ctl is final unless it met another server that is starting or ending.
    programs.make_reachable(data_dir)
    _forget_dead_server(data_dir)
    log = folder(data_dir) / "server.log"
    size = log.stat().st_size if log.exists() else 0
    settings = SETTINGS | {"shared_buffers": f"{_shared_buffers() // 1024}kB"}
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    result = programs.run(
        *("pg_ctl", "start", "-w", "-t", str(START_SECONDS), "-D", str(folder(data_dir)), "-o", options, "-l", str(log))
    )
    if result.returncode == 0:
        return
    reason = log.read_bytes()[size:].decode(errors="replace") if log.exists() else result.stderr
    if "already exists" not in reason and "still in use" not in reason:
        raise ImproperlyConfigured(
            f"PostgreSQL on {folder(data_dir)} did not start:\n{(reason or result.stderr).strip()}"
        )


def _problem(data_dir: Path, password: str) -> str | None:
    """Return why a connection is not possible yet; None when it is. Raise when waiting would not help."""
    if not is_running(data_dir):
        return "It does not listen."
    try:
        _connect(data_dir, password).close()
    except psycopg.OperationalError as error:
        if "password authentication failed" in str(error):
            raise ImproperlyConfigured(
                f"The database in {folder(data_dir)} has a different password than DATABASE_PASSWORD. "
                "Restore the secrets file that belongs to this data folder."
            ) from error
        return str(error)
    return None


def _connect(data_dir: Path, password: str) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(
        host=str(folder(data_dir)),
        port=PORT,
        user=USER,
        password=password,
        dbname="postgres",
        connect_timeout=10,
        autocommit=True,
    )


def _create_database(data_dir: Path, password: str, database: str) -> None:
    with _connect(data_dir, password) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database]).fetchone():
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))


def _recorded_pid(data_dir: Path) -> int | None:
    try:
        return int((folder(data_dir) / "postmaster.pid").read_text().partition("\n")[0])
    except (OSError, ValueError):
        return None


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        if Path("/proc/self").exists():
            return ""
    return subprocess.run(["ps", "-o", "command=", "-p", str(pid)], check=False, capture_output=True, text=True).stdout


def _postmaster_pid(data_dir: Path) -> int | None:
    # The file may be left over from a server that is gone.
    pid = _recorded_pid(data_dir)
    return pid if pid is not None and str(folder(data_dir)) in _command(pid) else None


def _shared_buffers() -> int:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):
        # This is the limit of a container; "max" where it has none of its own.
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(max(memory // 4, SMALLEST_BUFFERS), LARGEST_BUFFERS)


def _forget_dead_server(data_dir: Path) -> None:
    """Remove the record of a server that is gone although its number is not.

    In a container started again the number may belong to any process, or nobody may have collected the dead one.
    PostgreSQL would take either for a running server. It makes sure by other means, the shared memory that goes
    with the folder, that no back end of the dead server is still at work.
    """
    pid = _recorded_pid(data_dir)
    if pid is not None and _postmaster_pid(data_dir) is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 0)
            for name in ("postmaster.pid", f".s.PGSQL.{PORT}.lock"):
                (folder(data_dir) / name).unlink(missing_ok=True)
