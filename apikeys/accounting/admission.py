"""Whether limits have room for a request: their decision, asked of the database for many requests at once."""

import asyncio
import contextlib
import math
import time
from collections.abc import Sequence

import msgspec

from apikeys.access.policy import KeyPolicy
from apikeys.errors import InsufficientQuota, RateLimited, ServiceUnavailable
from apikeys.hot_path.group_commit import Batcher
from apikeys.hot_path.servers import SERVER_ID
from apikeys.hot_path.statements import StatementConnection, format_array

# A request at the same time as others ends soon, but nobody knows when.
OPEN_RETRY_SECONDS = 1
# It is longer than the database lets such a statement run.
DECIDED_SECONDS = 16.0


class ReservationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The most that a request may use: its prompt's bound and the longest answer. Points in millionths."""

    id: str
    team_id: str
    key_id: str
    endpoint: str
    app_id: str | None = None
    model: str = ""
    prompt_tokens: int = 0
    tokens: int = 0
    prompt_micropoints: int = 0
    micropoints: int = 0
    # Prices are in millionths of a point for 1,000 tokens.
    prompt_price: int = 0
    completion_price: int = 0


class LimitState(msgspec.Struct, frozen=True):
    """One limit as the request found it. `resets_in` in seconds; None for what has no end."""

    id: int
    is_team: bool
    measure: str
    period: str
    amount: int
    used: int
    reserved: int
    requested: int
    resets_in: float | None
    time_zone: str = "UTC"
    # The beginning of the period, as the database writes it.
    since: str | None = None

    def compute_left(self, *, is_admitted: bool) -> int:
        """Return what later requests may still use, once this one is admitted, or refused at no cost."""
        taken = self.used + self.reserved + (self.requested if is_admitted else 0)
        return max(0, self.amount - taken)

    @property
    def reset_seconds(self) -> int:
        return OPEN_RETRY_SECONDS if self.resets_in is None else max(1, math.ceil(self.resets_in))


class Decision(msgspec.Struct, frozen=True):
    refused_by: int | None
    limits: list[LimitState]

    def check(self, policy: KeyPolicy) -> None:
        if self.refused_by is None:
            return
        limit = next(limit for limit in self.limits if limit.id == self.refused_by)
        whose = "Your team" if limit.is_team else f"Key ******{policy.last_four}"
        is_budget = limit.period not in ("now", "minute")
        if is_budget and limit.used + limit.requested > limit.amount:
            raise InsufficientQuota(policy.last_four, None if limit.resets_in is None else limit.reset_seconds)
        if limit.period == "now":
            raise RateLimited(f"{whose} may have {limit.amount} requests open at the same time.", OPEN_RETRY_SECONDS)
        if is_budget:
            raise RateLimited(f"{whose} has its last {limit.measure} reserved for open requests.", OPEN_RETRY_SECONDS)
        if limit.requested > limit.amount:
            raise RateLimited(
                f"{whose} may use {limit.amount} {limit.measure} a minute, "
                f"and this request asks for {limit.requested}.",
                limit.reset_seconds,
            )
        raise RateLimited(f"{whose} may use {limit.amount} {limit.measure} a minute.", limit.reset_seconds)


RESERVE_SQL = "SELECT ordinal, refused_by, limits FROM apikeys_reserve($1::jsonb)"
_states = msgspec.json.Decoder(list[LimitState])


async def reserve(connection: StatementConnection, batch: Sequence[ReservationRequest]) -> list[Decision]:
    items = [
        {**msgspec.structs.asdict(request), "ordinal": ordinal, "server_id": SERVER_ID}
        for ordinal, request in enumerate(batch)
    ]
    rows = await connection.execute(RESERVE_SQL, [msgspec.json.encode(items)])
    decisions = [Decision(None, [])] * len(batch)
    for ordinal, refused_by, limits in rows:
        decisions[int(ordinal)] = Decision(
            None if refused_by is None else int(refused_by), [] if limits is None else _states.decode(limits)
        )
    return decisions


reserve_batcher: Batcher[ReservationRequest, Decision] = Batcher("reserve", reserve, capacity=5_000, max_batch=128)


class UnknownDecision(msgspec.Struct, frozen=True):
    """A request that was refused because the database did not answer, and that it may have admitted all the same."""

    id: str
    # By then, on this process's monotonic clock, the database has ended the statement, one way or the other.
    decided_at: float


async def release(connection: StatementConnection, batch: Sequence[UnknownDecision]) -> list[None]:
    await asyncio.sleep(max(0.0, max(unknown.decided_at for unknown in batch) - time.monotonic()))
    await connection.execute("SELECT apikeys_release($1::text[])", [format_array(unknown.id for unknown in batch)])
    return [None] * len(batch)


release_batcher: Batcher[UnknownDecision, None] = Batcher("release", release, capacity=5_000, retry=True)


def release_later(request_id: str) -> None:
    # Where there is no room, it is given back when it has become too old for any request.
    with contextlib.suppress(ServiceUnavailable):
        release_batcher.enqueue_from_thread(UnknownDecision(request_id, time.monotonic() + DECIDED_SECONDS))
