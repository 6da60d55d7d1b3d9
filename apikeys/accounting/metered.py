"""The accounting of one accepted call: reserve, run, and settle once, whichever way it ends.

`MeteredCall` is for synchronous views, `AsyncMeteredCall` for the hot path. Both hold room in the batcher that will
record the call and, where limits apply, a reservation in the database, which settling its record gives back.
"""

import asyncio
import contextlib
import time
from concurrent import futures
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, ClassVar, NamedTuple

from apikeys.access.policy import KeyPolicy
from apikeys.accounting import durations
from apikeys.accounting.admission import Decision, ReservationRequest, release_later, reserve_batcher
from apikeys.accounting.ledger import Outcome, TokenSource
from apikeys.accounting.recording import Usage, usage_batcher
from apikeys.accounting.units import cost_micropoints
from apikeys.errors import ApiError, InvalidParameter, ServiceUnavailable
from apikeys.hot_path.group_commit import Batcher
from apikeys.hot_path.in_flight import InFlight
from apikeys.hot_path.trace import Trace

# A body of this size costs little, whatever is wrong with it.
FREE_BODY_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf a call is made, and under which id it is recorded."""

    trace: Trace
    # It is None for signed-in staff, who have no limits and whose calls are charged to no key.
    policy: KeyPolicy | None
    endpoint: str

    @property
    def client_address(self) -> str | None:
        return self.trace.client_address

    @property
    def request_id(self) -> str:
        return self.trace.request_id


class Charge(NamedTuple):
    """Tokens, and the prices of the model that they are charged by, in millionths of a point for 1,000 tokens.

    `details` has what is charged at a price of its own, as `units.cost_micropoints` reads it.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    token_source: TokenSource | str = ""
    model: str = ""
    app_id: str | None = None
    prompt_price: int = 0
    completion_price: int = 0
    details: dict[str, int] | None = None

    @property
    def prompt_micropoints(self) -> int:
        return cost_micropoints(self.prompt_tokens, 0, self.prompt_price, self.completion_price)

    @property
    def micropoints(self) -> int:
        return cost_micropoints(
            self.prompt_tokens, self.completion_tokens, self.prompt_price, self.completion_price, self.details
        )


@dataclass(slots=True, kw_only=True)
class MeteredCall:
    """One call of a key. As it stands it asks no model and uses no tokens; a subclass says what it charges."""

    # Writes the records; a subclass whose record is more than its usage has one of its own.
    batcher: ClassVar[Batcher[Any, None]] = usage_batcher

    caller: Caller
    started: float = field(default_factory=time.monotonic)
    first_byte_at: float | None = None
    # The provider's own words about a failure, for operators.
    failure: Any = field(default=None, init=False)
    # The routes that were tried, where there was a choice.
    attempts: list[Any] | None = field(default=None, init=False)
    # Whether room is held in the batcher. It is given up by the one record that is made, or when there is none.
    has_room: bool = field(default=False, init=False)

    @property
    def policy(self) -> KeyPolicy:
        policy = self.caller.policy
        assert policy is not None  # noqa: S101 - only the calls of keys are reserved and recorded
        return policy

    @property
    def _holder(self) -> str | None:
        """Return with whom its room is counted: its team gets no more of it than is left for others."""
        policy = self.caller.policy
        return None if policy is None else policy.team_id

    def bound_charge(self) -> Charge:
        """Return the most that it may come to, which is reserved."""
        return Charge()

    def compute_charge(self, outcome: Outcome) -> Charge:
        return Charge()

    def build_item(self, usage: Usage) -> Any:
        return usage

    def reserve_from_thread(self) -> None:
        """Ask the limits. Raise RateLimited, InsufficientQuota or ServiceUnavailable; nothing is recorded then."""
        self._hold_room()
        try:
            request = self._reservation_request()
            future = reserve_batcher.enqueue_from_thread(request)
            done, _ = futures.wait([future], timeout=reserve_batcher.wait_seconds)
            if not done:
                self._settle_when_decided(future, Outcome.COMPLETE)
                raise ServiceUnavailable
            self._take_decision(request, future)
        except BaseException:
            self.drop_room()
            raise

    def record_from_thread(self, status: int) -> None:
        """Record its status, and wait for it. Raise ServiceUnavailable or Rejected."""
        item = self._record_item(Outcome.COMPLETE, status)
        has_room, self.has_room = self.has_room, False
        self.batcher.submit_from_thread(item, reserved=has_room, holder=self._holder)

    def drop_room(self) -> None:
        if self.has_room:
            self.has_room = False
            self.batcher.release(self._holder)

    def _hold_room(self) -> None:
        """Make sure that it can be recorded. Raise ServiceUnavailable when the batcher is full."""
        self.batcher.reserve(self._holder)
        self.has_room = True

    def _take_decision(self, request: ReservationRequest, future: Any) -> None:
        try:
            decision: Decision = future.result()
        except ServiceUnavailable:
            release_later(request.id)
            raise
        trace = self.caller.trace
        trace.request, trace.decision = request, decision
        decision.check(self.policy)

    def _settle_when_decided(self, future: Any, outcome: Outcome) -> None:
        # Nobody waits for the decision any more, and it may be yes: the room is kept until it comes.
        self.has_room = False
        future.add_done_callback(partial(self._settle_late, outcome))

    def _settle_late(self, outcome: Outcome, future: Any) -> None:
        is_known = not future.cancelled() and future.exception() is None
        if is_known and future.result().refused_by is None:
            item = self.build_item(self._usage(outcome, 503))
            self.batcher.enqueue_from_thread(item, reserved=True, holder=self._holder)
            return
        self.batcher.release(self._holder)
        if not is_known:
            release_later(self.caller.request_id)

    def _reservation_request(self) -> ReservationRequest:
        caller, policy, charge = self.caller, self.policy, self.bound_charge()
        return ReservationRequest(
            id=caller.request_id,
            team_id=policy.team_id,
            key_id=policy.key_id,
            app_id=charge.app_id,
            endpoint=caller.endpoint,
            model=charge.model,
            prompt_tokens=charge.prompt_tokens,
            tokens=charge.prompt_tokens + charge.completion_tokens,
            prompt_micropoints=charge.prompt_micropoints,
            micropoints=charge.micropoints,
            prompt_price=charge.prompt_price,
            completion_price=charge.completion_price,
        )

    def _record_item(self, outcome: Outcome, status: int) -> Any:
        self.caller.trace.usage = usage = self._usage(outcome, status)
        return self.build_item(usage)

    def _usage(self, outcome: Outcome, status: int) -> Usage:
        caller, policy, charge = self.caller, self.policy, self.compute_charge(outcome)
        return Usage(
            id=caller.request_id,
            team_id=policy.team_id,
            key_id=policy.key_id,
            app_id=charge.app_id,
            endpoint=caller.endpoint,
            model=charge.model,
            prompt_tokens=charge.prompt_tokens,
            completion_tokens=charge.completion_tokens,
            token_source=charge.token_source,
            cost_micropoints=charge.micropoints,
            prompt_price=charge.prompt_price,
            completion_price=charge.completion_price,
            status=status,
            outcome=outcome,
            failure=self.failure,
            attempts=self.attempts,
            details=charge.details,
            time_to_first_byte_ms=self._milliseconds_until(self.first_byte_at),
            duration_ms=self._milliseconds_until(time.monotonic()) or 0,
            client_address=caller.client_address,
        )

    def _milliseconds_until(self, moment: float | None) -> int | None:
        return None if moment is None else round((moment - self.started) * 1000)


@dataclass(slots=True, kw_only=True)
class AsyncMeteredCall(MeteredCall):
    """A call that may run for long, and be terminated. A subclass does its work in `async with self`.

    To enter is to be admitted: a refusal is raised there, and not recorded. To leave is to be settled, once: after
    a whole answer and after an ApiError when the record is durable; otherwise nobody is left to wait for that.
    """

    flight: InFlight

    @property
    def is_answering(self) -> bool:
        # A caller that has seen a part of the answer has seen the status 200.
        return False

    def hand_over(self, outcome: Outcome, status: int) -> asyncio.Future[None] | None:
        """Give the record to the batcher, which writes it whatever becomes of the caller.

        Return what `Batcher.wait` awaits; None when it was handed over before.
        """
        if not self.has_room:
            return None
        item = self._record_item(outcome, status)
        decision = self.caller.trace.decision
        if decision is not None:
            durations.note((limit.id for limit in decision.limits), time.monotonic() - self.started)
        self.has_room = False
        return self.batcher.enqueue(item, reserved=True, holder=self._holder)

    async def __aenter__(self) -> None:
        self._hold_room()
        try:
            if self.caller.policy is not None and self.caller.policy.has_limits:
                await self._reserve()
        except BaseException:
            self.drop_room()
            raise
        terminated_by = self.flight.terminated_by
        if terminated_by is not None:
            await self.__aexit__(type(terminated_by), terminated_by, None)
            raise terminated_by

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.flight.waiting = None
        try:
            if error is not None:
                await self._settle(error)
                return
            try:
                await self._record(Outcome.COMPLETE, 200)
            except BaseException as late:
                await self._settle(late)
                raise
        finally:
            self.drop_room()

    async def _settle(self, error: BaseException) -> None:
        """Record what came of it until this error. Raise the termination where that alone cancelled its task."""
        terminated_by = self.flight.terminated_by
        match error:
            case asyncio.CancelledError() if terminated_by is not None and self.flight.is_cancelled_by_termination():
                await self._settle(terminated_by)
                raise terminated_by
            case asyncio.CancelledError() | GeneratorExit():
                # A call whose reader held up its termination was dropped: the reader did not leave.
                self.hand_over(Outcome.CANCELLED if terminated_by is None else Outcome.TERMINATED, 200)
            case ApiError():
                outcome = Outcome.TERMINATED if error is terminated_by else Outcome.FAILED
                self.failure = error.failure
                await self._record(outcome, 200 if self.is_answering else error.status)
            case Exception():
                self.hand_over(Outcome.FAILED, 500)

    async def _record(self, outcome: Outcome, status: int) -> None:
        handed_over = self.hand_over(outcome, status)
        if handed_over is not None:
            await self.batcher.wait(handed_over)

    async def _reserve(self) -> None:
        request = self._reservation_request()
        future = reserve_batcher.enqueue(request)
        try:
            done, _ = await asyncio.wait({future}, timeout=reserve_batcher.wait_seconds)
        except asyncio.CancelledError:
            self._settle_when_decided(future, Outcome.CANCELLED)
            raise
        if not done:
            self._settle_when_decided(future, Outcome.CANCELLED)
            raise ServiceUnavailable
        self._take_decision(request, future)


async def count_refused(caller: Caller, size: int, error: ApiError | None = None) -> None:
    """Count a request whose body is wrong, if to find that out was work: decoding a large one is not free.

    Raise RateLimited or InsufficientQuota where the key's limits have no room for it.
    """
    policy = caller.policy
    if size <= FREE_BODY_BYTES or policy is None or not policy.has_limits:
        return
    flight = InFlight(policy.key_id, caller.trace.reader)
    refusal = error or InvalidParameter()
    try:
        with contextlib.suppress(type(refusal)):
            async with AsyncMeteredCall(caller=caller, flight=flight):
                raise refusal
    finally:
        flight.close()
