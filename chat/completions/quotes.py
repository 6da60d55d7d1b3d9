"""Quotes as the model reads them: chosen by their size, rendered by a template, and put around the question."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from chat.completions.provider_messages import fill_variables
from chat.completions.request import MEDIA, Content, TextPart, text_of
from datasets.search.quotes import Quote

SEPARATOR = "\n\n"
USUAL_TEMPLATE = "[{{index}}] {{source}}\n{{q}}\n{{a}}"
USUAL_PROMPT = """Use what stands between <Data> and </Data> as your knowledge:

<Data>
{{quote}}
</Data>

If it does not say what is asked, say that you do not know. Answer in the language of the question.

Question: {{question}}"""


def fit(quotes: Sequence[Quote], template: str, max_bytes: int) -> Iterator[Quote]:
    """Yield those that fit into `max_bytes` together; of the best one, at least its beginning."""
    room = max_bytes
    for number, quote in enumerate(quotes):
        # Also where the template leaves them out, its texts are kept and shown.
        size = max(_size(_render_one(number + 1, quote, template)), _size(quote.text)) + len(SEPARATOR)
        if size <= room:
            yield quote
        elif number == 0:
            q = _cut(quote.q, room)
            yield replace(quote, q=q, a=_cut(quote.a, room - _size(q)))
        else:
            return
        room -= size


def render(quotes: Sequence[Quote], template: str, max_bytes: int) -> str:
    text = SEPARATOR.join(_render_one(number, quote, template) for number, quote in enumerate(quotes, 1))
    return _cut(text, max_bytes)


def build_prompt(prompt: str, question: Content, quotes: str, variables: dict[str, Any]) -> Content:
    # The question's images and files stay with it.
    values = {**variables, "quote": quotes, "question": words_of(question)}
    text = fill_variables(prompt or USUAL_PROMPT, values)
    media = [] if isinstance(question, str) else [part for part in question if isinstance(part, MEDIA)]
    return [TextPart(text), *media] if media else text


def words_of(question: Content) -> str:
    if isinstance(question, str):
        return question
    return text_of([part for part in question if not isinstance(part, MEDIA)])


def _render_one(number: int, quote: Quote, template: str) -> str:
    values = {"index": str(number), "source": quote.source_name, "q": quote.q, "a": quote.a}
    return fill_variables(template or USUAL_TEMPLATE, values).strip()


def _size(text: str) -> int:
    return len(text.encode())


def _cut(text: str, size: int) -> str:
    return text.encode()[: max(size, 0)].decode(errors="ignore")
