"""Encryption at rest of what must be read again, such as a provider's secret. Keys are never stored this way."""

import base64
from functools import cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings


class DecryptionError(Exception):
    """None of ENCRYPTION_KEYS made this ciphertext."""


@cache
def _cipher() -> MultiFernet:
    return MultiFernet([Fernet(base64.urlsafe_b64encode(key)) for key in settings.ENCRYPTION_KEYS])


def encrypt(plaintext: str) -> bytes:
    """Encrypt under the first of ENCRYPTION_KEYS."""
    return _cipher().encrypt(plaintext.encode())


def decrypt(ciphertext: bytes) -> str:
    """Decrypt what any of ENCRYPTION_KEYS encrypted. Raises DecryptionError."""
    try:
        return _cipher().decrypt(bytes(ciphertext)).decode()
    except InvalidToken as error:
        raise DecryptionError("No key in ENCRYPTION_KEYS can decrypt this secret.") from error


def seal(secret: str, base_url: str) -> bytes:
    """Encrypt a provider's secret for one URL: it is good for no other, whatever races of two saves there are."""
    return encrypt(f"{base_url}\n{secret}")


def unseal(sealed: bytes, base_url: str) -> str:
    """The secret that was sealed for this URL. Raises DecryptionError, also for another's."""
    meant_for, _, secret = decrypt(sealed).partition("\n")
    if meant_for != base_url:
        raise DecryptionError("This secret was given for another URL.")
    return secret
