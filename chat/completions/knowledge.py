"""What an app's datasets say to a question, and how it is written into what the model is asked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from apikeys.errors import DatasetNotFound
from chat.completions.provider_messages import fill_variables
from chat.completions.request import Content, ImagePart, TextPart, text_of
from datasets.search import retrieval
from datasets.search.quotes import Quote
from datasets.search.retrieval import Mode, Query, SearchResult

# What a token of the quotes' limit is taken for, in bytes: the bound of a prompt is in bytes, and this holds it.
TOKEN_BYTES = 4
SEPARATOR = "\n\n"
USUAL_TEMPLATE = "[{{index}}] {{source}}\n{{q}}\n{{a}}"
USUAL_PROMPT = """Use what stands between <Data> and </Data> as your knowledge:

<Data>
{{quote}}
</Data>

If it does not say what is asked, say that you do not know. Answer in the language of the question.

Question: {{question}}"""


@dataclass(frozen=True, slots=True)
class Search:
    """What was asked, and the quotes that the model sees."""

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
        """Of all quotes together, as they are written."""
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
        quotes = list(self._fitting(found.quotes))
        return Search(query, quotes, found.seconds, found.embedding_tokens, found.has_reranked)

    def _fitting(self, quotes: Sequence[Quote]) -> Iterator[Quote]:
        """Those that fit into `max_bytes` together; of the best one, at least its beginning."""
        room = self.max_bytes
        for number, quote in enumerate(quotes):
            # Also where the template leaves them out, its texts are kept and shown.
            size = max(_size(self._written(number + 1, quote)), _size(quote.text)) + len(SEPARATOR)
            if size <= room:
                yield quote
            elif number == 0:
                q = _cut(quote.q, room)
                yield replace(quote, q=q, a=_cut(quote.a, room - _size(q)))
            else:
                return
            room -= size

    def written(self, quotes: Sequence[Quote]) -> str:
        text = SEPARATOR.join(self._written(number, quote) for number, quote in enumerate(quotes, 1))
        return _cut(text, self.max_bytes)

    def _written(self, number: int, quote: Quote) -> str:
        values = {"index": str(number), "source": quote.source_name, "q": quote.q, "a": quote.a}
        return fill_variables(self.quote_template or USUAL_TEMPLATE, values).strip()

    def prompt(self, question: Content, quotes: str, variables: dict[str, Any]) -> Content:
        """What the model is asked in place of the question. Images stay with it."""
        values = {**variables, "quote": quotes, "question": words_of(question)}
        prompt = fill_variables(self.quote_prompt or USUAL_PROMPT, values)
        images = [] if isinstance(question, str) else [part for part in question if isinstance(part, ImagePart)]
        return [TextPart(prompt), *images] if images else prompt


def words_of(question: Content) -> str:
    """What is searched for: a question without its images."""
    if isinstance(question, str):
        return question
    return text_of([part for part in question if not isinstance(part, ImagePart)])


def _size(text: str) -> int:
    return len(text.encode())


def _cut(text: str, size: int) -> str:
    return text.encode()[: max(size, 0)].decode(errors="ignore")
