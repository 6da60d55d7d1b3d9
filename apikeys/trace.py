"""What is known of one request while it runs: for its answer's X-Request-Id, the log line and the ledger."""

import time

from django.http import HttpRequest

from apikeys.object_ids import new_object_id


class Trace:
    """One request, from its first byte on. The id is ours, always; what a client sends under that name is not it."""

    __slots__ = ("endpoint", "error_code", "headers", "key_id", "request_id", "started", "user_id")

    def __init__(self) -> None:
        self.request_id = new_object_id()
        self.started = time.monotonic()
        self.endpoint: str | None = None
        self.key_id: str | None = None
        self.user_id: int | None = None
        self.error_code: str | None = None
        # More headers for the answer: what is left of limits.
        self.headers: list[tuple[bytes, bytes]] = []

    @property
    def elapsed_ms(self) -> int:
        return round((time.monotonic() - self.started) * 1000)


def trace_of(request: HttpRequest) -> Trace:
    """The request's trace; one is begun for a request that did not come through the ASGI entry point."""
    trace: Trace | None = getattr(request, "trace", None)
    if trace is None:
        trace = Trace()
        attach(request, trace)
    return trace


def attach(request: HttpRequest, trace: Trace) -> None:
    request.trace = trace  # type: ignore[attr-defined]
