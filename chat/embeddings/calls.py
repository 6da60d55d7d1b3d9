"""One call for vectors. Knows nothing of HTTP; how it is accounted for, its base says."""

import asyncio
import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from struct import pack
from typing import Any

import msgspec

from apikeys.accounting.ledger import Outcome, TokenSource
from apikeys.accounting.metered import AsyncMeteredCall, Charge
from apikeys.errors import UpstreamError
from chat.embeddings.models import TeamModel
from datasets.vectors.embeddings import BATCH, count_tokens, embed

# A model adds to a text its first and its last token, and a blank.
TEXT_OVERHEAD_TOKENS = 4


@dataclass(slots=True)
class EmbeddingCall(AsyncMeteredCall):
    """Texts to embed on behalf of a key. After `answer`, `vectors` are the items of its list, as JSON."""

    model: TeamModel
    texts: Sequence[str]
    is_base64: bool
    is_asked: bool = False
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
        async with self:
            self.is_asked = True
            self.flight.waiting = asyncio.current_task()
            for start in range(0, len(self.texts), BATCH):
                await self._embed(self.texts[start : start + BATCH])

    def bound_charge(self) -> Charge:
        return self._charge(bound_of(self.texts), TokenSource.BOUND)

    def compute_charge(self, outcome: Outcome) -> Charge:
        """A call that failed is charged for the batches before, which the provider answered."""
        if not self.is_asked:
            return self._charge(0, TokenSource.BOUND)
        if outcome != Outcome.FAILED:
            return self._charge(self.tokens, TokenSource.PROVIDER if self.is_counted else TokenSource.BOUND)
        if self.answered and self.counted is not None:
            return self._charge(self.counted, TokenSource.PROVIDER)
        return self._charge(bound_of(self.texts[: self.answered]), TokenSource.BOUND)

    def _charge(self, tokens: int, source: TokenSource) -> Charge:
        return Charge(tokens, token_source=source, model=self.model.model.name, prompt_price=self.model.price)

    async def _embed(self, texts: Sequence[str]) -> None:
        # They are kept as JSON: as numbers of Python, vectors take much more room.
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
            self.vectors.append(self._encode(vector))

    def _encode(self, vector: Sequence[float]) -> bytes:
        embedding: Any = vector
        if self.is_base64:
            embedding = base64.b64encode(pack(f"<{len(vector)}f", *vector)).decode()
        return msgspec.json.encode({"object": "embedding", "index": len(self.vectors), "embedding": embedding})


def bound_of(texts: Sequence[str]) -> int:
    """A token of a byte-level vocabulary is at least one byte of UTF-8."""
    return sum(len(text.encode()) + TEXT_OVERHEAD_TOKENS for text in texts)
