"""Who calls: the forms of the credential, and each way in which a key is not usable (401)."""

from datetime import timedelta

import pytest
from django.utils import timezone

from apikeys.keys import crypto
from apikeys.keys.models import KeySecret
from apikeys.teams import Membership
from tests.conftest import Server
from tests.support import factories
from tests.support.processes import wait_for
from tests.support.refusals import check_refusal

KEY_SELF = "/api/v1/key"


def code_of(server: Server, key: str) -> str:
    response = server.get(KEY_SELF, key)
    return "works" if response.status_code == 200 else response.json()["error"]["code"]


def becomes(server: Server, key: str, code: str) -> None:
    """A change in the database reaches the server's cache within two seconds, without a restart."""
    wait_for(lambda: code_of(server, key) == code, f"{code} is answered", seconds=2)


def test_it_works(server: Server) -> None:
    api_key, key = factories.make_key()
    data = server.get(KEY_SELF, key).json()["data"]
    assert data["id"] == api_key.pk
    assert data["lastFour"] == key[-4:]


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER {}", "Bearer   {}"])
def test_forms_of_the_header(server: Server, form: str) -> None:
    _, key = factories.make_key()
    assert server.get(KEY_SELF, headers={"Authorization": form.format(key)}).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Basic {}",
        "{}",
        "Bearer {} {}",
        "Bearer {}, Bearer {}",
        "Token {}",
    ],
)
def test_malformed(server: Server, header: str) -> None:
    _, key = factories.make_key()
    response = server.get(KEY_SELF, headers={"Authorization": header.format(key, key)})
    check_refusal(response, "malformed_api_key")
    assert key not in response.text


@pytest.mark.parametrize("word", ["sk-1", "EMPTY", "x" * 300, "sk-proj-0123456789abcdefghijkl", "\u00fc-key"])
def test_a_word_that_is_no_key_of_ours(server: Server, word: str) -> None:
    response = server.get(KEY_SELF, headers={"Authorization": f"Bearer {word}".encode()})
    check_refusal(response, "invalid_api_key")
    assert word not in response.text


def test_two_headers_are_refused(server: Server) -> None:
    _, key = factories.make_key()
    headers = [("Authorization", f"Bearer {key}"), ("Authorization", f"Bearer {key}")]
    response = server.client.get(KEY_SELF, headers=headers)
    check_refusal(response, "malformed_api_key")


def test_a_key_elsewhere_is_no_key(server: Server) -> None:
    _, key = factories.make_key()
    check_refusal(server.get(f"{KEY_SELF}?apiKey={key}&key={key}&access_token={key}"), "missing_api_key")
    check_refusal(server.get(KEY_SELF, headers={"x-api-key": key}), "missing_api_key")
    check_refusal(server.get(KEY_SELF, headers={"Cookie": f"Authorization=Bearer {key}"}), "missing_api_key")


def test_unknown_and_mistyped_look_alike(server: Server) -> None:
    unknown = crypto.generate()
    mistyped = unknown[:-1] + ("a" if unknown[-1] != "a" else "b")
    messages = {
        check_refusal(server.get(KEY_SELF, key), "invalid_api_key")
        for key in (unknown, mistyped, "fastgpt-xxxxxx-short", "sk-" + "a" * 48, unknown.upper())
    }
    assert messages == {"This API key is not valid."}


def test_a_key_made_after_it_was_asked_for_is_found(server: Server) -> None:
    """A key that was remembered as unknown is forgotten as soon as it exists."""
    api_key, _ = factories.make_key()
    plaintext = crypto.generate()
    check_refusal(server.get(KEY_SELF, plaintext), "invalid_api_key")
    api_key.secrets.update(expires_at=timezone.now())
    KeySecret.objects.create_for(api_key, plaintext)
    becomes(server, plaintext, "works")


def test_revoked(server: Server) -> None:
    api_key, key = factories.make_key()
    assert code_of(server, key) == "works"
    api_key.revoke(by="test", reason="leaked")
    becomes(server, key, "revoked_api_key")
    check_refusal(server.get(KEY_SELF, key), "revoked_api_key")


def test_rotated(server: Server) -> None:
    api_key, old = factories.make_key()
    assert code_of(server, old) == "works"
    new = api_key.rotate()
    becomes(server, old, "rotated_api_key")
    check_refusal(server.get(KEY_SELF, old), "rotated_api_key")
    assert code_of(server, new) == "works"


def test_rotated_with_overlap(server: Server) -> None:
    api_key, old = factories.make_key()
    new = api_key.rotate(timedelta(seconds=3))
    assert code_of(server, old) == code_of(server, new) == "works"
    # The end of the overlap is compared at each request; nothing has to be heard.
    wait_for(lambda: code_of(server, old) == "rotated_api_key", "the overlap ends", seconds=5)
    assert code_of(server, new) == "works"


def test_expired(server: Server) -> None:
    _, key = factories.make_key(expires_at=timezone.now() + timedelta(seconds=2))
    assert code_of(server, key) == "works"
    wait_for(lambda: code_of(server, key) == "expired_api_key", "the key expires", seconds=4)
    message = check_refusal(server.get(KEY_SELF, key), "expired_api_key")
    assert message == f"Key ******{key[-4:]} is expired"


def test_disabled_and_enabled(server: Server) -> None:
    api_key, key = factories.make_key()
    assert code_of(server, key) == "works"
    api_key.disable()
    becomes(server, key, "disabled_api_key")
    check_refusal(server.get(KEY_SELF, key), "disabled_api_key")
    api_key.enable()
    becomes(server, key, "works")


def test_owner_inactive(server: Server) -> None:
    api_key, key = factories.make_key()
    assert code_of(server, key) == "works"
    type(api_key.owner).objects.filter(pk=api_key.owner_id).update(is_active=False)
    becomes(server, key, "disabled_api_key")


def test_owner_left_the_team(server: Server) -> None:
    api_key, key = factories.make_key()
    assert code_of(server, key) == "works"
    Membership.objects.filter(team=api_key.team, user=api_key.owner).delete()
    becomes(server, key, "disabled_api_key")


def test_team_disabled(server: Server) -> None:
    api_key, key = factories.make_key()
    assert code_of(server, key) == "works"
    type(api_key.team).objects.filter(pk=api_key.team_id).update(disabled_at=timezone.now())
    becomes(server, key, "disabled_api_key")


def test_a_bad_key_never_falls_back_to_a_session(server: Server) -> None:
    from tests.api.test_policy import session_of

    cookies = session_of(factories.make_user(factories.make_team(), permissions=("chat.view_app",)))
    headers = {"Cookie": f"sessionid={cookies['sessionid']}"}
    assert server.get("/api/core/app/list", headers=headers).status_code == 200
    check_refusal(server.get("/api/core/app/list", crypto.generate(), headers=headers), "invalid_api_key")


def test_a_session_without_its_csrf_token(server: Server) -> None:
    from tests.api.test_policy import session_of

    cookies = session_of(factories.make_user(factories.make_team(), permissions=("chat.view_app",)))
    headers = {"Cookie": f"sessionid={cookies['sessionid']}"}
    check_refusal(server.post("/api/core/app/list", headers=headers), "csrf_failed")


def test_a_secret_is_signed_with_the_first_pepper(server: Server) -> None:
    """How one of an older pepper moves to the first is shown in tests/unit/apikeys/access/test_lookup.py."""
    api_key, key = factories.make_key()
    assert code_of(server, key) == "works"
    assert api_key.secrets.get().pepper_id == "p1"


def test_an_imported_key_works_only_as_imported(server: Server) -> None:
    foreign = "sk-" + factories.unique("imported-key-of-another-system").replace("_", "-")
    check_refusal(server.get(KEY_SELF, foreign), "invalid_api_key")
    factories.make_key(secret=foreign)
    becomes(server, foreign, "works")


def test_no_key_is_ever_logged(server: Server) -> None:
    app = factories.make_app(factories.make_team())
    api_key, key = factories.make_key(app=app)
    server.get(KEY_SELF, key)
    server.get(f"{KEY_SELF}?key={key}", key)
    server.ask(key)
    server.get(KEY_SELF, crypto.generate())
    log = server.log()
    assert api_key.pk in log
    assert "fastgpt-" not in log
