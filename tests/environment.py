"""A pytest plugin that is loaded before the settings: tests see the project's defaults and data of their own.

Nothing of the developer's shell or `.env` reaches them.
"""

import fcntl
import hashlib
import itertools
import os
import re
import shutil
import subprocess
import sys
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
    os.environ["DATA_DIR"] = str(_free_data_dir())


_isolate()

# It needs Django but no settings, which are not read before the lines above.
from fastgpt_site.postgres import cluster  # noqa: E402


def _stop_database(data_dir: Path) -> None:
    if cluster.folder(data_dir).exists():
        cluster.stop(data_dir)


def _fingerprint() -> str:
    """Return a digest of everything that a new database is made from, and of a good deal that it is not."""
    digest = hashlib.sha256((PROJECT / "requirements" / "base.txt").read_bytes())
    for app in ("apikeys", "chat", "datasets", "fastgpt_site"):
        for path in sorted((PROJECT / app).rglob("*")):
            if path.suffix in {".py", ".sql"}:
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def installation() -> Path:
    """Return a data folder with a database that is migrated and stopped, to be copied: migrating takes seconds.

    It is made anew when the code has changed. The processes of a run share it.
    """
    root = PROJECT / ".test-data-installations"
    root.mkdir(exist_ok=True)
    path = root / _fingerprint()
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            for old in root.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
            # Its path may be too long for the socket of a database.
            with temporary_data_dir() as new:
                subprocess.run(
                    [sys.executable, "manage.py", "migrate", "--no-input", "--verbosity=0"],
                    cwd=PROJECT,
                    env={"PATH": os.environ["PATH"], "ENV_FILE": os.devnull, "DATA_DIR": str(new)},
                    check=True,
                )
                cluster.stop(new)
                draft = path.with_suffix(".draft")
                copy_data_dir(new, draft)
                draft.rename(path)
    return path


def copy_data_dir(source: Path, target: Path) -> None:
    # PostgreSQL's files are those of another user where tests run as root.
    subprocess.run(["cp", "-a", f"{source}/.", target], check=True)


def _install() -> None:
    """Give this session a new database. What a killed session may have left is ended and removed."""
    data_dir = Path(os.environ["DATA_DIR"])
    _stop_database(data_dir)
    for path in data_dir.iterdir():
        if path.name != "session.lock":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    copy_data_dir(installation(), data_dir)


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


# Settings, which pytest-django reads next, find the secrets that the database was made with.
_install()


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with temporary_data_dir() as path:
        yield path


@pytest.fixture(scope="module")
def shared_data_dir() -> Iterator[Path]:
    with temporary_data_dir() as path:
        yield path
