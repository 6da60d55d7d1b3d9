"""Encryption at rest of secrets that must be read again, such as a provider's. Keys are never stored this way."""

import base64
from functools import cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings


class DecryptionError(Exception):
    """None of ENCRYPTION_KEYS decrypts this ciphertext."""


@cache
def _cipher() -> MultiFernet:
    return MultiFernet([Fernet(base64.urlsafe_b64encode(key)) for key in settings.ENCRYPTION_KEYS])


def encrypt(plaintext: str) -> bytes:
    return _cipher().encrypt(plaintext.encode())


def decrypt(ciphertext: bytes) -> str:
    """Decrypt with whichever of ENCRYPTION_KEYS fits. Raise DecryptionError if none does."""
    try:
        return _cipher().decrypt(bytes(ciphertext)).decode()
    except InvalidToken as error:
        raise DecryptionError("No key in ENCRYPTION_KEYS can decrypt this secret.") from error


def seal(secret: str, base_url: str) -> bytes:
    """Encrypt a provider's secret for one URL. Two saves that race can never pair it with another URL."""
    return encrypt(f"{base_url}\n{secret}")


def unseal(sealed: bytes, base_url: str) -> str:
    """Return a secret that was sealed for this URL. Raise DecryptionError, also if it was sealed for another."""
    meant_for, _, secret = decrypt(sealed).partition("\n")
    if meant_for != base_url:
        raise DecryptionError("This secret was given for another URL.")
    return secret
