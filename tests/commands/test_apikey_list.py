"""`manage.py apikey list` and `show`."""

import json
from datetime import timedelta

import pytest
from django.core.management.base import CommandError
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apikeys.accounting.ledger import KeyActivity
from tests.support import factories
from tests.support.commands import call, manage, refusal


@pytest.fixture
def team():
    return factories.make_team()


def rows(*arguments: str) -> list[dict]:
    out, _ = call("apikey", "list", "--json", *arguments)
    (line,) = out.splitlines()
    return json.loads(line)


def test_it_works(team):
    app = factories.make_app(team, name="客服")
    api_key, key = factories.make_key(team, app=app)
    KeyActivity.objects.create(key=api_key, last_used_at="2026-01-02T03:04:05Z", last_used_from="203.0.113.7")
    result = manage("apikey", "list", "--team", team.name)
    assert result.returncode == 0
    assert result.stderr == ""
    head, line = result.stdout.splitlines()
    assert " ".join(head.split()) == "ID NAME KIND TEAM APP OWNER LAST 4 STATE EXPIRES LAST USED"
    assert line.split() == [
        *(api_key.pk, api_key.name, "app", team.name, "客服", api_key.owner.username, key[-4:], "usable", "never"),
        *("2026-01-02", "03:04:05+00:00"),
    ]


def test_columns_stand_below_each_other_whatever_the_script(team):
    factories.make_key(team, app=factories.make_app(team, name="客服客服"))
    factories.make_key(team, app=factories.make_app(team, name="a"))
    out, _ = call("apikey", "list", "--team", team.pk)
    head, second, first = out.splitlines()
    column = head.index("OWNER")
    assert second[column:].startswith("user-")
    # Four characters of the first row are twice as wide.
    assert first[column - 4 :].startswith("user-")


def test_newest_first_and_one_team_only(team):
    factories.make_key()
    older, newer = factories.make_key(team)[0], factories.make_key(team)[0]
    assert [row["id"] for row in rows("--team", team.pk)] == [newer.pk, older.pk]
    assert {older.pk, newer.pk} < {row["id"] for row in rows()}


def test_state(team):
    usable, _ = factories.make_key(team)
    expired, _ = factories.make_key(team, expires_at=timezone.now() - timedelta(days=1))
    disabled, _ = factories.make_key(team)
    disabled.disable()
    told = {row["id"]: row["why_unusable"] for row in rows("--team", team.pk)}
    assert told == {usable.pk: None, expired.pk: "It has expired.", disabled.pk: "It is disabled."}
    assert [row["id"] for row in rows("--team", team.pk, "--state", "usable")] == [usable.pk]
    assert [row["id"] for row in rows("--team", team.pk, "--state", "unusable")] == [disabled.pk, expired.pk]


def test_queries_do_not_grow_with_rows(team):
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            rows("--team", team.pk)
        return len(captured)

    factories.make_key(team)
    one = queries()
    for _ in range(4):
        factories.make_key(team, app=factories.make_app(team))
    assert queries() == one
    assert one <= 2


def test_nothing_to_list(team):
    assert rows("--team", team.pk) == []
    assert call("apikey", "list", "--team", team.pk) == ("", "No such keys.\n")


def test_a_name_cannot_steer_the_terminal(team):
    api_key, _ = factories.make_key(team, name="red\x1b[31m\nline")
    out, _ = call("apikey", "list", "--team", team.pk)
    assert "red\ufffd[31m\ufffdline" in out
    out, _ = call("apikey", "show", api_key.pk)
    assert "red\ufffd[31m\ufffdline" in out


@pytest.mark.parametrize(
    ("arguments", "mistake"),
    [(["--team", "nope"], "There is no team 'nope'"), (["--state", "odd"], "invalid choice: 'odd'")],
)
def test_refused(arguments, mistake):
    with pytest.raises(CommandError, match=mistake):
        call("apikey", "list", *arguments)


def test_show_works(team):
    api_key, key = factories.make_key(
        team, allowed_networks=["10.0.0.0/8"], note="for tests", secret=factories.unique("sk-of-another-system")
    )
    api_key.rotate(timedelta(hours=24))
    KeyActivity.objects.create(key=api_key, last_used_at="2026-01-02T03:04:05Z", last_used_from="203.0.113.7")
    result = manage("apikey", "show", api_key.pk)
    assert result.returncode == 0
    for expected in (
        *(api_key.pk, api_key.name, team.name, "usable", "for tests", "10.0.0.0/8", "203.0.113.7"),
        *("2026-01-02 03:04:05+00:00", f"******{key[-4:]}  pepper p1", ", imported", ", expires "),
    ):
        assert expected in result.stdout
    assert "Revoked" not in result.stdout


def test_show_json(team):
    api_key, key = factories.make_key(team)
    new = api_key.rotate()
    api_key.revoke(by="ann", reason="leaked")
    facts = json.loads(call("apikey", "show", api_key.pk, "--json")[0])
    assert facts["why_unusable"] == "It was revoked."
    assert (facts["revoked_by"], facts["revoked_reason"]) == ("ann", "leaked")
    assert [secret["last_four"] for secret in facts["secrets"]] == [key[-4:], new[-4:]]
    assert [secret["is_live"] for secret in facts["secrets"]] == [False, True]
    assert facts["secrets"][1]["expires_at"] is None


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_no_secret_and_no_digest_is_shown(team, form):
    api_key, key = factories.make_key(team)
    digest = bytes(api_key.secrets.get().digest)
    for subcommand in (("show", api_key.pk), ("list", "--team", team.pk)):
        out, err = call("apikey", *subcommand, *form)
        assert key not in out + err
        assert digest.hex() not in out + err
        assert "digest" not in out + err


def test_show_by_a_name_that_only_one_key_has(team):
    api_key, _ = factories.make_key(team)
    assert api_key.pk in call("apikey", "show", api_key.name)[0]


def test_show_ambiguous(team):
    name = factories.unique("twice")
    made = [factories.make_key(team, name=name)[0] for _ in range(2)]
    with pytest.raises(CommandError, match="More than one key is named") as error:
        call("apikey", "show", name)
    assert all(api_key.pk in str(error.value) for api_key in made)


def test_show_unknown():
    assert refusal(manage("apikey", "show", "nope")) == "There is no key 'nope'."


def test_a_key_given_in_place_of_its_id_is_not_repeated():
    _, key = factories.make_key()
    said = refusal(manage("apikey", "show", key))
    assert "Refer to it by its id" in said
    assert key[-10:] not in said
