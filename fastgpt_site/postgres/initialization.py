"""Makes a new cluster so that a crash at any moment leaves either nothing or all of it, password included."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from fastgpt_site.postgres import account, programs


def initialize(data_dir: Path, folder: Path, user: str, password: str) -> None:
    """Make the cluster in a draft and rename it when it is complete, password included.

    Each draft has a name of its own: an initdb that outlived its killed parent may still be writing to another.
    """
    programs.make_reachable(data_dir)
    draft = Path(tempfile.mkdtemp(prefix="postgres.draft-", dir=data_dir))
    try:
        account.give(draft)
        password_file = draft / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(password)
        account.give(password_file)
        result = programs.run(
            "initdb",
            f"--pgdata={draft / 'cluster'}",
            f"--username={user}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            # PostgreSQL's own collation: the order of an index does not change with the system's C library.
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
        )
        if result.returncode != 0:
            raise ImproperlyConfigured(f"PostgreSQL could not make its folder in {data_dir}: {result.stderr.strip()}")
        (draft / "cluster").rename(folder)
        _sync(data_dir)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def remove_drafts(data_dir: Path) -> None:
    # A process that was killed while it made a cluster left the password in its draft.
    for left_over in data_dir.glob("postgres.draft-*"):
        shutil.rmtree(left_over, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
