"""Whether limits have room for a request: their decision, asked of the database for many requests at once."""

import asyncio
import contextlib
import math
import time
from collections.abc import Sequence

import msgspec

from apikeys.access.policy import KeyPolicy
from apikeys.accounting.durations import likely_seconds
from apikeys.accounting.units import points_text
from apikeys.errors import InsufficientQuota, RateLimited, ServiceUnavailable
from apikeys.hot_path.group_commit import Batcher
from apikeys.hot_path.servers import SERVER_ID
from apikeys.hot_path.statements import StatementConnection, format_array

# The words of refusals, which are English whatever the language of the site is: units, and what is done to them.
UNITS = {
    "requests": ("requests", "make"),
    "tokens": ("tokens", "use"),
    "micropoints": ("points", "use"),
    "open": ("requests", "have"),
}
PERIODS = {"minute": "a minute", "day": "a day", "week": "a week", "month": "a month", "total": "in total"}
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
        return 1 if self.resets_in is None else max(1, math.ceil(self.resets_in))

    def describe_shortage(self, whose: str) -> str:
        """Return what it allows, what is left of it and what the request needs, in a sentence."""
        unit, verb = UNITS[self.measure]
        amount = self._text(self.amount)
        unit = unit.removesuffix("s") if amount == "1" else unit
        if self.period == "now":
            return f"{whose} may have {amount} {unit} open at the same time, and {self._count(self.reserved)} open."
        parts = [f"{self._count(self.compute_left(is_admitted=False))} left"]
        if self.reserved:
            parts.append(f"{self._count(self.reserved)} reserved by open requests")
        if self.measure != "requests":
            parts.append(f"this request asks for up to {self._text(self.requested)}")
        *others, last = parts
        said = f"{', '.join(others)}, and {last}" if others else last
        return f"{whose} may {verb} {amount} {unit} {PERIODS[self.period]}; {said}."

    def _count(self, amount: int) -> str:
        text = self._text(amount)
        return "none are" if amount == 0 else f"{text} is" if text == "1" else f"{text} are"

    def _text(self, amount: int) -> str:
        return points_text(amount) if self.measure == "micropoints" else f"{amount:,}"


class Decision(msgspec.Struct, frozen=True):
    refused_by: int | None
    limits: list[LimitState]

    def check(self, policy: KeyPolicy) -> None:
        """Raise RateLimited or InsufficientQuota for a request that was refused."""
        if self.refused_by is None:
            return
        limit = next(limit for limit in self.limits if limit.id == self.refused_by)
        shortage = limit.describe_shortage("Your team" if limit.is_team else f"Key ******{policy.last_four}")
        is_budget = limit.period not in ("now", "minute")
        if is_budget and limit.used + limit.requested > limit.amount:
            retry_after = None if limit.resets_in is None else limit.reset_seconds
            raise InsufficientQuota(policy.last_four, shortage, retry_after)
        # Room that open requests hold is there again when they end.
        retry_after = limit.reset_seconds if limit.period == "minute" else likely_seconds(limit.id)
        raise RateLimited(shortage, retry_after, is_hopeless=limit.requested > limit.amount)


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
