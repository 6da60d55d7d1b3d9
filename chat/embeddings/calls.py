"""One call for vectors. It knows nothing of HTTP; its base accounts for it."""

import asyncio
import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from struct import pack
from typing import Any

import msgspec

from apikeys.accounting.ledger import Outcome, TokenSource
from apikeys.accounting.metered import AsyncMeteredCall, Charge
from apikeys.errors import InvalidParameter, UpstreamError
from apikeys.outbound.error_answers import error_of
from chat.embeddings.inputs import Input, TokenIds
from chat.routing import circuits
from chat.routing.entries import CatalogEntry, Route
from chat.routing.failover import ask_routes
from chat.team_models import TeamModel
from datasets.texts import STATIC_MODEL
from datasets.vectors.embeddings import BATCH, Embedded, ask_provider, count_tokens, embed
from datasets.vectors.provider_models import ProviderModel, TextsRefused

# A model adds to a text its first and its last token, and a blank.
TEXT_OVERHEAD_TOKENS = 4
STATIC = ProviderModel(STATIC_MODEL)


@dataclass(slots=True)
class EmbeddingCall(AsyncMeteredCall):
    """Inputs to embed on behalf of a key. After `answer`, `vectors` are the items of its list, as JSON.

    Token ids and `dimensions` are for models of providers alone.
    """

    model: TeamModel
    inputs: Sequence[Input]
    is_base64: bool
    dimensions: int | None = None
    is_asked: bool = False
    dimension: int | None = None
    # So many inputs were embedded, of so many tokens; it is None when the provider does not count them.
    answered: int = 0
    counted: int | None = 0
    vectors: list[bytes] = field(default_factory=list)
    # Once a route has answered, it is the only one: vectors of one answer come from one provider.
    entry: CatalogEntry | None = field(init=False)

    def __post_init__(self) -> None:
        self.entry = self.model.entry

    @property
    def is_counted(self) -> bool:
        return self.counted is not None and self.answered == len(self.inputs)

    @property
    def tokens(self) -> int:
        return self.counted if self.counted is not None and self.is_counted else bound_of(self.inputs)

    async def answer(self) -> None:
        """Embed all and record it. Raise RateLimited, InsufficientQuota, InvalidParameter or UpstreamError."""
        async with self:
            self.is_asked = True
            if self.entry is not None and len(self.entry.routes) > 1:
                self.attempts = []
            self.flight.waiting = asyncio.current_task()
            for start in range(0, len(self.inputs), BATCH):
                await self._embed(self.inputs[start : start + BATCH])

    def bound_charge(self) -> Charge:
        return self._charge(bound_of(self.inputs), TokenSource.BOUND)

    def compute_charge(self, outcome: Outcome) -> Charge:
        # A call that failed is charged for the batches before, which the provider answered.
        if not self.is_asked:
            return self._charge(0, TokenSource.BOUND)
        if outcome != Outcome.FAILED:
            return self._charge(self.tokens, TokenSource.PROVIDER if self.is_counted else TokenSource.BOUND)
        if self.answered and self.counted is not None:
            return self._charge(self.counted, TokenSource.PROVIDER)
        return self._charge(bound_of(self.inputs[: self.answered]), TokenSource.BOUND)

    def _charge(self, tokens: int, source: TokenSource) -> Charge:
        return Charge(tokens, token_source=source, model=self.model.name, prompt_price=self.model.price)

    async def _embed(self, inputs: Sequence[Input]) -> None:
        embedded = await self._ask(inputs)
        if self.first_byte_at is None:
            self.first_byte_at = time.monotonic()
        count = embedded.prompt_tokens
        self.answered += len(inputs)
        self.counted = None if count is None or self.counted is None else self.counted + count
        for vector in embedded.vectors:
            self._take(vector)

    async def _ask(self, inputs: Sequence[Input]) -> Embedded:
        entry = self.entry
        if entry is None:
            texts = [text for text in inputs if isinstance(text, str)]
            embedded = await embed(STATIC, texts)
            return Embedded(embedded.vectors, sum(await count_tokens(texts)))
        is_first = not self.answered
        route, embedded = await ask_routes(entry, inputs, self.attempts if is_first else None, self._ask_route)
        if is_first and self.attempts is not None:
            circuits.succeed(route.id)
            self.entry = replace(entry, routes=(route,))
        return embedded

    async def _ask_route(self, route: Route, inputs: Sequence[Input]) -> Embedded:
        found = [item.json if isinstance(item, TokenIds) else item for item in inputs]
        try:
            return await ask_provider(ProviderModel(route.model, route.service), found, self.dimensions)
        except TextsRefused as error:
            # What the caller sent is the caller's to correct, where the provider says so.
            raise error_of(error.failure) from None

    def _take(self, vector: Sequence[float]) -> None:
        if self.dimensions not in (None, len(vector)):
            raise InvalidParameter(f"dimensions: The model's vectors have {len(vector)}.", param="dimensions")
        if self.dimension not in (None, len(vector)):
            raise UpstreamError("The provider of embeddings failed.")
        self.dimension = len(vector)
        # They are kept as JSON: as numbers of Python, vectors take much more room.
        self.vectors.append(self._encode(vector))

    def _encode(self, vector: Sequence[float]) -> bytes:
        embedding: Any = vector
        if self.is_base64:
            embedding = base64.b64encode(pack(f"<{len(vector)}f", *vector)).decode()
        return msgspec.json.encode({"object": "embedding", "index": len(self.vectors), "embedding": embedding})


def bound_of(inputs: Sequence[Input]) -> int:
    # A token of a byte-level vocabulary is at least one byte of UTF-8.
    return sum((len(item.encode()) if isinstance(item, str) else item.count) + TEXT_OVERHEAD_TOKENS for item in inputs)
