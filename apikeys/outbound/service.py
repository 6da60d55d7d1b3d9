"""A provider as it is called: its URLs, what opens it, and how long a call may take."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from apikeys import encryption
from apikeys.outbound.failures import UnusableTarget
from apikeys.outbound.targets import CONTROLS

AUTHORIZATION = "Authorization"
# Values of headers are hidden from here on, and those of query parameters, of which most are versions.
SHORTEST_HIDDEN, SHORTEST_HIDDEN_OF_QUERY = 8, 16
SEALED = ("encrypted_secret", "encrypted_headers")
COLUMNS = ("base_url", "query", "auth_header", *SEALED, "connect_seconds", "total_seconds")


@dataclass(frozen=True, slots=True)
class Credentials:
    """A secret and other headers. `lines` stand in a request's head; they are None if a value could end its line."""

    lines: bytes | None = field(default=b"", repr=False)
    # Texts that no message may repeat, the longest first.
    hidden: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def of(
        cls, secret: str | None, header: str = AUTHORIZATION, headers: Mapping[str, str] | None = None
    ) -> Credentials:
        found = dict(headers or {})
        if secret is not None:
            found = {name: value for name, value in found.items() if name.lower() != header.lower()}
            # Other headers have the secret alone.
            found[header] = f"Bearer {secret}" if header.lower() == AUTHORIZATION.lower() else secret
        # What is shorter stands in any message.
        values = {value for value in (headers or {}).values() if len(value) >= SHORTEST_HIDDEN}
        hidden = sorted(values | ({secret} if secret else set()), key=len, reverse=True)
        if any(not CONTROLS.isdisjoint(text) for pair in found.items() for text in pair):
            return cls(None, tuple(hidden))
        return cls("".join(f"{name}: {value}\r\n" for name, value in found.items()).encode(), tuple(hidden))

    def head(self) -> bytes:
        """Return the lines. Raise UnusableTarget where there are none that can be sent."""
        if self.lines is None:
            raise UnusableTarget("The secret has control characters.")
        return self.lines


@dataclass(frozen=True, slots=True)
class Service:
    """An OpenAI-compatible service. Times in seconds."""

    base_url: str
    query: str = ""
    credentials: Credentials = Credentials()
    # A secret that cannot be decrypted must not be mistaken for none.
    is_secret_lost: bool = False
    connect_seconds: int = 5
    total_seconds: int = 60

    @classmethod
    def of_columns(
        cls,
        *,
        base_url: str,
        query: str,
        auth_header: str,
        encrypted_secret: bytes | None,
        encrypted_headers: bytes | None,
        connect_seconds: int,
        total_seconds: int,
    ) -> Service:
        try:
            secret = None if encrypted_secret is None else encryption.unseal(encrypted_secret, base_url)
            headers = None if encrypted_headers is None else json.loads(encryption.unseal(encrypted_headers, base_url))
        except encryption.DecryptionError:
            return cls(base_url, query, Credentials(), True, connect_seconds, total_seconds)
        credentials = Credentials.of(secret, auth_header, headers)
        of_query = tuple(text for text in re.split("[&=]", query) if len(text) >= SHORTEST_HIDDEN_OF_QUERY)
        credentials = replace(credentials, hidden=credentials.hidden + of_query)
        return cls(base_url, query, credentials, False, connect_seconds, total_seconds)

    @classmethod
    def of_json(cls, columns: Mapping[str, Any]) -> Service:
        """Return the service of an object that `service_sql` makes."""
        sealed = {name: parse_bytes(columns[name]) for name in SEALED if columns[name] is not None}
        return cls.of_columns(**{**dict.fromkeys(SEALED), **columns, **sealed})

    def url(self, path: str) -> str:
        return f"{self.base_url}/{path}?{self.query}" if self.query else f"{self.base_url}/{path}"


def service_sql(provider: str) -> str:
    """Return an SQL expression: what a row of the table of providers has for its service, as JSON, or NULL."""
    pairs = ", ".join(f"'{name}', {provider}.{name}" for name in COLUMNS)
    return f"CASE WHEN {provider}.id IS NOT NULL THEN json_build_object({pairs}) END"


def parse_bytes(text: str) -> bytes:
    """Return the bytes that PostgreSQL has written as text."""
    return bytes.fromhex(text.removeprefix("\\x"))
