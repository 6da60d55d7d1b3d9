"""The trace of one request while it runs, for its X-Request-Id header, its log line, the ledger and metrics."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from django.http import HttpRequest

from apikeys.client_address import address_of
from apikeys.object_ids import new_object_id

if TYPE_CHECKING:
    from apikeys.access.policy import KeyPolicy
    from apikeys.accounting.admission import Decision, ReservationRequest
    from apikeys.accounting.recording import Usage
    from apikeys.errors import ApiError
    from apikeys.hot_path.request import AsyncRequest


class Reader(Protocol):
    """Whoever reads the response to a request."""

    @property
    def is_behind(self) -> bool:
        """Return whether it has not taken what was written."""

    def abort(self) -> None:
        """Drop its connection."""


class NoReader:
    """The reader of a request without a connection of its own."""

    is_behind = False

    def abort(self) -> None:
        pass


NO_READER = NoReader()


class Trace:
    """One request, from its first byte on. Its id is made here; one that a client sends is ignored."""

    __slots__ = (
        "client_address",
        "decision",
        "endpoint",
        "error_code",
        "headers",
        "policy",
        "reader",
        "refusal",
        "request",
        "request_id",
        "started",
        "usage",
        "user_id",
    )

    def __init__(self, client_address: str | None = None) -> None:
        self.client_address = client_address
        self.request_id = new_object_id()
        self.started = time.monotonic()
        self.endpoint: str | None = None
        # Set as soon as the key is known, also when it is refused.
        self.policy: KeyPolicy | None = None
        self.user_id: int | None = None
        self.error_code: str | None = None
        self.refusal: ApiError | None = None
        # The limits decided on this request with this decision.
        self.request: ReservationRequest | None = None
        self.decision: Decision | None = None
        self.reader: Reader = NO_READER
        # Set when the request was recorded in the ledger.
        self.usage: Usage | None = None
        # The response gets these headers too, such as what is left of limits.
        self.headers: list[tuple[bytes, bytes]] = []

    @property
    def key_id(self) -> str | None:
        return None if self.policy is None else self.policy.key_id

    @property
    def elapsed_ms(self) -> int:
        return round((time.monotonic() - self.started) * 1000)


def trace_of(request: HttpRequest | AsyncRequest) -> Trace:
    # A request that did not come through a connection of the server has no trace yet.
    trace: Trace | None = getattr(request, "trace", None)
    if trace is None:
        address = address_of(request)
        trace = Trace(None if address is None else str(address))
        attach(request, trace)
    return trace


def attach(request: HttpRequest | AsyncRequest, trace: Trace) -> None:
    request.trace = trace  # type: ignore[union-attr]
