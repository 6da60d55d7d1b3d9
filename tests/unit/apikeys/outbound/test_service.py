"""How a service is called: what stands in the head of a request, and what no message may repeat."""

import json

import pytest

from apikeys import encryption
from apikeys.outbound.failures import UnusableTarget
from apikeys.outbound.service import COLUMNS, Credentials, Service

URL = "https://api.example/v1"
ROW = {
    "base_url": URL,
    "query": "",
    "auth_header": "Authorization",
    "encrypted_secret": None,
    "encrypted_headers": None,
    "connect_seconds": 5,
    "total_seconds": 60,
}


def test_the_secret_is_a_bearer_token() -> None:
    assert Credentials.of("sk-\u00fc").head() == "Authorization: Bearer sk-\u00fc\r\n".encode()
    assert Credentials.of("sk-1", "authorization").head() == b"authorization: Bearer sk-1\r\n"
    assert Credentials.of(None).head() == b""


def test_another_header_has_it_alone() -> None:
    assert Credentials.of("sk-1", "api-key", {"X-Project": "7"}).head() == b"X-Project: 7\r\napi-key: sk-1\r\n"


def test_the_secret_has_its_header_for_itself() -> None:
    assert Credentials.of("sk-1", headers={"authorization": "x"}).head() == b"Authorization: Bearer sk-1\r\n"


def test_what_messages_may_repeat() -> None:
    """A short value of a header stands in any text; the secret is hidden however short it is."""
    credentials = Credentials.of("sk", headers={"X-Project": "7", "X-Token": "0123456789"})
    assert credentials.hidden == ("0123456789", "sk")
    service = Service.of_json({**ROW, "query": "api-version=2024-06-01&key=AIza0123456789abcdef"})
    assert service.credentials.hidden == ("AIza0123456789abcdef",)


@pytest.mark.parametrize("secret", ["a\r\nb", "a\nb", "a\0b", "a\x7fb"])
def test_nothing_can_end_its_line(secret: str) -> None:
    for credentials in (Credentials.of(secret), Credentials.of(None, "X", {"Y": secret})):
        with pytest.raises(UnusableTarget):
            credentials.head()


def test_a_service_of_a_row() -> None:
    sealed = "\\x" + encryption.seal("sk-1", URL).hex()
    headers = "\\x" + encryption.seal(json.dumps({"X-Project": "seventh-of-them"}), URL).hex()
    assert ROW.keys() == set(COLUMNS)
    service = Service.of_json({**ROW, "query": "v=1", "encrypted_secret": sealed, "encrypted_headers": headers})
    assert service.url("chat/completions") == f"{URL}/chat/completions?v=1"
    assert service.credentials.hidden == ("seventh-of-them", "sk-1")
    for text in (repr(service), str(service.credentials)):
        assert "seventh" not in text
        assert "sk-1" not in text


@pytest.mark.parametrize("column", ["encrypted_secret", "encrypted_headers"])
def test_a_secret_for_another_url_is_lost(column: str) -> None:
    sealed = "\\x" + encryption.seal("{}", "https://elsewhere.example/v1").hex()
    assert Service.of_json({**ROW, column: sealed}).is_secret_lost
    assert not Service.of_json(ROW).is_secret_lost
