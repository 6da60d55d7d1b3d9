"""Every subcommand of `manage.py apikey` with bad usage, an unreachable database and a closed pipe."""

import os

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apikeys.keys import crypto
from tests.support import factories
from tests.support.commands import call, manage, refusal, shell, variables
from tests.support.processes import free_port

UNREACHABLE = "postgres://user:not-shown@127.0.0.1:{port}/fastgpt"


@pytest.mark.parametrize(
    ("arguments", "mistake"),
    [
        ([], "the following arguments are required: subcommand"),
        (["lst"], "argument subcommand: invalid choice: 'lst' (choose from "),
        (["list", "--typo"], "unrecognized arguments: --typo"),
        (["--typo", "list"], "unrecognized arguments: --typo"),
        (["show"], "the following arguments are required: key"),
        (["create"], "the following arguments are required: --team, --owner, --name"),
        (["create", "--tea", "x", "--owner", "x", "--name", "x"], "the following arguments are required: --team"),
        (["rotate", "x", "--overlap"], "argument --overlap: expected one argument"),
        (["list", "--state", "odd"], "argument --state: invalid choice: 'odd'"),
        (["revoke", "x"], "the following arguments are required: --reason"),
        (["list", "--team", os.fsdecode(b"\xff")], "argument --team: it is not valid UTF-8"),
    ],
)
def test_usage_errors(arguments, mistake):
    said = refusal(manage("apikey", *arguments))
    assert said.startswith(mistake)
    assert said.endswith("For help: manage.py apikey --help")


@pytest.mark.parametrize("arguments", [["--help"], ["create", "--help"], ["import-secrets", "--help"]])
def test_help(arguments):
    result = manage("apikey", *arguments)
    assert (result.returncode, result.stderr) == (0, "")
    assert "usage: manage.py apikey" in result.stdout


@pytest.mark.parametrize("command", [["apikey", "list"], ["apikey", "rotate", "x"], ["peppers", "--check"]])
def test_database_that_cannot_be_reached(command):
    result = manage(*command, DATABASE_URL=UNREACHABLE.format(port=free_port()))
    said = refusal(result)
    assert said.startswith("The database cannot be used: connection failed")
    assert "not-shown" not in said


def test_database_without_tables():
    # The maintenance database of the same server, in which nothing was ever migrated.
    url = variables()["DATABASE_URL"].rpartition("/")[0] + "/postgres"
    said = refusal(manage("apikey", "list", DATABASE_URL=url))
    assert said == "The database lacks tables of this version. Run: manage.py migrate"


def test_a_reader_that_leaves_is_no_error():
    for _ in range(3):
        factories.make_key()
    result = shell("manage apikey list | head -1")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("ID ")
    assert shell("manage apikey list --json | true").stderr == ""
    assert shell("manage peppers | true").stderr == ""


def test_a_new_key_through_a_pipe():
    team = factories.make_team()
    owner = factories.make_user(team)
    create = f"manage apikey create --team {team.pk} --owner {owner.username} --name piped"
    result = shell(f"{create} | head -1")
    assert result.returncode == 0
    assert crypto.is_ours(result.stdout.strip())
    # Standard error in the same pipe, whose reader leaves after the key.
    result = shell(f"{create} 2>&1 | head -1")
    assert crypto.is_ours(result.stdout.strip())
    assert result.stderr == ""


@pytest.mark.parametrize("sink", ["| true", "> /dev/full"])
def test_a_new_key_that_nobody_could_read(sink):
    api_key, _ = factories.make_key()
    # Reads nothing and is gone before the command writes.
    result = shell(f"manage apikey rotate {api_key.pk} {sink}")
    assert result.stderr.startswith(
        f"CommandError: Rotated the key {api_key.pk}, but its plaintext could not be written"
    )
    assert result.stderr.rstrip().endswith(f"For another: apikey rotate {api_key.pk}")
    assert result.stderr.count("\n") == 1
    assert result.returncode == 1


def test_no_room_for_a_list():
    factories.make_key()
    assert refusal(shell("manage apikey list > /dev/full")) == "[Errno 28] No space left on device"


def test_closed_output_makes_no_key():
    api_key, _ = factories.make_key()
    assert refusal(shell(f"manage apikey rotate {api_key.pk} >&-")) == "Standard output is closed."
    assert api_key.secrets.count() == 1


def test_a_terminal_that_lacks_characters():
    team = factories.make_team()
    factories.make_key(team, name="客服")
    result = shell(f"manage apikey list --team {team.pk}", PYTHONIOENCODING="ascii")
    assert result.returncode == 0
    assert "\\u5ba2\\u670d" in result.stdout


def test_the_database_and_the_log_never_see_a_key(caplog):
    team = factories.make_team()
    owner = factories.make_user(team)
    caplog.set_level("DEBUG")
    caplog.set_level("DEBUG", "django.db.backends")
    with CaptureQueriesContext(connection) as queries:
        out, err = call("apikey", "create", "--team", team.pk, "--owner", owner.username, "--name", "logged")
        out += call("apikey", "rotate", team.api_keys.get().pk)[0]
    first, second = out.split()
    executed = "".join(query["sql"] for query in queries)
    assert "INSERT INTO" in executed
    for key in (first, second):
        assert crypto.is_ours(key)
        assert key not in executed + caplog.text + err
