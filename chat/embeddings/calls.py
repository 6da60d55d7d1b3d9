"""One call for vectors, from its admission to its record. Knows nothing of HTTP.

As with a completion, an accepted call is recorded once, however it ends, and answered when its record is durable.
"""

import asyncio
import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from struct import pack
from typing import Any, NoReturn

import msgspec

from apikeys.access.policy import KeyPolicy
from apikeys.accounting.admission import Admission, ReservationRequest
from apikeys.accounting.ledger import Outcome, TokenSource
from apikeys.accounting.recording import Usage, usage_batcher
from apikeys.errors import ApiError, UpstreamError
from apikeys.hot_path.in_flight import InFlight
from chat.completions.completion import Caller
from chat.embeddings.models import TeamModel
from datasets.vectors.embeddings import BATCH, count_tokens, embed

# What a model adds to a text: its first and its last token, and a blank.
TEXT_OVERHEAD_TOKENS = 4


@dataclass(slots=True)
class EmbeddingCall:
    """Texts to embed on behalf of a key. After `answer`, `vectors` are the items of its list, as JSON."""

    model: TeamModel
    texts: Sequence[str]
    caller: Caller
    policy: KeyPolicy
    flight: InFlight
    is_base64: bool
    started: float = field(default_factory=time.monotonic)
    is_asked: bool = False
    first_byte_at: float | None = None
    dimension: int | None = None
    # How many of the texts were embedded, and their tokens; None when the provider does not count.
    answered: int = 0
    counted: int | None = 0
    vectors: list[bytes] = field(default_factory=list)

    @property
    def is_counted(self) -> bool:
        """Whether all was embedded, and counted by who did it."""
        return self.counted is not None and self.answered == len(self.texts)

    @property
    def tokens(self) -> int:
        return self.counted if self.counted is not None and self.is_counted else bound_of(self.texts)

    async def answer(self) -> None:
        """Embed all and record it. Raises RateLimited, InsufficientQuota, UpstreamError or ServiceUnavailable."""
        with Admission(usage_batcher) as admission:
            await self._reserve(admission)
            try:
                self.flight.check()
                self.is_asked = True
                self.flight.waiting = asyncio.current_task()
                for start in range(0, len(self.texts), BATCH):
                    await self._embed(self.texts[start : start + BATCH])
                self.flight.waiting = None
                await self._record(admission, Outcome.COMPLETE, 200)
            except asyncio.CancelledError:
                if not self.flight.is_cancelled_by_termination():
                    self._hand_over(
                        admission, Outcome.CANCELLED if self.flight.terminated_by is None else Outcome.TERMINATED, 200
                    )
                    raise
                await self._record_failure(admission, self.flight.terminated_by)
            except ApiError as error:
                await self._record_failure(admission, error)
            except Exception:
                self._hand_over(admission, Outcome.FAILED, 500)
                raise

    async def _embed(self, texts: Sequence[str]) -> None:
        """A batch at a time, and kept as JSON: as numbers of Python, vectors take much more room."""
        embedded = await embed(self.model.model, texts)
        if self.first_byte_at is None:
            self.first_byte_at = time.monotonic()
        count = embedded.prompt_tokens
        if self.model.model.is_static:
            count = sum(await count_tokens(texts))
        self.answered += len(texts)
        self.counted = None if count is None or self.counted is None else self.counted + count
        for vector in embedded.vectors:
            if self.dimension not in (None, len(vector)):
                raise UpstreamError("The provider of embeddings failed.")
            self.dimension = len(vector)
            self.vectors.append(self._written(vector))

    def _written(self, vector: Sequence[float]) -> bytes:
        written: Any = vector
        if self.is_base64:
            written = base64.b64encode(pack(f"<{len(vector)}f", *vector)).decode()
        return msgspec.json.encode({"object": "embedding", "index": len(self.vectors), "embedding": written})

    def _cost(self, tokens: int) -> int:
        """Millionths of a point, rounded up."""
        return -(-tokens * self.model.price // 1000)

    async def _reserve(self, admission: Admission) -> None:
        """Ask the limits, if there are any. Nothing is recorded of what they refuse."""
        caller, policy = self.caller, self.policy
        if not policy.has_limits:
            return
        bound = bound_of(self.texts)
        request = ReservationRequest(
            id=caller.request_id,
            team_id=policy.team_id,
            key_id=policy.key_id,
            endpoint=caller.endpoint,
            model=self.model.model.name,
            prompt_tokens=bound,
            tokens=bound,
            prompt_micropoints=self._cost(bound),
            micropoints=self._cost(bound),
            prompt_price=self.model.price,
        )
        decision = await admission.reserve(request, lambda: self._usage(Outcome.CANCELLED, 503, 0, TokenSource.BOUND))
        caller.trace.request, caller.trace.decision = request, decision
        decision.check(policy)

    async def _record_failure(self, admission: Admission, error: ApiError | None) -> NoReturn:
        """Record what came of it until it failed or was cut, and raise why."""
        assert error is not None  # noqa: S101 - a cut has its reason
        self.flight.waiting = None
        await self._record(
            admission, Outcome.FAILED if error is not self.flight.terminated_by else Outcome.TERMINATED, error.status
        )
        raise error

    async def _record(self, admission: Admission, outcome: Outcome, status: int) -> None:
        handed_over = self._hand_over(admission, outcome, status)
        if handed_over is not None:
            await usage_batcher.wait(handed_over)

    def _hand_over(self, admission: Admission, outcome: Outcome, status: int) -> asyncio.Future[None] | None:
        """Give the record to the ledger, which writes it whatever becomes of the caller; None if it has it."""
        self.flight.waiting = None
        if not admission.is_open:
            return None
        self.caller.trace.usage = record = self._usage(outcome, status, *self._charge(outcome))
        future: asyncio.Future[None] = admission.record(record)
        return future

    def _charge(self, outcome: Outcome) -> tuple[int, TokenSource]:
        """The tokens that it comes to. Of one that failed those of the batches before, which the provider answered."""
        if not self.is_asked:
            return 0, TokenSource.BOUND
        if outcome != Outcome.FAILED:
            return self.tokens, TokenSource.PROVIDER if self.is_counted else TokenSource.BOUND
        if self.answered and self.counted is not None:
            return self.counted, TokenSource.PROVIDER
        return bound_of(self.texts[: self.answered]), TokenSource.BOUND

    def _usage(self, outcome: Outcome, status: int, tokens: int, source: TokenSource) -> Usage:
        caller, policy = self.caller, self.policy
        return Usage(
            id=caller.request_id,
            team_id=policy.team_id,
            key_id=policy.key_id,
            endpoint=caller.endpoint,
            model=self.model.model.name,
            prompt_tokens=tokens,
            token_source=source,
            cost_micropoints=self._cost(tokens),
            prompt_price=self.model.price,
            status=status,
            outcome=outcome,
            time_to_first_byte_ms=self._since_start(self.first_byte_at),
            duration_ms=self._since_start(time.monotonic()) or 0,
            client_address=caller.client_address,
        )

    def _since_start(self, moment: float | None) -> int | None:
        return None if moment is None else round((moment - self.started) * 1000)


def bound_of(texts: Sequence[str]) -> int:
    """A token of a byte-level vocabulary is at least one byte of UTF-8."""
    return sum(len(text.encode()) + TEXT_OVERHEAD_TOKENS for text in texts)
