"""One call that ranks documents. It knows nothing of HTTP; its base accounts for it."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from apikeys.accounting.ledger import Outcome, TokenSource
from apikeys.accounting.metered import AsyncMeteredCall, Charge
from apikeys.outbound.error_answers import error_of
from chat.routing import circuits
from chat.routing.entries import Route
from chat.routing.failover import ask_routes
from chat.team_models import TeamModel
from datasets.search.rerank import Reranked, rerank
from datasets.vectors.provider_models import ProviderModel, TextsRefused

# A model adds to a query and a document what separates them.
PAIR_OVERHEAD_TOKENS = 8


@dataclass(slots=True)
class RerankCall(AsyncMeteredCall):
    """Documents to rank on behalf of a key. After `answer`, `scores` are in their order."""

    model: TeamModel
    query: str
    documents: Sequence[str]
    is_asked: bool = False
    # It is None when the provider does not count them.
    counted: int | None = None
    scores: list[float] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return bound_of(self.query, self.documents) if self.counted is None else self.counted

    async def answer(self) -> None:
        """Rank all and record it. Raise RateLimited, InsufficientQuota, RefusedByProvider or UpstreamError."""
        async with self:
            self.is_asked = True
            self.flight.waiting = asyncio.current_task()
            entry = self.model.entry
            assert entry is not None  # noqa: S101 - the static model ranks nothing
            if len(entry.routes) > 1:
                self.attempts = []
            route, reranked = await ask_routes(entry, self.documents, self.attempts, self._ask_route)
            if self.attempts is not None:
                circuits.succeed(route.id)
            self.first_byte_at = time.monotonic()
            self.scores, self.counted = reranked.scores, reranked.tokens

    async def _ask_route(self, route: Route, documents: Sequence[str]) -> Reranked:
        try:
            return await rerank(ProviderModel(route.model, route.service), self.query, documents)
        except TextsRefused as error:
            # What the caller sent is the caller's to correct, where the provider says so.
            raise error_of(error.failure) from None

    def bound_charge(self) -> Charge:
        return self._charge(bound_of(self.query, self.documents), TokenSource.BOUND)

    def compute_charge(self, outcome: Outcome) -> Charge:
        # Of a provider that failed there is nothing; one that is left at work is paid for all.
        if not self.is_asked or outcome == Outcome.FAILED:
            return self._charge(0, TokenSource.BOUND)
        return self._charge(self.tokens, TokenSource.BOUND if self.counted is None else TokenSource.PROVIDER)

    def _charge(self, tokens: int, source: TokenSource) -> Charge:
        return Charge(tokens, token_source=source, model=self.model.name, prompt_price=self.model.price)


def bound_of(query: str, documents: Sequence[str]) -> int:
    # A model reads the query with each document. A token of a byte-level vocabulary is at least one byte of UTF-8.
    size = len(query.encode()) + PAIR_OVERHEAD_TOKENS
    return sum(size + len(document.encode()) for document in documents)
