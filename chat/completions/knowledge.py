"""The datasets of an app, and what a search of them finds to quote."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from apikeys.errors import DatasetNotFound
from chat.completions import quotes as quoting
from chat.completions.request import Content
from datasets.search import retrieval
from datasets.search.quotes import Quote
from datasets.search.retrieval import Mode, Query, SearchResult

# A token of the quotes' limit is taken for this many bytes: the bound of a prompt is in bytes, and this holds it.
TOKEN_BYTES = 4


@dataclass(frozen=True, slots=True)
class Search:
    """A search that was made, and the quotes that the model sees."""

    query: Query
    quotes: list[Quote]
    seconds: float = 0.0
    embedding_tokens: int = 0
    has_reranked: bool = False


@dataclass(frozen=True, slots=True)
class Knowledge:
    """The datasets of an app, and how they are searched and quoted. Empty texts stand for the usual ones."""

    team_id: str
    dataset_ids: tuple[str, ...]
    mode: str
    similarity: float
    limit: int
    uses_rerank: bool
    quote_template: str
    quote_prompt: str
    empty_answer: str

    @property
    def max_bytes(self) -> int:
        """The most that all quotes have together, as they are rendered."""
        return self.limit * TOKEN_BYTES

    async def search(self, question: str) -> Search:
        """Raises UpstreamError, UpstreamTimeout or ServiceUnavailable."""
        query = Query(
            team_id=self.team_id,
            dataset_ids=self.dataset_ids,
            text=question[: retrieval.MAXIMUM_CHARACTERS],
            mode=Mode(self.mode),
            limit=self.limit,
            similarity=self.similarity,
            uses_rerank=self.uses_rerank,
        )
        try:
            found = await retrieval.search(query)
        except DatasetNotFound:
            # They were taken from the app and removed since it was looked up.
            found = SearchResult([], 0.0, 0, has_reranked=False)
        quotes = list(quoting.fit(found.quotes, self.quote_template, self.max_bytes))
        return Search(query, quotes, found.seconds, found.embedding_tokens, found.has_reranked)

    def render(self, quotes: Sequence[Quote]) -> str:
        return quoting.render(quotes, self.quote_template, self.max_bytes)

    def build_prompt(self, question: Content, quotes: str, variables: dict[str, Any]) -> Content:
        """Return what the model is asked in place of the question."""
        return quoting.build_prompt(self.quote_prompt, question, quotes, variables)
