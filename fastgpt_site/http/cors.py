"""Cross-origin calls from configured origins. Never with credentials: a key is not a cookie."""

import re
from collections.abc import Sequence

from django.conf import settings

from apikeys.api.answers import Answer

Headers = Sequence[tuple[bytes, bytes]]

EXPOSED = ", ".join(
    ["X-Request-Id", "Retry-After", "RateLimit", "RateLimit-Policy"]
    + [f"X-RateLimit-{what}-{of}" for what in ("Limit", "Remaining", "Reset") for of in ("Requests", "Tokens")]
).encode()

NAME = re.compile(rb"[A-Za-z0-9-]{1,64}")
MOST_NAMES = 64


def origin_of(headers: Headers) -> str:
    return ",".join(value.decode("latin1") for name, value in headers if name == b"origin")


def cors_headers(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return the headers of the response to a request with these."""
    found = [(b"vary", b"Origin")]
    origin = origin_of(headers)
    if origin in settings.CORS_ALLOWED_ORIGINS:
        found += [
            (b"access-control-allow-origin", origin.encode("latin1")),
            (b"access-control-expose-headers", EXPOSED),
        ]
    return found


def _allowed(headers: Headers) -> bytes:
    """Return the names of headers that a client asked to send: none of them lets it do more."""
    asked = b",".join(value for name, value in headers if name == b"access-control-request-headers")
    names = [name for name in map(bytes.strip, asked.split(b",")[:MOST_NAMES]) if NAME.fullmatch(name)]
    return b", ".join(names) if names else b"Authorization, Content-Type"


def preflight(headers: Headers) -> Answer:
    found = [(b"allow", b"GET, HEAD, POST, PUT, DELETE, OPTIONS")]
    if origin_of(headers) in settings.CORS_ALLOWED_ORIGINS:
        found += [
            (b"access-control-allow-methods", b"GET, POST, PUT, DELETE"),
            (b"access-control-allow-headers", _allowed(headers)),
            (b"access-control-max-age", b"600"),
        ]
    return Answer(b"", 204, found)
