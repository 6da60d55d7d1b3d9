"""Text cut into chunks of so many tokens, at headings, paragraphs and sentences. Nothing is held but a part of it."""

import re
from collections.abc import Iterable, Iterator

from semantic_text_splitter import MarkdownSplitter, TextSplitter

from datasets.texts import token_counts

# So many characters are looked at together.
PART = 32_000
# A part ends at the last of these in its second half: the first kind that there is.
ENDS = [re.compile(end) for end in (r"\n(?=#{1,6} )", r"\n\s*\n", r"\n", r"[。！？!?]|\.\s", r"\s")]
# The splitter measures characters, which is ten times quicker than tokens: as many as make a chunk at the text's own
# density, and some fewer, so that nearly all chunks fit. The others are split again.
SLACK = 0.9
# By Unicode's rules for sentences these belong to the one that ends before them, and not to what they enclose.
OPENINGS = "《〈「『【（“‘(["


def split(texts: Iterable[str], size: int, *, is_markdown: bool) -> Iterator[str]:
    """Yield chunks of at most `size` tokens. A text gives the same chunks, in whatever pieces it comes."""
    for part in parts(texts):
        yield from split_part(part, size, None, is_markdown)


def parts(texts: Iterable[str]) -> Iterator[str]:
    rest = ""
    for text in texts:
        rest += text
        start = 0
        while len(rest) - start > PART:
            end = end_of_part(rest, start)
            yield rest[start:end]
            start = end
        rest = rest[start:]
    yield rest


def end_of_part(text: str, start: int) -> int:
    for end in ENDS:
        last = max((found.end() for found in end.finditer(text, start + PART // 2, start + PART)), default=None)
        if last is not None:
            return last
    return start + PART


def split_part(text: str, size: int, tokens: int | None, is_markdown: bool) -> Iterator[str]:
    text = text.strip()
    if not text:
        return
    if tokens is None:
        (tokens,) = token_counts([text])
    if tokens <= size or len(text) == 1:
        yield text
        return
    characters = max(1, int(len(text) * size / tokens * SLACK))
    chunks = move_openings((MarkdownSplitter if is_markdown else TextSplitter)(characters).chunks(text))
    for chunk, count in zip(chunks, token_counts(chunks), strict=True):
        yield from split_part(chunk, size, count, is_markdown)


def move_openings(chunks: list[str]) -> list[str]:
    whole, moved = [], ""
    for chunk in chunks[:-1]:
        kept = chunk.rstrip(OPENINGS)
        whole.append(moved + kept)
        moved = chunk[len(kept) :]
    whole.append(moved + "".join(chunks[-1:]))
    # Where there is little else, they stay as they were: each chunk is shorter than the text.
    return whole if all(whole) and max(map(len, whole)) < sum(map(len, chunks)) else chunks
