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
        raise DecryptionError("No key in ENCRYPTION_KEYS decrypts this secret.") from error
