"""A site that is reached over HTTPS only, behind a proxy that says so."""

from collections.abc import Iterator

import httpx2
import pytest

from apikeys.keys import crypto
from tests.conftest import Server, running_server
from tests.support import factories
from tests.support.conversations import make_app_key
from tests.support.fake_provider import FakeProvider
from tests.support.refusals import check_refusal

PROXY, STRANGER = "127.0.0.9", "127.0.0.8"


@pytest.fixture(scope="module")
def secure_server(database: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("secure") / "log", {"HTTPS": "true"}, is_ready=False) as server:
        yield server


def ask_from(server: Server, address: str, key: str, scheme: str | None) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {key}"} | ({"X-Forwarded-Proto": scheme} if scheme else {})
    with httpx2.Client(transport=httpx2.HTTPTransport(local_address=address), trust_env=False) as client:
        body = {"messages": [{"role": "user", "content": "hi"}]}
        return client.post(f"{server.url}/api/v1/chat/completions", headers=headers, json=body)


def test_it_works_through_the_proxy(secure_server: Server, provider: FakeProvider) -> None:
    assert ask_from(secure_server, PROXY, make_app_key(provider), "https").status_code == 200


def test_cookies_of_a_sign_in(secure_server: Server) -> None:
    user = factories.make_user()
    transport = httpx2.HTTPTransport(local_address=PROXY)
    with httpx2.Client(base_url=secure_server.url, transport=transport, trust_env=False) as client:
        headers = {"X-Forwarded-Proto": "https"}
        asked = client.get("/admin/login/", headers=headers)
        token = asked.cookies["csrftoken"]
        form = {"username": user.username, "password": factories.PASSWORD, "csrfmiddlewaretoken": token}
        headers |= {"Cookie": f"csrftoken={token}", "Referer": f"https://{asked.url.netloc.decode()}/admin/login/"}
        answer = client.post("/admin/login/", data=form, headers=headers)
    assert answer.status_code == 302, answer.text
    set_cookies = [*asked.headers.get_list("set-cookie"), *answer.headers.get_list("set-cookie")]
    for name, attributes in (("csrftoken", {"secure", "samesite=lax"}), ("sessionid", {"secure", "httponly"})):
        found = [cookie for cookie in set_cookies if cookie.startswith(f"{name}=")]
        assert found, name
        for cookie in found:
            told = {part.strip().lower() for part in cookie.split(";")}
            assert attributes | {"samesite=lax"} <= told, cookie


@pytest.mark.parametrize(("address", "scheme"), [(PROXY, None), (PROXY, "http"), (STRANGER, "https"), (STRANGER, None)])
def test_without_https(secure_server: Server, provider: FakeProvider, address: str, scheme: str | None) -> None:
    check_refusal(ask_from(secure_server, address, make_app_key(provider), scheme), "https_required")


def test_an_unknown_key(secure_server: Server) -> None:
    """What its proxy says of the way counts before the key, also where the key is known to be none."""
    key = crypto.generate()
    for _ in range(2):
        check_refusal(ask_from(secure_server, PROXY, key, "https"), "invalid_api_key")
        check_refusal(ask_from(secure_server, PROXY, key, "https, http"), "invalid_api_key")
        check_refusal(ask_from(secure_server, PROXY, key, "http, https"), "https_required")
        check_refusal(ask_from(secure_server, PROXY, key, None), "https_required")
        check_refusal(ask_from(secure_server, STRANGER, key, "https"), "https_required")


def test_what_is_not_recorded_is_not_answered(database: None, tmp_path_factory: pytest.TempPathFactory) -> None:
    """In the contract's shape, also where the record is written after the view."""
    _, key = factories.make_key()
    changes = {"RECORDER_QUEUE_SIZE": "0"}
    with running_server(tmp_path_factory.mktemp("full") / "log", changes) as server:
        check_refusal(server.get("/api/core/app/list", key), "service_unavailable")


def test_an_unknown_host(server: Server) -> None:
    _, key = factories.make_key()
    response = server.get("/api/v1/key", key, headers={"Host": "evil.example"})
    check_refusal(response, "invalid_parameter")
