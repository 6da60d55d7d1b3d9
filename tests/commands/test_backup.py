"""Backup and restore, by the commands that docs/operations.md gives."""

import http.client
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from tests.environment import PROJECT, temporary_data_dir
from tests.support.processes import environment, free_port, get, manage, running, wait_for

SEED = """
from django.contrib.auth.models import User
from apikeys.models import ApiKey, Membership, Team
team, owner = Team.objects.create(name="Kept"), User.objects.create_user("kept")
Membership.objects.create(team=team, user=owner)
print(ApiKey.objects.create_key(team=team, owner=owner, name="kept")[1])
"""


def commands_of(heading: str) -> str:
    """The shell commands under a heading of docs/operations.md, as an operator would paste them."""
    page = (PROJECT / "docs" / "operations.md").read_text()
    _, _, section = page.partition(f"### {heading}\n")
    block = re.search(r"```\n(.*?)```", section, re.DOTALL)
    assert block, heading
    return block[1]


def paste(script: str, data_dir: Path, backup: Path) -> None:
    for said, meant in {
        "python ": f"{sys.executable} ",
        "DATA_DIR=/srv/fastgpt": f"DATA_DIR={data_dir}",
        "BACKUP=/srv/backup": f"BACKUP={backup}",
    }.items():
        assert said in script
        script = script.replace(said, meant)
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=PROJECT, env=environment(data_dir), check=True, timeout=120
    )


def test_an_old_key_answers_from_a_restored_backup(installed_data_dir: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    key = manage("shell", "-v0", "-c", SEED, data_dir=installed_data_dir).stdout.strip()
    assert key.startswith("fastgpt-")
    paste(commands_of("Backup"), installed_data_dir, backup)
    assert {path.name for path in backup.iterdir()} == {"database.dump", "secrets.env"}
    assert (backup / "secrets.env").stat().st_mode & 0o077 == 0
    with temporary_data_dir() as empty:
        paste(commands_of("Restore"), empty, backup)
        port = free_port()
        with running("serve", "--port", str(port), data_dir=empty):
            wait_for(lambda: get(port, "/readyz")[0] == 200, "the restored site is ready")
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
                connection.request("GET", "/api/v1/key", headers={"Authorization": f"Bearer {key}"})
                response = connection.getresponse()
                assert response.status == 200
                assert b'"team":"Kept"' in response.read()
