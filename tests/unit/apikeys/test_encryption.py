from typing import Any

import pytest

from apikeys import encryption


@pytest.fixture(autouse=True)
def fresh_cipher() -> Any:
    encryption._cipher.cache_clear()
    yield
    encryption._cipher.cache_clear()


def test_it_works() -> None:
    ciphertext = encryption.encrypt("sk-secret")
    assert b"sk-secret" not in ciphertext
    assert encryption.decrypt(ciphertext) == "sk-secret"


def test_an_older_key_still_decrypts(settings: Any) -> None:
    ciphertext = encryption.encrypt("sk-secret")
    settings.ENCRYPTION_KEYS = [b"n" * 32, *settings.ENCRYPTION_KEYS]
    encryption._cipher.cache_clear()
    assert encryption.decrypt(ciphertext) == "sk-secret"


def test_a_lost_key_is_said_so(settings: Any) -> None:
    ciphertext = encryption.encrypt("sk-secret")
    settings.ENCRYPTION_KEYS = [b"n" * 32]
    encryption._cipher.cache_clear()
    with pytest.raises(encryption.DecryptionError):
        encryption.decrypt(ciphertext)
