"""`manage.py apikey create`."""

import json
from datetime import datetime, timedelta

import pytest
from django.core.management.base import CommandError
from django.utils import timezone

from apikeys.keys import crypto
from apikeys.keys.models import ApiKey
from tests.support import factories
from tests.support.commands import call, manage, refusal


def create(api_team, owner, *arguments: str) -> tuple[str, str]:
    return call("apikey", "create", "--team", api_team.pk, "--owner", owner.username, "--name", "made", *arguments)


@pytest.fixture
def team():
    return factories.make_team()


@pytest.fixture
def owner(team):
    return factories.make_user(team)


def made(team) -> ApiKey:
    return ApiKey.objects.get(team=team)


def test_it_works(team, owner):
    result = manage("apikey", "create", "--team", team.name, "--owner", owner.username, "--name", "made")
    assert result.returncode == 0
    (plaintext,) = result.stdout.splitlines()
    assert crypto.is_ours(plaintext)
    api_key = made(team)
    assert api_key.last_four == plaintext[-4:]
    assert api_key.owner == owner
    assert api_key.why_unusable is None
    assert f"Created the global key 'made' ({api_key.pk})." in result.stderr
    assert "only time" in result.stderr
    assert plaintext not in result.stderr


def test_everything_it_may_say(team, owner):
    app = factories.make_app(team)
    call(
        *("apikey", "create", "--team", team.pk, "--owner", owner.username, "--name", " made ", "--app", app.name),
        *("--network", "10.0.0.0/8", "--network", "2001:db8::/32", "--network", "10.0.0.0/8"),
        *("--endpoint", "chat.completions", "--model", "echo", "--model", "other", "--note", "for tests"),
    )
    api_key = made(team)
    assert api_key.name == "made"
    assert api_key.app == app
    assert api_key.allowed_networks == ["10.0.0.0/8", "2001:db8::/32"]
    assert api_key.allowed_endpoints == ["chat.completions"]
    assert api_key.allowed_models == ["echo", "other"]
    assert api_key.note == "for tests"


def test_app_by_id_and_naming_key(team, owner):
    app = factories.make_app(team)
    _, said = create(team, owner, "--app", app.pk)
    assert "app key" in said
    assert made(team).app == app
    _, said = create(team, owner, "--can-name-app")
    assert "global key that may name an app" in said


def test_json(team, owner):
    out, _ = create(team, owner, "--json")
    (line,) = out.splitlines()
    facts = json.loads(line)
    api_key = made(team)
    assert crypto.is_ours(facts["key"])
    assert facts["id"] == api_key.pk
    assert facts["last_four"] == facts["key"][-4:]
    assert facts["kind"] == "global"
    assert facts["is_usable"] is True


def test_expires_after_a_duration(team, owner):
    before = timezone.now()
    create(team, owner, "--expires", "90d")
    assert before + timedelta(days=90) <= made(team).expires_at <= timezone.now() + timedelta(days=90)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2090-12-31", "2090-12-31T00:00+01:00"),
        ("2090-12-31T18:30", "2090-12-31T18:30+01:00"),
        ("2090-12-31 18:30:05", "2090-12-31T18:30:05+01:00"),
        ("2090-12-31T18:30Z", "2090-12-31T18:30+00:00"),
        ("2090-12-31T18:30-08:00", "2090-12-31T18:30-08:00"),
    ],
)
def test_expires_at_a_time_of_the_project(team, owner, text, moment):
    with timezone.override("Europe/Berlin"):
        create(team, owner, "--expires", text)
    assert made(team).expires_at == datetime.fromisoformat(moment)


def test_it_says_when_the_key_cannot_be_used(team, owner):
    team.disabled_at = timezone.now()
    team.save()
    _, said = create(team, owner)
    assert "It still cannot be used: Its team is disabled." in said


@pytest.mark.parametrize(
    ("arguments", "mistake"),
    [
        (["--expires", "2020-01-01"], "'2020-01-01' is not in the future"),
        (["--expires", "0d"], "'0d' is not in the future"),
        (["--expires", "soon"], "'soon' is not a date or time"),
        (["--expires", "2090-02-30"], "'2090-02-30' is not a date or time"),
        (["--expires", "9999-12-31T23:59-14:00"], "is not a date or time"),
        (["--expires", "9999999d"], "is not a date or time"),
        (["--network", "10.0.0.1/8"], "--network: Item 1 .*'10.0.0.1/8' is not a network in CIDR notation"),
        (["--endpoint", "nope"], "There is no endpoint 'nope' for keys. Choose from: .*chat.completions"),
        (["--app", "nope"], "There is no app 'nope' in the team"),
        (["--note", ""], "--note: it is empty"),
        (["--model", "x" * 201], "--model: Item 1 .* at most 200 characters"),
        (["--name", "x" * 101], "--name: .* at most 100 characters"),
    ],
)
def test_refused(team, owner, arguments, mistake):
    with pytest.raises(CommandError, match=mistake):
        create(team, owner, *arguments)
    assert not team.api_keys.exists()


def test_app_key_names_no_app(team, owner):
    app = factories.make_app(team)
    with pytest.raises(CommandError, match=r"--can-name-app: .*only a global key can name one"):
        create(team, owner, "--app", app.pk, "--can-name-app")


def test_end_that_no_calendar_has(team, owner):
    with pytest.raises(CommandError, match="--expires: The expiry must be in the years 2000 to 9998"):
        create(team, owner, "--expires", "9999-12-31T23:59")


def test_app_of_another_team(team, owner):
    foreign = factories.make_app(factories.make_team())
    with pytest.raises(CommandError, match="There is no app"):
        create(team, owner, "--app", foreign.pk)


def test_archived_app(team, owner):
    app = factories.make_app(team, archived_at=timezone.now())
    with pytest.raises(CommandError, match="is archived"):
        create(team, owner, "--app", app.pk)


def test_ambiguous_app(team, owner):
    app, other = factories.make_app(team, name="twice"), factories.make_app(team, name="twice")
    with pytest.raises(CommandError, match=r"More than one app .* is named 'twice'. Give the id: ") as error:
        create(team, owner, "--app", "twice")
    assert app.pk in str(error.value)
    assert other.pk in str(error.value)
    create(team, owner, "--app", other.pk)


def test_a_team_named_like_the_id_of_another_is_ambiguous(team, owner):
    factories.make_team(name=team.pk)
    with pytest.raises(CommandError, match="More than one team"):
        create(team, owner)


def test_unknown_team():
    arguments = ["--team", "nope", "--owner", "x", "--name", "x"]
    assert refusal(manage("apikey", "create", *arguments)) == "There is no team 'nope'."


def test_unknown_owner(team):
    with pytest.raises(CommandError, match="There is no user 'nobody'"):
        call("apikey", "create", "--team", team.pk, "--owner", "nobody", "--name", "x")


def test_owner_who_is_no_member(team):
    with pytest.raises(CommandError, match="--owner: The owner must be a member of the team"):
        create(team, factories.make_user())
