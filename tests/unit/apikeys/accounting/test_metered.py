"""Metered calls on the real database: each is settled once, whichever way it ends, and its room is free again."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from apikeys.access.lookup import find_policy_from_thread
from apikeys.access.policy import SiteRules
from apikeys.accounting.admission import reserve_batcher
from apikeys.accounting.ledger import Outcome, TokenSource, UsageRecord
from apikeys.accounting.limits import Counter, Limit
from apikeys.accounting.metered import AsyncMeteredCall, Caller, Charge, MeteredCall
from apikeys.accounting.recording import Usage, write
from apikeys.accounting.reservations import Reservation
from apikeys.errors import InsufficientQuota, RevokedKey, ServiceUnavailable, UpstreamError
from apikeys.hot_path.connections import connect
from apikeys.hot_path.group_commit import Batcher
from apikeys.hot_path.in_flight import InFlight
from apikeys.hot_path.statements import StatementConnection
from apikeys.hot_path.trace import Trace
from tests.support import factories
from tests.support.drift import drifted_since, newest_limit
from tests.support.locks import is_waited_for
from tests.support.processes import wait_for

RULES = SiteRules({}, False)
# A call of the tests uses 3 + 4 tokens of at most 10 + 20, at 500 and 1,000 millionths of a point for 1,000 of them.
TOKENS, COST = 7, 6


class Recorder:
    """Writes to the ledger and remembers what it was given. It has room for one record at a time."""

    def __init__(self) -> None:
        self.items: list[Usage] = []
        self.batcher: Batcher[Any, None] = Batcher("metered", self.write, capacity=1, retry=True)

    async def write(self, connection: StatementConnection, batch: Sequence[Usage]) -> list[None]:
        self.items += batch
        return await write(connection, batch)

    def has_room(self) -> bool:
        try:
            self.batcher.reserve()
        except ServiceUnavailable:
            return False
        self.batcher.release()
        return True


recorder = Recorder()


class Broken(Exception):
    pass


@dataclass(slots=True)
class PlainCall(MeteredCall):
    batcher: ClassVar[Batcher[Any, None]] = recorder.batcher


@dataclass(slots=True)
class Call(AsyncMeteredCall):
    """A call that is charged for nothing where it failed."""

    batcher: ClassVar[Batcher[Any, None]] = recorder.batcher

    is_half_sent: bool = False
    cannot_be_kept: bool = False
    is_running: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_answering(self) -> bool:
        return self.is_half_sent

    def bound_charge(self) -> Charge:
        return Charge(10, 20, TokenSource.BOUND, "model", None, 500, 1_000)

    def compute_charge(self, outcome: Outcome) -> Charge:
        tokens = (0, 0) if outcome == Outcome.FAILED else (3, 4)
        return Charge(*tokens, TokenSource.PROVIDER, "model", None, 500, 1_000)

    def build_item(self, usage: Usage) -> Usage:
        if self.cannot_be_kept and usage.outcome == Outcome.COMPLETE:
            raise Broken
        return usage

    async def answer(self, error: Exception | None = None) -> None:
        async with self:
            self.is_running.set()
            if error is not None:
                raise error

    async def wait(self) -> None:
        """Wait for a provider that does not answer."""
        async with self:
            self.flight.waiting = asyncio.current_task()
            self.is_running.set()
            await asyncio.Event().wait()

    async def stream(self) -> AsyncGenerator[str, None]:
        async with self:
            self.is_half_sent = True
            yield "a"
            self.flight.check()
            yield "b"


@pytest.fixture(scope="module", autouse=True)
def no_drift(database: None) -> Iterator[None]:
    """After all of this module's tests counters and ledger agree."""
    before = newest_limit()
    yield
    asyncio.run(recorder.batcher.close())
    assert drifted_since(before) == []


def make_caller(measure: str = "tokens", amount: int | None = 100) -> Caller:
    api_key, key = factories.make_key()
    if amount is not None:
        Limit.objects.create(team=api_key.team, key=api_key, measure=measure, period="day", amount=amount)
    return Caller(Trace("10.0.0.1"), find_policy_from_thread(key, RULES), "x")


def make_call(caller: Caller) -> Call:
    return Call(caller=caller, flight=InFlight(caller.trace.key_id, caller.trace.reader))


@pytest.fixture
def room() -> Iterator[None]:
    """All room is free again in the end, and nothing was recorded twice."""
    recorder.items.clear()
    yield
    wait_for(recorder.has_room, "the room is free again", seconds=5)
    assert len({usage.id for usage in recorder.items}) == len(recorder.items)


@pytest.fixture
def call(room: None) -> Iterator[Call]:
    """A call of a key with a limit."""
    call = make_call(make_caller())
    yield call
    call.flight.close()


@pytest.fixture
def plain_call(room: None) -> PlainCall:
    return PlainCall(caller=make_caller("requests"))


def counts(call: MeteredCall) -> tuple[int, int]:
    """Return how much of its key's limit is used, and how much is reserved."""
    counter = Counter.objects.get(limit__key=call.policy.key_id)
    return counter.used, counter.reserved


def check_settled(call: MeteredCall, outcome: Outcome, status: int, used: int = TOKENS) -> UsageRecord:
    """Its one record says this, and nothing is reserved any more."""
    (record,) = UsageRecord.objects.filter(key=call.policy.key_id)
    assert record.pk == call.caller.request_id
    assert (record.outcome, record.status) == (outcome, status)
    assert not Reservation.objects.filter(key=call.policy.key_id).exists()
    assert counts(call) == (used, 0)
    assert [(usage.id, usage.outcome) for usage in recorder.items] == [(record.pk, outcome)]
    return record


def check_settled_soon(call: MeteredCall, outcome: Outcome, status: int, used: int = TOKENS) -> None:
    """Check it where nobody waits for the record."""
    wait_for(UsageRecord.objects.filter(key=call.policy.key_id).exists, "the record", seconds=5)
    check_settled(call, outcome, status, used)


def check_not_recorded(call: MeteredCall) -> None:
    assert not UsageRecord.objects.filter(key=call.policy.key_id).exists()
    assert not Reservation.objects.filter(key=call.policy.key_id).exists()
    assert counts(call) == (0, 0)
    assert recorder.items == []


@contextmanager
def slow_limits(call: MeteredCall) -> Iterator[Callable[[], bool]]:
    """Decisions about its key come at the end, not before; yields whether one is waited for."""
    with connect() as connection, connection.transaction():
        connection.execute(
            "SELECT FROM apikeys_counter WHERE limit_id IN (SELECT id FROM apikeys_limit WHERE key_id = %s) FOR UPDATE",
            [call.policy.key_id],
        )
        yield lambda: is_waited_for(connection)


async def until(condition: Callable[[], Any]) -> None:
    await asyncio.to_thread(wait_for, condition, "what the test waits for", 5)


def use_up(call: MeteredCall) -> None:
    Limit.objects.filter(key=call.policy.key_id).update(amount=0)


def test_complete(call: Call) -> None:
    assert asyncio.run(call.answer()) is None
    # It has waited: the record is there.
    record = check_settled(call, Outcome.COMPLETE, 200)
    assert (record.prompt_tokens, record.completion_tokens, record.cost_micropoints) == (3, 4, COST)
    assert (record.model, record.prompt_price, record.completion_price) == ("model", 500, 1_000)
    assert (record.token_source, record.client_address) == (TokenSource.PROVIDER, "10.0.0.1")
    trace = call.caller.trace
    assert trace.usage is recorder.items[0]
    assert trace.request is not None
    assert (trace.request.prompt_tokens, trace.request.tokens) == (10, 30)
    assert (trace.request.prompt_micropoints, trace.request.micropoints) == (5, 25)
    assert trace.decision is not None
    assert trace.decision.refused_by is None


def test_without_limits(room: None) -> None:
    call = make_call(make_caller(amount=None))
    asyncio.run(call.answer())
    assert call.caller.trace.decision is None
    assert UsageRecord.objects.get(pk=call.caller.request_id).outcome == Outcome.COMPLETE
    call.flight.close()


def test_refused(call: Call) -> None:
    use_up(call)
    with pytest.raises(InsufficientQuota):
        asyncio.run(call.answer())
    check_not_recorded(call)
    assert not call.is_running.is_set()
    assert call.caller.trace.decision is not None


def test_no_room_to_record(call: Call) -> None:
    recorder.batcher.reserve()
    with pytest.raises(ServiceUnavailable):
        asyncio.run(call.answer())
    recorder.batcher.release()
    check_not_recorded(call)


def test_its_caller_leaves(call: Call) -> None:
    async def leave() -> None:
        task = asyncio.create_task(call.wait())
        await call.is_running.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(leave())
    assert call.flight.waiting is None
    check_settled_soon(call, Outcome.CANCELLED, 200)


@pytest.mark.parametrize(("is_half_sent", "status"), [(False, 401), (True, 200)])
def test_it_is_terminated(call: Call, is_half_sent: bool, status: int) -> None:
    async def terminate() -> None:
        call.is_half_sent = is_half_sent
        task = asyncio.create_task(call.wait())
        await call.is_running.wait()
        call.flight.terminate(RevokedKey())
        with pytest.raises(RevokedKey):
            await task
        assert task.cancelling() == 0

    asyncio.run(terminate())
    check_settled(call, Outcome.TERMINATED, status)


def test_it_is_terminated_and_its_caller_leaves(call: Call) -> None:
    async def terminate_and_leave() -> None:
        task = asyncio.create_task(call.wait())
        await call.is_running.wait()
        call.flight.terminate(RevokedKey())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(terminate_and_leave())
    check_settled_soon(call, Outcome.TERMINATED, 200)


def test_it_is_terminated_before_it_runs(call: Call) -> None:
    async def terminate_first() -> None:
        call.flight.terminate(RevokedKey())
        await call.answer()

    with pytest.raises(RevokedKey):
        asyncio.run(terminate_first())
    assert not call.is_running.is_set()
    check_settled(call, Outcome.TERMINATED, 401)


def test_a_stream_is_read_to_its_end(call: Call) -> None:
    async def read() -> list[str]:
        return [text async for text in call.stream()]

    assert asyncio.run(read()) == ["a", "b"]
    check_settled(call, Outcome.COMPLETE, 200)


def test_a_stream_is_terminated(call: Call) -> None:
    async def read() -> None:
        async for _ in call.stream():
            call.flight.terminate(RevokedKey())

    with pytest.raises(RevokedKey):
        asyncio.run(read())
    check_settled(call, Outcome.TERMINATED, 200)


@pytest.mark.parametrize("is_terminated", [False, True])
def test_a_stream_is_closed(call: Call, is_terminated: bool) -> None:
    async def read() -> None:
        async with aclosing(call.stream()) as stream:
            await anext(stream)
            if is_terminated:
                call.flight.terminate(RevokedKey())

    asyncio.run(read())
    check_settled_soon(call, Outcome.TERMINATED if is_terminated else Outcome.CANCELLED, 200)


@pytest.mark.parametrize(("is_half_sent", "status"), [(False, 502), (True, 200)])
def test_it_fails(call: Call, is_half_sent: bool, status: int) -> None:
    call.is_half_sent = is_half_sent
    with pytest.raises(UpstreamError):
        asyncio.run(call.answer(UpstreamError()))
    assert check_settled(call, Outcome.FAILED, status, used=0).cost_micropoints == 0


def test_it_fails_unexpectedly(call: Call) -> None:
    with pytest.raises(Broken):
        asyncio.run(call.answer(Broken()))
    check_settled_soon(call, Outcome.FAILED, 500, used=0)


def test_its_record_cannot_be_built(call: Call) -> None:
    call.cannot_be_kept = True
    with pytest.raises(Broken):
        asyncio.run(call.answer())
    check_settled_soon(call, Outcome.FAILED, 500, used=0)


def test_its_record_takes_too_long(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not answered then, and recorded all the same."""
    monkeypatch.setattr(recorder.batcher, "wait_seconds", 0.2)

    with connect() as connection, connection.transaction():
        connection.execute("LOCK TABLE apikeys_usagerecord IN EXCLUSIVE MODE")
        with pytest.raises(ServiceUnavailable):
            asyncio.run(call.answer())
        assert call.is_running.is_set()
    check_settled_soon(call, Outcome.COMPLETE, 200)


@pytest.mark.parametrize("is_admitted", [True, False])
def test_its_caller_leaves_before_the_decision(call: Call, is_admitted: bool) -> None:
    async def leave() -> None:
        with slow_limits(call) as is_deciding:
            task = asyncio.create_task(call.wait())
            await until(is_deciding)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            # The room is kept for the record that may come.
            assert not recorder.has_room()
        await until(recorder.has_room)

    if not is_admitted:
        use_up(call)
    asyncio.run(leave())
    assert not call.is_running.is_set()
    assert call.caller.trace.usage is None
    if is_admitted:
        check_settled_soon(call, Outcome.CANCELLED, 503)
    else:
        check_not_recorded(call)


def test_the_decision_takes_too_long(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reserve_batcher, "wait_seconds", 0.2)

    async def give_up() -> None:
        with slow_limits(call), pytest.raises(ServiceUnavailable):
            await call.answer()
        await until(recorder.has_room)

    asyncio.run(give_up())
    assert not call.is_running.is_set()
    check_settled_soon(call, Outcome.CANCELLED, 503)


def test_complete_in_a_thread(plain_call: PlainCall) -> None:
    plain_call.reserve_from_thread()
    assert counts(plain_call) == (0, 1)
    plain_call.record_from_thread(404)
    record = check_settled(plain_call, Outcome.COMPLETE, 404, used=1)
    assert (record.model, record.token_source, record.cost_micropoints) == ("", "", 0)
    assert plain_call.caller.trace.usage is recorder.items[0]


def test_refused_in_a_thread(plain_call: PlainCall) -> None:
    use_up(plain_call)
    with pytest.raises(InsufficientQuota):
        plain_call.reserve_from_thread()
    assert plain_call.caller.trace.decision is not None
    check_not_recorded(plain_call)


def test_no_room_in_a_thread(plain_call: PlainCall) -> None:
    """A call without limits asks for room when it is recorded."""
    recorder.batcher.reserve()
    with pytest.raises(ServiceUnavailable):
        plain_call.reserve_from_thread()
    with pytest.raises(ServiceUnavailable):
        plain_call.record_from_thread(200)
    recorder.batcher.release()
    check_not_recorded(plain_call)
    plain_call.record_from_thread(200)
    check_settled(plain_call, Outcome.COMPLETE, 200, used=1)


@pytest.mark.parametrize("is_admitted", [True, False])
def test_the_decision_takes_too_long_in_a_thread(
    plain_call: PlainCall, monkeypatch: pytest.MonkeyPatch, is_admitted: bool
) -> None:
    monkeypatch.setattr(reserve_batcher, "wait_seconds", 0.2)
    if not is_admitted:
        use_up(plain_call)
    with slow_limits(plain_call):
        with pytest.raises(ServiceUnavailable):
            plain_call.reserve_from_thread()
        assert not recorder.has_room()
    wait_for(recorder.has_room, "the decision", seconds=5)
    if is_admitted:
        check_settled_soon(plain_call, Outcome.COMPLETE, 503, used=1)
    else:
        check_not_recorded(plain_call)
