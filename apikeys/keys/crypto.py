"""The form of a key: how one is made, told from noise, and turned into what is stored. Knows no database.

A key is `fastgpt-`, 46 random base62 characters (the first a lower-case letter) and a six-character base62
CRC32 of all that goes before, so that a mistyped key is refused without a look-up and a secret scanner can
tell a real key from a look-alike.
"""

import hashlib
import hmac
import re
import secrets
import string
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

PREFIX = "fastgpt-"
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
RANDOM_LENGTH = 46
CHECKSUM_LENGTH = 6
# For secret scanners; documented in docs/security.md.
PATTERN = re.compile(rf"{PREFIX}[a-z][0-9A-Za-z]{{{RANDOM_LENGTH + CHECKSUM_LENGTH - 1}}}")
# What a key of another system may look like. Longer or stranger text is not worth a look-up.
FOREIGN_PATTERN = re.compile(r"[0-9A-Za-z_.\-]{16,250}")
_APP_SUFFIX = re.compile(r"(?P<key>.+)-(?P<app_id>[0-9a-f]{24})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Credential:
    """What stands behind `Bearer `: a key and, in some OpenAI clients, the app it names."""

    key: str
    app_id: str | None

    def __repr__(self) -> str:
        return f"Credential(key='******{last_four(self.key)}', app_id={self.app_id!r})"


def generate() -> str:
    """Return a new plaintext key."""
    first = secrets.choice(string.ascii_lowercase)
    body = PREFIX + first + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_LENGTH - 1))
    return body + checksum(body)


def checksum(body: str) -> str:
    """CRC32 of `body` as six base62 digits, zero-padded (62**6 is more than 2**32)."""
    value = zlib.crc32(body.encode())
    digits = ""
    for _ in range(CHECKSUM_LENGTH):
        value, digit = divmod(value, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits


def is_ours(key: str) -> bool:
    """Whether `key` has this system's form and a right checksum."""
    if not PATTERN.fullmatch(key):
        return False
    body, claimed = key[:-CHECKSUM_LENGTH], key[-CHECKSUM_LENGTH:]
    return checksum(body) == claimed


def parse_credential(text: str) -> Credential | None:
    """Split `<key>` or `<key>-<appId>`; None if it can be neither."""
    if not FOREIGN_PATTERN.fullmatch(text):
        return None
    match = _APP_SUFFIX.fullmatch(text)
    if match is None:
        return Credential(text, None)
    return Credential(match["key"], match["app_id"])


def digest(key: str, pepper: bytes) -> bytes:
    """HMAC-SHA256 of the whole key: 32 bytes. A key is random, so a slow hash would protect nothing."""
    return hmac.digest(pepper, key.encode(), hashlib.sha256)


def digests(key: str, peppers: Mapping[str, bytes]) -> dict[str, bytes]:
    """The digest under every pepper, by pepper id, in the peppers' order."""
    return {pepper_id: digest(key, pepper) for pepper_id, pepper in peppers.items()}


def last_four(key: str) -> str:
    return key[-4:]
