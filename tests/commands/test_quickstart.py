"""The demo, as a person or a script starts it: real database, real model, real server."""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from django.conf import settings

from tests.environment import PROJECT
from tests.support.processes import Running, free_port, get, manage, processes_of, running, wait_for


@dataclass
class Site:
    command: Running
    data_dir: Path
    port: int
    details: dict[str, str]


def read_details(command: Running) -> dict[str, str]:
    command.wait_for_output("\n")
    details: dict[str, str] = json.loads(command.out[0])
    return details


def only(data_dir: Path, part: str) -> int:
    """The id of the one process that plays a part."""
    (pid,) = wait_for(lambda: processes_of(data_dir, part), part)
    return pid


@pytest.fixture(scope="module")
def site(shared_data_dir: Path) -> Iterator[Site]:
    port = free_port()
    with running("quickstart", "--json", "--port", str(port), data_dir=shared_data_dir) as command:
        yield Site(command, shared_data_dir, port, read_details(command))


def test_first_line_is_all_that_a_script_needs(site):
    assert site.details.keys() == {
        "base_url",
        "admin_url",
        "admin_username",
        "admin_password",
        "team",
        "app_id",
        "app_key",
        "film_app_id",
        "film_key",
        "global_key",
    }
    assert site.details["base_url"] == f"http://127.0.0.1:{site.port}/api"
    assert site.details["admin_url"] == f"http://127.0.0.1:{site.port}/admin/"
    assert site.details["admin_username"] == "admin"
    assert len(site.details["admin_password"]) >= 16
    assert site.details["team"] == "Demo"
    assert re.fullmatch("[0-9a-f]{24}", site.details["app_id"])
    assert re.fullmatch("[0-9a-f]{24}", site.details["film_app_id"])
    assert re.fullmatch("fastgpt-[0-9A-Za-z]{52}", site.details["app_key"])
    assert re.fullmatch("fastgpt-[0-9A-Za-z]{52}", site.details["film_key"])
    assert re.fullmatch("fastgpt-[0-9A-Za-z]{52}", site.details["global_key"])
    assert len(site.command.out) == 1
    assert site.command.err[0] == f"FastGPT API keys {settings.VERSION}\n"
    assert get(site.port, "/healthz")[0] == 200


def test_secrets_are_in_no_log(site):
    written = "".join(site.command.err) + (site.data_dir / "postgres" / "server.log").read_text()
    for name in ("admin_password", "app_key", "film_key", "global_key"):
        assert site.details[name] not in written


def test_documented_curl_is_answered_by_the_model(site):
    curl = (
        f"curl --silent --location --request POST '{site.details['base_url']}/v1/chat/completions' "
        f"--header 'Authorization: Bearer {site.details['app_key']}' --header 'Content-Type: application/json' "
        """--data-raw '{"chatId":"111","stream":false,"detail":false,"""
        """"messages":[{"content":"Who are you?","role":"user"}]}'"""
    )
    answer = subprocess.run(shlex.split(curl), capture_output=True, text=True, timeout=240, check=True).stdout
    body = json.loads(answer)
    assert body["choices"][0]["message"]["content"].strip(), answer


@pytest.mark.parametrize("question", ["导演是谁", "Who directed it?"])
def test_film_guide_quotes_the_right_passage(site, question):
    """As soon as the curl is printed, in both languages. What so small a model makes of it is another matter."""
    messages = [{"content": question, "role": "user"}]
    body = {"stream": False, "detail": True, "max_tokens": 16, "messages": messages}
    with closing(http.client.HTTPConnection("127.0.0.1", site.port, timeout=240)) as connection:
        headers = {"Authorization": f"Bearer {site.details['film_key']}", "Content-Type": "application/json"}
        connection.request("POST", "/api/v1/chat/completions", json.dumps(body), headers)
        answer = json.loads(connection.getresponse().read())
    assert answer["choices"][0]["message"]["content"].strip(), answer
    search, chat = answer["responseData"]
    assert (search["moduleType"], chat["moduleType"]) == ("datasetSearchNode", "chatNode")
    best = [quote["a"] for quote in search["quoteList"][:2]]
    assert sorted(best) == ["Crouching Tiger, Hidden Dragon was directed by Ang Lee.", "《卧虎藏龙》的导演是李安。"]


def test_password_opens_the_admin(site):
    status, page = get(site.port, "/admin/login/")
    assert status == 200
    assert b"csrfmiddlewaretoken" in page


def test_port_in_use(site, data_dir):
    result = manage("quickstart", "--port", str(site.port), data_dir=data_dir)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.strip().splitlines() == [
        f"CommandError: Cannot listen on 127.0.0.1 port {site.port}: Address already in use. "
        "Choose another with --port."
    ]
    assert processes_of(data_dir) == {}


def test_second_demo_on_the_same_data_is_refused(site):
    result = manage("quickstart", "--port", str(free_port()), data_dir=site.data_dir)
    assert result.returncode == 1
    assert f"A demo is already running on {site.data_dir}." in result.stderr
    assert get(site.port, "/healthz")[0] == 200


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--prot", "1"], "unrecognized arguments: --prot 1"),
        (["--port", "http"], "argument --port: invalid port value: 'http'"),
        (["--port", "70000"], "argument --port: a port is between 0 and 65535"),
        (["--host", "nowhere.invalid"], "Cannot listen on nowhere.invalid"),
    ],
)
def test_mistyped_option_gets_one_clear_line(data_dir, arguments, complaint):
    result = manage("quickstart", *arguments, data_dir=data_dir)
    assert result.returncode in {1, 2}
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("part", ["fastgpt_site.process.worker", "chat.local_model"])
def test_crashed_part_is_started_again(site, part):
    before = only(site.data_dir, part)
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: set(processes_of(site.data_dir, part)) - {before}, f"another {part}")
    wait_for(lambda: get(site.port, "/healthz")[0] == 200, "the server answers")
    assert before not in processes_of(site.data_dir, part)


def test_the_model_has_no_secret(site):
    environ = Path(f"/proc/{only(site.data_dir, 'chat.local_model')}/environ").read_text()
    names = {line.partition("=")[0] for line in environ.split("\0")}
    assert "PATH" in names
    assert not names & {"SECRET_KEY", "API_KEY_PEPPERS", "ENCRYPTION_KEYS", "DATABASE_PASSWORD", "DATABASE_URL"}
    # A server process has them: it would be no proof otherwise.
    environ = Path(f"/proc/{only(site.data_dir, 'fastgpt_site.process.worker')}/environ").read_text()
    assert "API_KEY_PEPPERS=" in environ


def test_second_run_says_how_to_make_new_keys(installed_data_dir):
    port = str(free_port())
    with running("quickstart", "--json", "--port", port, data_dir=installed_data_dir) as command:
        facts = read_details(command)
        with closing(http.client.HTTPConnection("127.0.0.1", int(port), timeout=30)) as connection:
            # Short enough for the time that a server gives to answers under way, also on a busy machine.
            body = {"stream": True, "max_tokens": 5, "messages": [{"role": "user", "content": "Tell me a story."}]}
            headers = {"Authorization": f"Bearer {facts['app_key']}", "Content-Type": "application/json"}
            connection.request("POST", "/api/v1/chat/completions", json.dumps(body), headers)
            answer = connection.getresponse()
            answer.readline()
            # An answer that has begun is given to its end.
            command.process.send_signal(signal.SIGTERM)
            assert b"[DONE]" in answer.read()
        assert command.wait() == 0, command.all_output
    assert processes_of(installed_data_dir) == {}

    with running("quickstart", "--port", port, data_dir=installed_data_dir) as command:
        command.wait_for_output("curl")
        text = "".join(command.out)
        (rotate,) = re.findall(r"DATA_DIR=.*apikey rotate [0-9a-f]{24}(?=\s+# app key)", text)
        assert "Keys are shown only once" in text
        assert "manage.py changepassword admin" in text
        rotated = subprocess.run(
            ["sh", "-c", f"{rotate} --json"],
            cwd=PROJECT,
            env={"PATH": os.environ["PATH"], "ENV_FILE": os.devnull},
            capture_output=True,
            text=True,
            check=False,
        )
        assert rotated.returncode == 0, rotated.stderr
        assert "fastgpt-" in rotated.stdout
        assert command.end(signal.SIGINT) == 0, command.all_output
    assert processes_of(installed_data_dir) == {}


def test_killed_supervisor_leaves_no_server_and_no_model(installed_data_dir):
    port = free_port()
    # A killed supervisor leaves its temporary files, which are removed with the data folder.
    temporary = str(installed_data_dir)
    with running("quickstart", "--json", "--port", str(port), data_dir=installed_data_dir, TMPDIR=temporary) as command:
        first = read_details(command)
        command.end(signal.SIGKILL)
    wait_for(
        lambda: not [line for line in processes_of(installed_data_dir).values() if "postgres" not in line],
        "its children are gone",
    )
    assert get(port, "/healthz") == (0, b"")

    with running("quickstart", "--json", "--port", str(port), data_dir=installed_data_dir) as command:
        assert read_details(command) == first | dict.fromkeys(("admin_password", "app_key", "film_key", "global_key"))
        assert command.end() == 0
    assert processes_of(installed_data_dir) == {}


@pytest.mark.parametrize("moment", ["Starting the database", "Applying", "Starting the server"])
def test_interrupted_start_leaves_nothing(data_dir, moment):
    with running("quickstart", "--port", str(free_port()), data_dir=data_dir) as command:
        wait_for(lambda: moment in "".join(command.err), moment)
        assert command.end(signal.SIGINT) == 0
    assert processes_of(data_dir) == {}


def test_second_ctrl_c_ends_at_once(installed_data_dir):
    with running("quickstart", "--json", "--port", str(free_port()), data_dir=installed_data_dir) as command:
        read_details(command)
        worker = only(installed_data_dir, "fastgpt_site.process.worker")
        # A server that does not react: the first Ctrl-C waits for it, the second does not.
        os.kill(worker, signal.SIGSTOP)
        command.process.send_signal(signal.SIGINT)
        wait_for(lambda: "Stopping the server." in "".join(command.err), "stopping")
        assert command.end(signal.SIGINT, seconds=5) == 128 + signal.SIGINT
    wait_for(lambda: processes_of(installed_data_dir) == {}, "nothing is left")
