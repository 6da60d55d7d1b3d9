"""The format of a key: generating one, checking it, and turning it into the digest that is stored. Knows no database.

A key is `fastgpt-`, 46 random base62 characters (the first a lower-case letter) and a six-character base62
CRC32 of all that precedes it, so that a mistyped key is refused without a look-up and a secret scanner can
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
from functools import lru_cache

PREFIX = "fastgpt-"
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
RANDOM_LENGTH = 46
CHECKSUM_LENGTH = 6
# Secret scanners can use this pattern; docs/security.md has it.
PATTERN = re.compile(rf"{PREFIX}[a-z][0-9A-Za-z]{{{RANDOM_LENGTH + CHECKSUM_LENGTH - 1}}}")
# A key of another system may look like this. Longer or stranger text is not worth a look-up.
FOREIGN_PATTERN = re.compile(r"[0-9A-Za-z_.\-]{16,250}")
# Every two base62 digits, by their value.
_PAIRS = [high + low for high in ALPHABET for low in ALPHABET]
_APP_SUFFIX = re.compile(r"-([0-9a-f]{24})")
SUFFIX_LENGTH = 25


@dataclass(frozen=True, slots=True)
class Credential:
    """The text after `Bearer `: a key and, in some OpenAI clients, the app that it names."""

    key: str
    app_id: str | None

    def __repr__(self) -> str:
        return f"Credential(key='******{last_four(self.key)}', app_id={self.app_id!r})"


def generate() -> str:
    first = secrets.choice(string.ascii_lowercase)
    body = PREFIX + first + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_LENGTH - 1))
    return body + checksum(body)


def checksum(body: str) -> str:
    """Return the CRC32 of `body` as six base62 digits, zero-padded (62**6 is more than 2**32)."""
    value, low = divmod(zlib.crc32(body.encode()), len(_PAIRS))
    high, middle = divmod(value, len(_PAIRS))
    return _PAIRS[high] + _PAIRS[middle] + _PAIRS[low]


def is_ours(key: str) -> bool:
    if not PATTERN.fullmatch(key):
        return False
    body, claimed = key[:-CHECKSUM_LENGTH], key[-CHECKSUM_LENGTH:]
    return checksum(body) == claimed


def parse_credential(text: str) -> Credential | None:
    """Split `<key>` or `<key>-<appId>`; return None for anything else."""
    if not FOREIGN_PATTERN.fullmatch(text):
        return None
    suffix = _APP_SUFFIX.fullmatch(text, len(text) - SUFFIX_LENGTH) if len(text) > SUFFIX_LENGTH else None
    if suffix is None:
        return Credential(text, None)
    return Credential(text[:-SUFFIX_LENGTH], suffix[1])


def digest(key: str, pepper: bytes) -> bytes:
    # A key is random, so a slow hash would protect nothing.
    mac = _keyed(pepper).copy()
    mac.update(key.encode())
    return mac.digest()


@lru_cache(maxsize=16)
def _keyed(pepper: bytes) -> hmac.HMAC:
    # OpenSSL takes longer to make one than to compute a digest by a copy of it.
    return hmac.new(pepper, digestmod=hashlib.sha256)


def digests(key: str, peppers: Mapping[str, bytes]) -> dict[str, bytes]:
    return {pepper_id: digest(key, pepper) for pepper_id, pepper in peppers.items()}


def last_four(key: str) -> str:
    return key[-4:]
