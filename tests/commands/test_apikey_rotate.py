"""`manage.py apikey rotate`, `disable`, `enable` and `revoke`."""

import json
import os
import pwd
import subprocess
import sys
from contextlib import ExitStack
from datetime import timedelta

import pytest
from django.core.management.base import CommandError
from django.utils import timezone

from apikeys.keys import crypto
from apikeys.keys.models import ApiKey
from tests.environment import PROJECT
from tests.support import factories
from tests.support.commands import call, manage, refusal, variables
from tests.support.processes import ending


@pytest.fixture
def api_key() -> ApiKey:
    return factories.make_key()[0]


def live(api_key: ApiKey) -> list[str]:
    return list(api_key.secrets.live().order_by("-pk").values_list("last_four", flat=True))


def test_it_works(api_key):
    old = api_key.last_four
    result = manage("apikey", "rotate", api_key.pk, "--overlap", "24h")
    assert result.returncode == 0
    (plaintext,) = result.stdout.splitlines()
    assert crypto.is_ours(plaintext)
    assert live(api_key) == [plaintext[-4:], old]
    assert "Rotated the global key" in result.stderr
    assert "only time" in result.stderr
    assert plaintext not in result.stderr


@pytest.mark.parametrize(
    ("text", "overlap"), [("30m", timedelta(minutes=30)), ("24h", timedelta(hours=24)), ("30d", timedelta(days=30))]
)
def test_overlap(api_key, text, overlap):
    old = api_key.secrets.get()
    before = timezone.now()
    call("apikey", "rotate", api_key.pk, "--overlap", text)
    old.refresh_from_db()
    assert before + overlap <= old.expires_at <= timezone.now() + overlap


@pytest.mark.parametrize("arguments", [[], ["--overlap", "0"], ["--overlap", "0h"]])
def test_without_overlap(api_key, arguments):
    out, _ = call("apikey", "rotate", api_key.pk, *arguments)
    assert live(api_key) == [out.strip()[-4:]]


def test_json(api_key):
    facts = json.loads(call("apikey", "rotate", api_key.pk, "--json")[0])
    assert facts["id"] == api_key.pk
    assert live(api_key) == [facts["key"][-4:]] == [facts["last_four"]]


def test_it_says_when_the_key_cannot_be_used(api_key):
    api_key.disable()
    assert "It still cannot be used: It is disabled." in call("apikey", "rotate", api_key.pk)[1]


@pytest.mark.parametrize("text", ["24", "24 h", "-1h", "1.5h", "1w", "h", "", "31d", "999999d", "9999999h"])
def test_bad_overlap(api_key, text):
    with pytest.raises(CommandError, match=r"is not a duration|between 0 and 30 days"):
        call("apikey", "rotate", api_key.pk, f"--overlap={text}")
    assert len(live(api_key)) == 1


def test_processes_that_rotate_at_once_leave_at_most_two_live(api_key):
    command = [sys.executable, "manage.py", "apikey", "rotate", api_key.pk, "--overlap", "1h"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with ExitStack() as stack:
        started = [subprocess.Popen(command, cwd=PROJECT, env=variables(), **pipes) for _ in range(4)]
        processes = [stack.enter_context(ending(process)) for process in started]
        plaintexts = {process.communicate(timeout=60)[0].decode().strip() for process in processes}
    assert [process.returncode for process in processes] == [0] * 4
    assert len(plaintexts) == 4
    assert api_key.secrets.count() == 5
    assert len(live(api_key)) == 2


def test_disable_and_enable(api_key):
    out, _ = call("apikey", "disable", api_key.pk)
    assert out.startswith(f"Disabled the key {api_key.name!r} ({api_key.pk}).\n")
    api_key.refresh_from_db()
    assert api_key.why_unusable == "It is disabled."
    assert call("apikey", "enable", api_key.pk) == (f"Enabled the key {api_key.name!r} ({api_key.pk}).\n", "")
    api_key.refresh_from_db()
    assert api_key.why_unusable is None


def test_disable_json(api_key):
    facts = json.loads(call("apikey", "disable", api_key.pk, "--json")[0])
    assert (facts["is_usable"], facts["why_unusable"]) == (False, "It is disabled.")


def test_revoke(api_key):
    result = manage("apikey", "revoke", api_key.pk, "--reason", "leaked on GitHub", "--by", "ann")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"Revoked the key {api_key.name!r} ({api_key.pk}).\n")
    api_key.refresh_from_db()
    assert (api_key.revoked_by, api_key.revoked_reason) == ("ann", "leaked on GitHub")


def test_revoked_by_the_login_of_the_system(api_key):
    call("apikey", "revoke", api_key.pk, "--reason", "leaked")
    api_key.refresh_from_db()
    assert api_key.revoked_by == pwd.getpwuid(os.getuid()).pw_name


def test_revoking_twice_says_who_did_it_first(api_key):
    api_key.revoke(by="ann", reason="leaked")
    with pytest.raises(CommandError, match="already revoked, by 'ann', because: 'leaked'"):
        call("apikey", "revoke", api_key.pk, "--reason", "other")
    api_key.refresh_from_db()
    assert api_key.revoked_reason == "leaked"


@pytest.mark.parametrize("arguments", [[], ["--reason", ""], ["--reason", "  "]])
def test_revoke_asks_for_a_reason(api_key, arguments):
    with pytest.raises(CommandError, match="--reason"):
        call("apikey", "revoke", api_key.pk, *arguments)
    api_key.refresh_from_db()
    assert api_key.revoked_at is None


@pytest.mark.parametrize("subcommand", ["rotate", "disable", "enable"])
def test_a_revoked_key_is_final(api_key, subcommand):
    api_key.revoke(by="ann", reason="leaked")
    assert "Create a new key." in refusal(manage("apikey", subcommand, api_key.pk))


@pytest.mark.parametrize("arguments", [["rotate"], ["disable"], ["enable"], ["revoke", "--reason", "x"]])
def test_unknown_key(arguments):
    with pytest.raises(CommandError, match="There is no key 'nope'"):
        call("apikey", *arguments, "nope")
