"""A pytest plugin that is loaded before the settings: tests see the project's defaults and data of their own.

Nothing of the developer's shell or `.env` reaches them.
"""

import fcntl
import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

PROJECT = Path(__file__).resolve().parent.parent
# They are held open, and so locked, until the process ends.
_locks: list[IO[str]] = []
READ = re.compile(r'(?:\benv\.\w+\(|local_secrets\.require\w*\(env, )\s*"([A-Z][A-Z0-9_]*)"')


def setting_names() -> list[str]:
    """Return every variable that settings.py reads, in its order."""
    return list(dict.fromkeys(READ.findall((PROJECT / "fastgpt_site" / "settings.py").read_text())))


def _free_data_dir() -> Path:
    """Return `.test-data`, or `.test-data-2` and so on while another session of this checkout uses it."""
    for number in itertools.count(1):
        path = PROJECT / (".test-data" if number == 1 else f".test-data-{number}")
        path.mkdir(exist_ok=True)
        lock = (path / "session.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        _locks.append(lock)
        return path
    raise AssertionError("there is always a next number")


def _isolate() -> None:
    for name in setting_names():
        os.environ.pop(name, None)
    os.environ["ENV_FILE"] = os.devnull
    os.environ["DATA_DIR"] = str(Path(os.environ.get("TEST_DATA_DIR") or _free_data_dir()).resolve())


_isolate()

# It needs Django but no settings, which are not read before the lines above.
from fastgpt_site.postgres import cluster  # noqa: E402


def _stop_database(data_dir: Path) -> None:
    if cluster.folder(data_dir).exists():
        cluster.stop(data_dir)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the embedded database, which would outlive the session."""
    _stop_database(Path(os.environ["DATA_DIR"]))
    for lock in _locks:
        lock.close()


@contextmanager
def temporary_data_dir() -> Iterator[Path]:
    """Make a folder whose path is short enough for a socket; end the database that runs on it afterwards."""
    path = Path(tempfile.mkdtemp(prefix="fg-", dir="/tmp")).resolve()
    try:
        yield path
    finally:
        _stop_database(path)
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with temporary_data_dir() as path:
        yield path


@pytest.fixture(scope="module")
def shared_data_dir() -> Iterator[Path]:
    with temporary_data_dir() as path:
        yield path
