"""ApiKey and KeySecret on the real database, with the changes that the database itself refuses."""

import threading
import traceback
from datetime import datetime, timedelta

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection
from django.db.models import ProtectedError
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apikeys.keys import crypto
from apikeys.keys.kinds import AccessKind
from apikeys.keys.models import MAXIMUM_OVERLAP, ApiKey, KeySecret, KeyStateError, live_secret_counts
from apikeys.teams import Membership
from tests.support import factories


def live(api_key: ApiKey) -> list[str]:
    """Return the last four of the secrets that work now, the newest first."""
    return list(api_key.secrets.live().order_by("-pk").values_list("last_four", flat=True))


def execute(sql: str, *parameters: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)


def revoked_key() -> ApiKey:
    api_key, _ = factories.make_key()
    api_key.revoke(by="ann", reason="leaked")
    return api_key


def test_it_works():
    api_key, key = factories.make_key()
    secret = api_key.secrets.get()
    assert crypto.is_ours(key)
    assert api_key.why_unusable is None
    assert api_key.last_four == secret.last_four == key[-4:]
    assert secret.pepper_id == "p1"
    assert not secret.is_imported


def test_only_the_keyed_digest_is_stored(settings):
    api_key, key = factories.make_key()
    assert bytes(api_key.secrets.get().digest) == crypto.digest(key, settings.API_KEY_PEPPERS["p1"])


def test_kind_is_derived():
    app = factories.make_app(factories.make_team())
    assert factories.make_key(app=app)[0].kind == AccessKind.APP
    assert factories.make_key()[0].kind == AccessKind.GLOBAL
    assert factories.make_key(can_name_app=True)[0].kind == AccessKind.GLOBAL_NAMING_APP


@pytest.mark.parametrize(
    ("field", "policy"),
    [
        ("name", {"name": ""}),
        ("name", {"name": "x" * 101}),
        ("allowed_networks", {"allowed_networks": ["10.0.0.1/8"]}),
        ("allowed_networks", {"allowed_networks": ["not a network"]}),
        ("allowed_networks", {"allowed_networks": ["fe80::1%eth0"]}),
        ("allowed_models", {"allowed_models": [""]}),
        ("secret", {"secret": ""}),
        ("secret", {"secret": "short"}),
        ("secret", {"secret": "a key with spaces in it"}),
        ("secret", {"secret": "x" * 251}),
        ("secret", {"secret": f"{'x' * 20}-{'a' * 24}"}),
    ],
)
def test_unsound_policy_makes_no_key(field, policy):
    team = factories.make_team()
    with pytest.raises(ValidationError) as refusal:
        factories.make_key(team, **policy)
    assert list(refusal.value.message_dict) == [field]
    assert not team.api_keys.exists()


@pytest.mark.parametrize("end", ["1999-12-31T23:59:59+00:00", "9999-01-01T00:00:00+00:00"])
def test_end_beyond_every_calendar(end):
    api_key, _ = factories.make_key()
    with pytest.raises(ValidationError, match="2000 to 9998"):
        api_key.set_end(datetime.fromisoformat(end))
    with pytest.raises(ValidationError, match="2000 to 9998"):
        factories.make_key(expires_at=end)


def test_owner_must_be_a_member():
    with pytest.raises(ValidationError) as refusal:
        factories.make_key(owner=factories.make_user(is_superuser=True))
    assert list(refusal.value.message_dict) == ["owner"]


def test_app_of_another_team():
    with pytest.raises(ValidationError) as refusal:
        factories.make_key(factories.make_team(), app=factories.make_app(factories.make_team()))
    assert list(refusal.value.message_dict) == ["app"]


def test_app_key_names_no_app():
    app = factories.make_app(factories.make_team())
    with pytest.raises(ValidationError) as refusal:
        factories.make_key(app=app, can_name_app=True)
    assert "can_name_app" in refusal.value.message_dict
    api_key, _ = factories.make_key(app=app)
    with pytest.raises(IntegrityError, match="apikey_app_key_names_no_app"):
        ApiKey.objects.filter(pk=api_key.pk).update(can_name_app=True)


def test_clean_without_a_team_leaves_the_complaint_to_the_field():
    with pytest.raises(ValidationError) as refusal:
        ApiKey(name="x").full_clean()
    assert refusal.value.message_dict.keys() == {"team", "owner"}


def test_imported_secret():
    plaintext = factories.unique("sk-of-another-system")
    api_key, key = factories.make_key(secret=plaintext)
    assert key == plaintext
    assert api_key.secrets.get().is_imported


def test_imported_secret_is_in_use(settings):
    """The unique index takes a digest under an older pepper for another plaintext, so it is looked for too."""
    plaintext = factories.unique("sk-of-another-system")
    factories.make_key(secret=plaintext)
    settings.API_KEY_PEPPERS = {"p2": b"2" * 32, **settings.API_KEY_PEPPERS}
    with pytest.raises(ValidationError, match="in use already"):
        factories.make_key(secret=plaintext)


def test_rotate_ends_the_old_secret_at_once():
    api_key, old = factories.make_key()
    new = api_key.rotate()
    assert crypto.is_ours(new)
    assert new != old
    assert live(api_key) == [new[-4:]]
    assert api_key.secrets.count() == 2
    assert api_key.last_four == new[-4:]


def test_rotate_with_overlap():
    api_key, old = factories.make_key()
    before = timezone.now()
    new = api_key.rotate(timedelta(hours=24))
    assert live(api_key) == [new[-4:], old[-4:]]
    ends = api_key.secrets.get(last_four=old[-4:]).expires_at
    assert before + timedelta(hours=24) <= ends <= timezone.now() + timedelta(hours=24)


def test_at_most_two_live():
    api_key, _ = factories.make_key()
    second = api_key.rotate(timedelta(hours=24))
    third = api_key.rotate(timedelta(hours=24))
    assert live(api_key) == [third[-4:], second[-4:]]
    assert live(api_key) != [api_key.rotate()[-4:], third[-4:]]
    assert len(live(api_key)) == 1


def test_a_shorter_overlap_ends_sooner_and_a_longer_one_revives_nothing():
    api_key, old = factories.make_key()
    api_key.rotate()
    ended = api_key.secrets.get(last_four=old[-4:]).expires_at
    api_key.rotate(timedelta(days=7))
    assert api_key.secrets.get(last_four=old[-4:]).expires_at == ended


@pytest.mark.parametrize("overlap", [timedelta(seconds=-1), MAXIMUM_OVERLAP + timedelta(seconds=1)])
def test_overlap_out_of_range(overlap):
    api_key, key = factories.make_key()
    with pytest.raises(KeyStateError, match="between 0 and 30 days"):
        api_key.rotate(overlap)
    assert live(api_key) == [key[-4:]]


def test_concurrent_rotations_leave_at_most_two_live():
    api_key, _ = factories.make_key()
    together = threading.Barrier(8)
    plaintexts: list[str] = []

    def rotate() -> None:
        try:
            mine = ApiKey.objects.get(pk=api_key.pk)
            together.wait(30)
            plaintexts.append(mine.rotate(timedelta(hours=1)))
        finally:
            connection.close()

    threads = [threading.Thread(target=rotate) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(set(plaintexts)) == 8
    assert api_key.secrets.count() == 9
    assert api_key.secrets.filter(expires_at=None).count() == 1
    assert len(live(api_key)) == 2
    assert set(live(api_key)) <= {plaintext[-4:] for plaintext in plaintexts}


def test_disable_and_enable():
    api_key, _ = factories.make_key()
    api_key.disable()
    assert api_key.why_unusable == "It is disabled."
    api_key.enable()
    assert api_key.disabled_at is None
    assert api_key.why_unusable is None


def test_revoke():
    api_key, _ = factories.make_key()
    api_key.revoke(by="ann", reason=" leaked ")
    assert api_key.why_unusable == "It was revoked."
    assert (api_key.revoked_by, api_key.revoked_reason) == ("ann", "leaked")


def test_revoke_asks_for_a_reason():
    api_key, _ = factories.make_key()
    with pytest.raises(KeyStateError):
        api_key.revoke(by="ann", reason=" ")
    assert api_key.revoked_at is None


def test_revoking_twice_keeps_who_did_it_first():
    api_key = revoked_key()
    first = api_key.revoked_at
    api_key.revoke(by="bob", reason="other")
    assert (api_key.revoked_at, api_key.revoked_by, api_key.revoked_reason) == (first, "ann", "leaked")


@pytest.mark.parametrize("change", ["disable", "enable", "rotate"])
def test_revoked_is_final(change):
    api_key = revoked_key()
    with pytest.raises(KeyStateError):
        getattr(api_key, change)()
    # A key that was read before it was revoked refuses it as well.
    stale, _ = factories.make_key()
    ApiKey.objects.get(pk=stale.pk).revoke(by="ann", reason="leaked")
    with pytest.raises(KeyStateError):
        getattr(stale, change)()


def test_why_unusable():
    team = factories.make_team()
    api_key, _ = factories.make_key(team)

    def why() -> str | None:
        plain, told = ApiKey.objects.get(pk=api_key.pk), ApiKey.objects.with_state().get(pk=api_key.pk)
        assert plain.why_unusable == told.why_unusable
        return plain.why_unusable

    assert why() is None
    api_key.secrets.update(expires_at=timezone.now())
    assert why() == "It has no secret; rotate it to get one."
    Membership.objects.filter(team=team).delete()
    assert why() == "Its owner has left the team."
    api_key.owner.is_active = False
    api_key.owner.save()
    assert why() == "Its owner is inactive."
    team.disabled_at = timezone.now()
    team.save()
    assert why() == "Its team is disabled."
    ApiKey.objects.filter(pk=api_key.pk).update(expires_at=timezone.now())
    assert why() == "It has expired."
    api_key.disable()
    assert why() == "It is disabled."
    api_key.revoke(by="ann", reason="leaked")
    assert why() == "It was revoked."


def test_with_state_is_one_query_for_all():
    team = factories.make_team()
    for _ in range(5):
        factories.make_key(team, app=factories.make_app(team))
    with CaptureQueriesContext(connection) as queries:
        rows = [
            (api_key.why_unusable, api_key.last_four, api_key.team.name, api_key.app.name, api_key.owner.username)
            for api_key in ApiKey.objects.with_state().for_team(team.pk)
        ]
    assert len(rows) == 5
    assert len(queries) == 1


def test_what_with_state_told_ends_with_a_rotation():
    api_key, _ = factories.make_key()
    api_key.secrets.update(expires_at=timezone.now())
    told = ApiKey.objects.with_state().get(pk=api_key.pk)
    assert told.why_unusable is not None
    new = told.rotate()
    assert told.why_unusable is None
    assert told.last_four == new[-4:]


@pytest.mark.parametrize(
    "change",
    [
        "team_id = (SELECT id FROM apikeys_team WHERE id <> team_id LIMIT 1)",
        "app_id = NULL",
        "id = repeat('a', 24)",
    ],
)
def test_database_refuses_to_move_a_key(change):
    factories.make_team()
    api_key, _ = factories.make_key(app=factories.make_app(factories.make_team()))
    with pytest.raises(IntegrityError):
        execute(f"UPDATE apikeys_apikey SET {change} WHERE id = %s", api_key.pk)


def test_database_refuses_to_make_a_global_key_an_app_key():
    team = factories.make_team()
    api_key, _ = factories.make_key(team)
    with pytest.raises(IntegrityError, match="never change"):
        execute("UPDATE apikeys_apikey SET app_id = %s WHERE id = %s", factories.make_app(team).pk, api_key.pk)


@pytest.mark.parametrize("value", ["NULL", "now() + interval '1 day'"])
def test_database_refuses_to_unrevoke(value):
    api_key = revoked_key()
    with pytest.raises(IntegrityError, match="stays revoked"):
        execute(f"UPDATE apikeys_apikey SET revoked_at = {value} WHERE id = %s", api_key.pk)


def test_database_refuses_to_delete_a_key():
    api_key, _ = factories.make_key()
    with pytest.raises(ProtectedError):
        api_key.delete()
    execute("DELETE FROM apikeys_keysecret WHERE key_id = %s", api_key.pk)
    with pytest.raises(IntegrityError, match="never deleted"):
        api_key.delete()
    with pytest.raises(IntegrityError, match="never deleted"):
        execute("DELETE FROM apikeys_apikey WHERE id = %s", api_key.pk)


def test_database_refuses_an_app_of_another_team():
    api_key, _ = factories.make_key()
    foreign = factories.make_app(factories.make_team())
    copy = (
        "INSERT INTO apikeys_apikey (id, team_id, app_id, owner_id, name, note, can_name_app, allowed_networks,"
        " allowed_endpoints, allowed_models, revoked_by, revoked_reason)"
        " SELECT %s, team_id, %s, owner_id, name, note, false, allowed_networks,"
        " allowed_endpoints, allowed_models, '', '' FROM apikeys_apikey WHERE id = %s"
    )
    with pytest.raises(IntegrityError, match="apikey_app_in_team"):
        execute(copy, factories.unique("x").rjust(24, "0")[-24:], foreign.pk, api_key.pk)
    # With an app of the team this statement succeeds: nothing else was the reason of the refusal.
    own = factories.make_app(api_key.team)
    execute(copy, factories.unique("x").rjust(24, "0")[-24:], own.pk, api_key.pk)


def test_database_refuses_to_move_an_app_with_keys_to_another_team():
    app = factories.make_app(factories.make_team())
    factories.make_key(app=app)
    with pytest.raises(IntegrityError):
        execute("UPDATE chat_app SET team_id = %s WHERE id = %s", factories.make_team().pk, app.pk)


def test_app_and_team_with_keys_are_kept():
    app = factories.make_app(factories.make_team())
    factories.make_key(app=app)
    for row in (app, app.team):
        with pytest.raises(ProtectedError):
            row.delete()


def test_database_refuses_a_second_current_secret():
    api_key, _ = factories.make_key()
    with pytest.raises(IntegrityError, match="keysecret_one_current"):
        KeySecret.objects.create_for(api_key, crypto.generate())


def test_database_refuses_one_plaintext_twice():
    api_key, key = factories.make_key()
    api_key.secrets.update(expires_at=timezone.now())
    with pytest.raises(IntegrityError) as refusal:
        KeySecret.objects.create_for(api_key, key)
    assert key not in "".join(traceback.format_exception(refusal.value))


def test_nothing_that_is_printed_holds_the_plaintext():
    api_key, key = factories.make_key()
    secret = api_key.secrets.get()
    for row in (api_key, secret, api_key.__dict__, secret.__dict__):
        assert key not in repr(row)
        assert key not in str(row)
    assert str(secret) == f"******{key[-4:]}"


def test_no_exception_holds_the_plaintext():
    plaintext = factories.unique("sk-of-another-system")
    factories.make_key(secret=plaintext)
    for wrong in (plaintext, plaintext + " ", f"{plaintext}-{'a' * 24}"):
        with pytest.raises(ValidationError) as refusal:
            factories.make_key(secret=wrong)
        assert plaintext not in "".join(traceback.format_exception(refusal.value))
        assert plaintext not in repr(refusal.value)


def test_live_secret_counts():
    before = live_secret_counts(["p1", "unused"])
    assert before["unused"] == 0
    api_key, _ = factories.make_key()
    api_key.rotate(timedelta(hours=1))
    assert live_secret_counts(["p1"])["p1"] == before["p1"] + 2
    api_key.rotate()
    assert live_secret_counts(["p1"])["p1"] == before["p1"] + 1
    api_key.revoke(by="ann", reason="leaked")
    assert live_secret_counts(["p1"])["p1"] == before["p1"]
