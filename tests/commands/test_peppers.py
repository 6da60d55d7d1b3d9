"""`manage.py peppers`."""

import json

import pytest
from django.core.management.base import CommandError
from django.utils import timezone

from apikeys.keys.models import ApiKey, KeySecret
from tests.support import factories
from tests.support.commands import call, manage, refusal

OLD, NEW = b"1" * 32, b"2" * 32


def rows(*arguments: str) -> dict[str, dict]:
    return {row["pepper_id"]: row for row in json.loads(call("peppers", "--json", *arguments)[0])}


@pytest.fixture(autouse=True)
def only_the_first_pepper(settings) -> None:
    """Other tests leave keys under peppers of their own."""
    strange = KeySecret.objects.exclude(pepper_id__in=settings.API_KEY_PEPPERS).values("key_id")
    ApiKey.objects.filter(pk__in=strange, revoked_at=None).update(revoked_at=timezone.now())


@pytest.fixture
def old(settings) -> str:
    """The id of a pepper that is configured second and used by no other test."""
    pepper_id = factories.unique("old")[-20:]
    settings.API_KEY_PEPPERS = {**settings.API_KEY_PEPPERS, pepper_id: OLD}
    return pepper_id


def make_old_key(settings, old):
    peppers = settings.API_KEY_PEPPERS
    settings.API_KEY_PEPPERS = {old: OLD}
    api_key, _ = factories.make_key()
    settings.API_KEY_PEPPERS = peppers
    return api_key


def revoke_all(*api_keys) -> None:
    """So that later tests meet no pepper that nobody configured."""
    for api_key in api_keys:
        api_key.revoke(by="test", reason="the test is over")


def test_it_works():
    factories.make_key()
    result = manage("peppers", "--check")
    assert (result.returncode, result.stderr) == (0, "")
    pepper_id, count, *decision = result.stdout.splitlines()[0].split()
    assert pepper_id == "p1"
    assert int(count) >= 1
    assert " ".join(decision).startswith("signs new keys")


def test_an_unused_pepper_may_be_dropped(old):
    assert "may be dropped" in call("peppers", "--check")[0]
    assert rows()[old] == {
        "pepper_id": old,
        "live_secrets": 0,
        "signs": False,
        "is_configured": True,
        "may_be_dropped": True,
    }


def test_a_used_pepper_must_stay(settings, old):
    api_key = make_old_key(settings, old)
    out, _ = call("peppers", "--check", "--keys")
    assert "must stay" in out
    assert f"\n  {api_key.pk}\n" in out
    assert rows()[old]["live_secrets"] == 1
    assert not rows()[old]["may_be_dropped"]
    assert rows("--keys")[old]["keys"] == [api_key.pk]
    api_key.rotate()
    assert rows()[old]["may_be_dropped"]


def test_a_revoked_key_holds_no_pepper(settings, old):
    make_old_key(settings, old).revoke(by="ann", reason="leaked")
    assert rows()[old]["may_be_dropped"]


def test_the_first_pepper_may_never_be_dropped(settings):
    first = factories.unique("new")[-20:]
    settings.API_KEY_PEPPERS = {first: NEW, **settings.API_KEY_PEPPERS}
    row = rows()[first]
    assert (row["live_secrets"], row["signs"], row["may_be_dropped"]) == (0, True, False)


def test_a_pepper_that_is_missing(settings, old):
    api_key = make_old_key(settings, old)
    del settings.API_KEY_PEPPERS[old]
    assert rows("--keys")[old] == {
        "pepper_id": old,
        "live_secrets": 1,
        "signs": False,
        "is_configured": False,
        "may_be_dropped": False,
        "keys": [api_key.pk],
    }
    assert f"{old}" in call("peppers")[0]
    with pytest.raises(CommandError, match=f"1 live secret.* API_KEY_PEPPERS lacks: {old}.* cannot be used"):
        call("peppers", "--check")
    revoke_all(api_key)
    call("peppers", "--check")


def test_check_exits_with_1(settings, old):
    """The process knows only the peppers of the data folder, not this one."""
    api_key = make_old_key(settings, old)
    result = manage("peppers", "--check")
    revoke_all(api_key)
    assert result.returncode == 1
    assert f"{old} " in result.stdout
    assert "NOT CONFIGURED" in result.stdout
    assert result.stderr.startswith("CommandError: 1 live secret(s) are under pepper(s) that API_KEY_PEPPERS lacks")
    assert result.stderr.count("\n") == 1


def test_help_says_how_to_rotate():
    result = manage("peppers", "--help")
    assert result.returncode == 0
    assert "To rotate peppers:" in result.stdout


def test_usage_error():
    assert refusal(manage("peppers", "--typo")).startswith("unrecognized arguments: --typo")


def test_no_pepper_is_printed():
    pepper = "ab" * 32
    result = manage("peppers", "--json", API_KEY_PEPPERS=f"p1:{pepper}")
    assert result.returncode == 0
    assert pepper not in result.stdout + result.stderr
