"""Cross-origin calls from configured origins. Never with credentials: a key is not a cookie."""

from django.conf import settings
from django.http import HttpResponse

from fastgpt_site.http.asgi_types import Scope

EXPOSED = ", ".join(
    ["X-Request-Id", "Retry-After", "RateLimit", "RateLimit-Policy"]
    + [f"X-RateLimit-{what}-{of}" for what in ("Limit", "Remaining", "Reset") for of in ("Requests", "Tokens")]
).encode()


def header_of(scope: Scope, name: bytes) -> str:
    values: list[str] = [value.decode("latin1") for key, value in scope["headers"] if key == name]
    return ",".join(values)


def cors_headers(scope: Scope) -> list[tuple[bytes, bytes]]:
    headers = [(b"vary", b"Origin")]
    origin = header_of(scope, b"origin")
    if origin in settings.CORS_ALLOWED_ORIGINS:
        headers += [
            (b"access-control-allow-origin", origin.encode("latin1")),
            (b"access-control-expose-headers", EXPOSED),
        ]
    return headers


def preflight(scope: Scope) -> HttpResponse:
    response = HttpResponse(status=204, headers={"Allow": "GET, HEAD, POST, PUT, DELETE, OPTIONS"})
    if header_of(scope, b"origin") in settings.CORS_ALLOWED_ORIGINS:
        response["Access-Control-Allow-Methods"] = "GET, POST, PUT, DELETE"
        response["Access-Control-Allow-Headers"] = "Authorization, Content-Type"
        response["Access-Control-Max-Age"] = "600"
    return response
