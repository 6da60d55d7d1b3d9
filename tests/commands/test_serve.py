"""Serving without the demo."""

import json
import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.conf import settings
from prometheus_client.multiprocess import MultiProcessCollector

from fastgpt_site.observability.exposition import has_begun
from tests.support.metrics_text import parse, value_of
from tests.support.processes import free_port, get, manage, processes_of, running, wait_for

REQUESTS = "fastgpt_requests_total"
NOT_FOUND = {"endpoint": "unknown_path", "status": "404"}


def test_it_works(data_dir):
    port = free_port()
    with running("serve", "--workers", "2", data_dir=data_dir, PORT=str(port)) as command:
        command.wait_for_output(f"Serving http://127.0.0.1:{port}/api")
        assert get(port, "/healthz")[0] == 200
        assert json.loads(get(port, "/healthz")[1])["version"] == settings.VERSION
        assert command.err[0] == f"FastGPT API keys {settings.VERSION}\n"
        workers = processes_of(data_dir, "fastgpt_site.process.worker")
        assert len(workers) == 2
        # The first line of each process's log names the version.
        lines = [json.loads(line) for line in command.err if line.startswith("{")]
        firsts = [line for line in lines if line.get("process_id") in workers]
        assert lines[0] in firsts
        assert {line["message"] for line in firsts} == {f"FastGPT API keys {settings.VERSION} starts a server process"}
        assert not processes_of(data_dir, "local_model")

        # One worker crashes: the other answers meanwhile, and a new one takes its place.
        crashed = min(workers)
        os.kill(crashed, signal.SIGKILL)
        wait_for(
            lambda: len(set(processes_of(data_dir, "fastgpt_site.process.worker")) - {crashed}) == 2, "two workers"
        )
        assert get(port, "/healthz")[0] == 200

        # So it is with the worker of the jobs.
        wait_for(lambda: get(port, "/readyz")[0] == 200, "ready")
        (jobs,) = processes_of(data_dir, "manage.py jobs")
        os.kill(jobs, signal.SIGKILL)
        wait_for(lambda: set(processes_of(data_dir, "manage.py jobs")) - {jobs}, "another worker of the jobs")

        # Ctrl-C in a terminal reaches the foreground group, which is the supervisor alone.
        os.killpg(command.process.pid, signal.SIGINT)
        assert command.wait() == 0, command.all_output
    assert processes_of(data_dir) == {}


def test_node_without_jobs(installed_data_dir):
    port = free_port()
    with running("serve", "--no-jobs", "--port", str(port), data_dir=installed_data_dir) as command:
        command.wait_for_output("Serving")
        assert not processes_of(installed_data_dir, "manage.py jobs")
        status, body = get(port, "/readyz")
        assert status == 503
        assert json.loads(body)["parts"]["jobs"] == "no worker"
        # One worker is enough, wherever it runs.
        with running("jobs", data_dir=installed_data_dir) as jobs:
            wait_for(lambda: get(port, "/readyz")[0] == 200, "ready")
            assert jobs.end() == 0, jobs.all_output
        assert command.end() == 0


def test_metrics_are_of_all_workers_and_outlive_one(installed_data_dir):
    port = free_port()
    with running("serve", "--workers", "2", data_dir=installed_data_dir, PORT=str(port)) as command:
        command.wait_for_output("Serving")
        workers = wait_for(lambda: both(processes_of(installed_data_dir, "fastgpt_site.process.worker")), "two workers")
        folder = metrics_folder(workers[0])
        asked = 0

        def ask_for_nothing() -> None:
            """Ten connections at once, so that one worker alone would hardly have them all."""
            nonlocal asked
            with ThreadPoolExecutor(10) as pool:
                assert {status for status, _ in pool.map(lambda _: get(port, "/nothing"), range(10))} == {404}
            asked += 10

        def counted() -> float:
            return value_of(parse(get(port, "/metrics")[1].decode()), REQUESTS, **NOT_FOUND)

        def is_counted_by_each() -> bool:
            ask_for_nothing()
            return all(counted_by(folder, worker) for worker in workers)

        wait_for(is_counted_by_each, "each worker has counted")
        wait_for(lambda: counted() == asked, "all are counted")
        assert sum(counted_by(folder, worker) for worker in workers) == asked

        os.kill(workers[0], signal.SIGKILL)
        successors = wait_for(
            lambda: both(set(processes_of(installed_data_dir, "fastgpt_site.process.worker")) - {workers[0]}),
            "two workers again",
        )
        assert counted() == asked
        assert not list(folder.glob(f"gauge_live*_{workers[0]}.db"))
        workers = successors
        wait_for(is_counted_by_each, "each worker has counted, the new one too")
        wait_for(lambda: counted() == asked, "all are counted")
        assert command.end() == 0
        assert not folder.exists()


def both(workers) -> list[int]:
    return sorted(workers) if len(workers) == 2 else []


def metrics_folder(worker: int) -> Path:
    variables = (Path("/proc") / str(worker) / "environ").read_bytes().split(b"\0")
    name = b"PROMETHEUS_MULTIPROC_DIR="
    return Path(os.fsdecode(next(line for line in variables if line.startswith(name)).removeprefix(name)))


def counted_by(folder: Path, worker: int) -> float:
    """Return the count of one worker alone."""
    path = folder / f"counter_{worker}.db"
    families = MultiProcessCollector.merge([str(path)]) if has_begun(path) else []
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if (sample.name, sample.labels) == (REQUESTS, NOT_FOUND)
    )


def test_two_supervisors_share_the_database_and_the_last_one_stops_it(installed_data_dir):
    ports = free_port(), free_port()
    with running("serve", "--port", str(ports[0]), data_dir=installed_data_dir) as first:
        with running("serve", "--no-migrate", "--port", str(ports[1]), data_dir=installed_data_dir) as second:
            for command in (first, second):
                command.wait_for_output("Serving")
            assert second.end() == 0
        assert processes_of(installed_data_dir, "postgres")
        assert first.end() == 0
    assert processes_of(installed_data_dir) == {}


def test_port_in_use(data_dir):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = manage("serve", "--port", str(port), data_dir=data_dir)
    assert result.returncode == 1
    assert f"Cannot listen on 127.0.0.1 port {port}: Address already in use." in result.stderr
    assert processes_of(data_dir) == {}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(["--workers", "0"], "--workers must be at least 1."), (["--worker", "x"], "invalid int value: 'x'")],
)
def test_bad_options(data_dir, arguments, complaint):
    result = manage("serve", *arguments, data_dir=data_dir)
    assert result.returncode in {1, 2}
    assert complaint in result.stderr


def test_database_that_cannot_be_reached(data_dir):
    secrets = {"SECRET_KEY": "s" * 64, "API_KEY_PEPPERS": f"p1:{'ab' * 32}", "ENCRYPTION_KEYS": "cd" * 32}
    result = manage(
        "serve",
        "--port",
        str(free_port()),
        data_dir=data_dir,
        DATABASE_URL=f"postgres://nobody:x@127.0.0.1:{free_port()}/x",
        **secrets,
    )
    assert result.returncode == 1
    assert "CommandError: " in result.stderr
    assert "Connection refused" in result.stderr
    assert "Traceback" not in result.stderr
