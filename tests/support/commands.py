"""Management commands on the test database: in this process, or as a process of their own."""

import os
import subprocess
import sys
from io import StringIO
from pathlib import Path
from urllib.parse import quote

from django.core.management import call_command
from django.db import connection

from fastgpt_site.postgres import cluster
from tests.environment import PROJECT
from tests.support.processes import environment


def call(*arguments: str) -> tuple[str, str]:
    """Return what the command wrote to standard output and to standard error."""
    out, err = StringIO(), StringIO()
    call_command(*arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def variables() -> dict[str, str]:
    """Return the environment of a process that works on this session's test database."""
    data_dir = Path(os.environ["DATA_DIR"])
    parameters = connection.settings_dict
    account = f"{parameters['USER']}:{quote(str(parameters['PASSWORD']))}"
    # The path after the second slash is the folder of the socket, then the name.
    url = f"postgres://{account}@/{cluster.folder(data_dir)}/{parameters['NAME']}"
    return environment(data_dir, DATABASE_URL=url)


def manage(*arguments: str, stdin: bytes = b"", **changes: str) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=PROJECT,
        env=variables() | changes,
        input=stdin,
        capture_output=True,
        timeout=600,
        check=False,
    )
    return subprocess.CompletedProcess(result.args, result.returncode, result.stdout.decode(), result.stderr.decode())


def shell(script: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a pipeline; `manage` in it is `python manage.py`."""
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", f'manage() {{ "{sys.executable}" manage.py "$@"; }}\n{script}'],
        cwd=PROJECT,
        env=variables() | changes,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def refusal(result: subprocess.CompletedProcess[str]) -> str:
    """Return the one line of a refused command, which exits with 1 and prints nothing else."""
    assert result.returncode == 1, result
    assert result.stdout == ""
    assert result.stderr.startswith("CommandError: ")
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr.removeprefix("CommandError: ").rstrip("\n")
