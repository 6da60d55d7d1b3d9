"""Keys are found by their digests, and their use moves them to the first pepper."""

import threading
from collections.abc import Iterator

import pytest

from apikeys.access.policy import KeyPolicy
from apikeys.hot_path.connections import Connection, connect
from apikeys.keys import crypto
from apikeys.keys.models import ApiKey
from tests.support import factories
from tests.support.flushes import load_policies

OLD, NEW = b"1" * 32, b"2" * 32


@pytest.fixture
def database_connection() -> Iterator[Connection]:
    with connect() as connection:
        yield connection


def old_key(settings, **policy) -> tuple[ApiKey, str]:
    """Return a key whose digest has the old pepper, with a new pepper configured before it."""
    settings.API_KEY_PEPPERS = {"old": OLD}
    made = factories.make_key(**policy)
    settings.API_KEY_PEPPERS = {"new": NEW, "old": OLD}
    return made


def load(connection: Connection, settings, *plaintexts: str) -> list[KeyPolicy | None]:
    return load_policies(connection, [crypto.digests(key, settings.API_KEY_PEPPERS) for key in plaintexts])


def stored(api_key: ApiKey) -> tuple[str, bytes]:
    secret = api_key.secrets.get()
    return secret.pepper_id, bytes(secret.digest)


def test_it_works(database_connection, settings):
    app = factories.make_app(factories.make_team())
    api_key, key = factories.make_key(app=app, allowed_networks=["10.0.0.0/8"], allowed_models=["echo"])
    (policy,) = load(database_connection, settings, key)
    assert policy is not None
    assert (policy.key_id, policy.team_id, policy.app_id) == (api_key.pk, app.team_id, app.pk)
    assert (policy.owner_id, policy.owner_name) == (api_key.owner_id, api_key.owner.username)
    assert (policy.name, policy.last_four, policy.kind) == (api_key.name, key[-4:], api_key.kind)
    assert [str(network) for network in policy.allowed_networks] == ["10.0.0.0/8"]
    assert policy.allowed_models == {"echo"}
    assert not policy.is_revoked
    assert not policy.is_disabled
    policy.check_usable()


def test_a_secret_of_an_old_pepper_is_found_and_moved(database_connection, settings):
    api_key, key = old_key(settings)
    assert stored(api_key) == ("old", crypto.digest(key, OLD))
    (policy,) = load(database_connection, settings, key)
    assert policy is not None
    assert policy.key_id == api_key.pk
    assert stored(api_key) == ("new", crypto.digest(key, NEW))


def test_it_is_found_again_when_it_has_moved(database_connection, settings):
    api_key, key = old_key(settings)
    load(database_connection, settings, key)
    settings.API_KEY_PEPPERS = {"new": NEW}
    (policy,) = load(database_connection, settings, key)
    assert policy is not None
    assert policy.key_id == api_key.pk


def test_twice_in_one_batch(database_connection, settings):
    api_key, key = old_key(settings)
    found = load(database_connection, settings, key, crypto.generate(), key)
    assert [policy and policy.key_id for policy in found] == [api_key.pk, None, api_key.pk]
    assert stored(api_key)[0] == "new"


def test_a_racing_process_finds_it_too(settings):
    """One process has moved the secret and not committed yet, while another looks it up."""
    api_key, key = old_key(settings)
    found: list[KeyPolicy | None] = []
    with connect() as first, connect() as second:
        pid = second.info.backend_pid
        with first.transaction():
            (policy,) = load(first, settings, key)
            assert policy is not None
            racing = threading.Thread(target=lambda: found.extend(load(second, settings, key)))
            racing.start()
            waits = "SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted"
            while not first.execute(waits, [pid]).fetchone()[0]:
                assert racing.is_alive()
        racing.join(30)
    assert [policy and policy.key_id for policy in found] == [api_key.pk]
    assert stored(api_key) == ("new", crypto.digest(key, NEW))


def test_unknown_digests_find_nothing(database_connection, settings):
    api_key, key = old_key(settings)
    assert load(database_connection, settings, crypto.generate()) == [None]
    # A key whose pepper is no longer configured is not found either, and stays as it was.
    settings.API_KEY_PEPPERS = {"new": NEW}
    assert load(database_connection, settings, key) == [None]
    assert stored(api_key) == ("old", crypto.digest(key, OLD))


def test_a_batch_of_unknown_digests(database_connection, settings):
    assert load(database_connection, settings, *(crypto.generate() for _ in range(100))) == [None] * 100


def test_an_ended_secret_is_still_known(database_connection, settings):
    """Its caller learns that the key was rotated, and not that it never existed."""
    _, key = factories.make_key()
    api_key, old = factories.make_key()
    api_key.rotate()
    found = load(database_connection, settings, key, old)
    assert [policy and policy.secret_expires_at is not None for policy in found] == [False, True]
