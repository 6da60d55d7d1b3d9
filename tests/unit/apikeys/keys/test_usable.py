"""A key that works: lists, pages, alerts and the hot path mean the same by it."""

from collections.abc import Callable
from datetime import timedelta
from itertools import combinations

from django.conf import settings
from django.utils import timezone

from apikeys.access.policy import KeyPolicy
from apikeys.errors import AuthenticationError
from apikeys.hot_path.connections import connect
from apikeys.keys import crypto
from apikeys.keys.models import WHY_UNUSABLE, ApiKey, conditions
from apikeys.teams import Membership, Team
from tests.support import factories
from tests.support.flushes import load_policies


def revoke(api_key: ApiKey) -> None:
    api_key.revoke(by="somebody", reason="test")


def expire(api_key: ApiKey) -> None:
    ApiKey.objects.filter(pk=api_key.pk).update(expires_at=timezone.now() - timedelta(minutes=1))


def disable_team(api_key: ApiKey) -> None:
    Team.objects.filter(pk=api_key.team_id).update(disabled_at=timezone.now())


def deactivate_owner(api_key: ApiKey) -> None:
    type(api_key.owner).objects.filter(pk=api_key.owner_id).update(is_active=False)


def end_membership(api_key: ApiKey) -> None:
    Membership.objects.filter(user=api_key.owner_id).delete()


def end_secret(api_key: ApiKey) -> None:
    api_key.secrets.update(expires_at=timezone.now() - timedelta(minutes=1))


# In an order in which each can still be done after those before it.
WAYS: dict[str, Callable[[ApiKey], None]] = {
    "expired": expire,
    "disabled": ApiKey.disable,
    "revoked": revoke,
    "team": disable_team,
    "owner": deactivate_owner,
    "membership": end_membership,
    "secret": end_secret,
}


def looked_up(plaintexts: list[str]) -> list[KeyPolicy | None]:
    with connect() as connection:
        return load_policies(connection, [crypto.digests(key, settings.API_KEY_PEPPERS) for key in plaintexts])


def is_accepted(policy: KeyPolicy | None) -> bool:
    try:
        assert policy is not None
        policy.check_usable()
    except AuthenticationError:
        return False
    return True


def test_every_condition_has_a_reason_and_a_way_to_break_it():
    assert list(conditions()) == list(WHY_UNUSABLE)
    assert WAYS.keys() == WHY_UNUSABLE.keys()


def test_all_agree_on_every_combination_of_reasons():
    keys: dict[str, set[str]] = {}
    plaintexts = []
    for count in range(len(WAYS) + 1):
        for ways in combinations(WAYS, count):
            api_key, plaintext = factories.make_key(expires_at=timezone.now() + timedelta(days=1))
            for way in ways:
                WAYS[way](api_key)
            keys[api_key.pk] = set(ways)
            plaintexts.append(plaintext)
    assert len(keys) == 2 ** len(WAYS)
    first = {key_id: next((reason for reason in WHY_UNUSABLE if reason in ways), None) for key_id, ways in keys.items()}
    expected = {key_id: reason and WHY_UNUSABLE[reason] for key_id, reason in first.items()}
    rows = ApiKey.objects.filter(pk__in=keys)
    assert {api_key.pk: api_key.why_unusable for api_key in rows.with_state()} == expected
    assert {api_key.pk: api_key.why_unusable for api_key in rows} == expected
    working = {key_id for key_id, ways in keys.items() if not ways}
    assert {api_key.pk for api_key in rows.usable()} == working
    accepted = dict(zip(keys, map(is_accepted, looked_up(plaintexts)), strict=True))
    assert {key_id for key_id, is_usable in accepted.items() if is_usable} == working


def test_an_end_that_lies_ahead_and_a_second_secret_do_no_harm():
    api_key, old = factories.make_key(expires_at=timezone.now() + timedelta(days=1))
    new = api_key.rotate(timedelta(hours=1))
    assert ApiKey.objects.usable().filter(pk=api_key.pk).count() == 1
    assert [is_accepted(policy) for policy in looked_up([old, new])] == [True, True]


def test_a_key_that_never_had_a_secret():
    team = factories.make_team()
    api_key = ApiKey.objects.create(team=team, owner=factories.make_user(team), name="without")
    assert not ApiKey.objects.usable().filter(pk=api_key.pk).exists()
    assert api_key.why_unusable == WHY_UNUSABLE["secret"]


def test_state_that_was_read_ends_with_a_change():
    api_key, _ = factories.make_key()
    read = ApiKey.objects.with_state().get(pk=api_key.pk)
    read.disable()
    assert read.why_unusable == "It is disabled."
    read.enable()
    assert read.why_unusable is None
