"""What every answer carries, whoever made it: the request id, CORS for configured origins, and its log line."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from django.conf import settings
from django.http import HttpResponse

from apikeys.access.endpoints import is_api_path
from apikeys.accounting import refusals
from apikeys.client_address import client_address
from apikeys.hot_path.trace import Trace
from apikeys.keys.crypto import PATTERN
from fastgpt_site.observability import metrics
from fastgpt_site.observability.logs import access_logger

Send = Callable[[dict[str, Any]], Awaitable[None]]


LOOK_SECONDS = 0.8
EXPOSED = ", ".join(
    ["X-Request-Id", "Retry-After", "RateLimit", "RateLimit-Policy"]
    + [f"X-RateLimit-{what}-{of}" for what in ("Limit", "Remaining", "Reset") for of in ("Requests", "Tokens")]
).encode()


class Answer:
    """One answer on its way out. `send` stands in for the server's own."""

    def __init__(self, scope: dict[str, Any], send: Send, trace: Trace) -> None:
        self.scope = scope
        self.trace = trace
        self.is_api = is_api_path(scope["path"])
        self.is_gone = False
        self.close_connection = False
        self.status: int | None = None
        self._send = send
        self._look: asyncio.TimerHandle | None = None

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], *self._own_headers()]
        await self._send(message)

    @property
    def _transport(self) -> asyncio.Transport | None:
        """uvicorn's connection, for what ASGI has no message for."""
        transport: asyncio.Transport | None = getattr(getattr(self._send, "__self__", None), "transport", None)
        return transport

    def abort(self) -> None:
        """Drop the connection, with all that a stalled reader has not taken."""
        self.is_gone = True
        if self._transport is not None:
            self._transport.abort()

    def when_connection_is_lost(self, leave: Callable[[], None]) -> None:
        """Call `leave` within a second of the connection's end.

        The server itself tells only the last of several requests that came at once on one connection.
        """
        loop = asyncio.get_running_loop()

        def look() -> None:
            if self._transport is not None and self._transport.is_closing():
                leave()
            else:
                self._look = loop.call_later(LOOK_SECONDS, look)

        self._look = loop.call_later(LOOK_SECONDS, look)

    def forget_connection(self) -> None:
        if self._look is not None:
            self._look.cancel()

    def _own_headers(self) -> list[tuple[bytes, bytes]]:
        headers = [(b"x-request-id", self.trace.request_id.encode()), *self.trace.headers]
        if self.close_connection:
            headers.append((b"connection", b"close"))
        if self.is_api and settings.CORS_ALLOWED_ORIGINS:
            headers += cors_headers(self.scope)
        return headers

    def _path(self) -> str:
        """The path as it may be written down: without a key that somebody put there, whatever system it is of."""
        path = PATTERN.sub("fastgpt-******", self.scope["path"])
        if self.is_api and self.trace.endpoint in (None, "unknown_path"):
            return "/".join(path.split("/")[:3])
        return path

    def end(self) -> None:
        """Log and count an answer that has ended, however it did."""
        self.log()
        metrics.observe(self.trace, self.scope["path"], self.status, is_api=self.is_api)

    def log(self) -> None:
        """One line: never a query string, a body, a credential."""
        trace = self.trace
        remote = self.scope.get("client")
        forwarded = header_of(self.scope, b"x-forwarded-for")
        address = client_address(remote[0] if remote else None, forwarded)
        fields: dict[str, Any] = {
            "request_id": trace.request_id,
            "method": self.scope["method"],
            "path": self._path(),
            "endpoint": trace.endpoint,
            "key_id": trace.key_id,
            "status": self.status,
            "duration_ms": trace.elapsed_ms,
            "client": None if address is None else str(address),
        }
        if trace.error_code:
            fields["error"] = trace.error_code
        if trace.user_id is not None:
            fields["user_id"] = trace.user_id
        if self.is_gone:
            fields["client_gone"] = True
        access_logger.info("request", extra={"fields": fields})
        if self.is_api and trace.refusal is not None:
            refusals.keep(trace, fields["client"])


def header_of(scope: dict[str, Any], name: bytes) -> str:
    """All values of a request header, joined as one."""
    values: list[str] = [value.decode("latin1") for key, value in scope["headers"] if key == name]
    return ",".join(values)


def cors_headers(scope: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    """What a browser at a configured origin may read. Never with credentials: a key is not a cookie."""
    headers = [(b"vary", b"Origin")]
    origin = header_of(scope, b"origin")
    if origin in settings.CORS_ALLOWED_ORIGINS:
        headers += [
            (b"access-control-allow-origin", origin.encode("latin1")),
            (b"access-control-expose-headers", EXPOSED),
        ]
    return headers


def preflight(scope: dict[str, Any]) -> HttpResponse:
    """The answer to OPTIONS, whoever asks: what could be sent here."""
    response = HttpResponse(status=204, headers={"Allow": "GET, HEAD, POST, PUT, DELETE, OPTIONS"})
    if header_of(scope, b"origin") in settings.CORS_ALLOWED_ORIGINS:
        response["Access-Control-Allow-Methods"] = "GET, POST, PUT, DELETE"
        response["Access-Control-Allow-Headers"] = "Authorization, Content-Type"
        response["Access-Control-Max-Age"] = "600"
    return response
