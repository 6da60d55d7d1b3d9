"""Text cut into chunks: at headings, paragraphs and sentences, in English and Chinese, never longer than asked."""

import random
import time
from collections.abc import Iterable

import pytest

from datasets.conversion import chunks
from datasets.conversion.chunks import PART, split
from datasets.texts import token_counts

ENGLISH = "The film was directed by Ang Lee. It was shot in many provinces of China! Who wrote the music? Tan Dun did. "
CHINESE = "《卧虎藏龙》是李安导演的一部武侠电影。影片由周润发、杨紫琼主演！它获得了奥斯卡奖。谁写了音乐？是谭盾。"


def chunks_of(text: str | Iterable[str], size: int = 64, *, is_markdown: bool = False) -> list[str]:
    return list(split([text] if isinstance(text, str) else text, size, is_markdown=is_markdown))


def letters(text: str) -> str:
    return "".join(text.split())


def test_it_works() -> None:
    assert chunks_of(f" {ENGLISH} ") == [ENGLISH.strip()]


@pytest.mark.parametrize("text", [ENGLISH, CHINESE, ENGLISH + CHINESE])
@pytest.mark.parametrize("size", [32, 128, 512])
@pytest.mark.parametrize("is_markdown", [False, True])
def test_sizes_and_sentences(text: str, size: int, is_markdown: bool) -> None:
    whole = text * 200
    found = chunks_of(whole, size, is_markdown=is_markdown)
    counts = token_counts(found)
    assert max(counts) <= size
    # Nothing is lost, nothing comes twice.
    assert letters("".join(found)) == letters(whole)
    # Chunks are not cut finer than they have to be, and nearly all end where a sentence does.
    assert sum(counts) / len(counts) > size * 0.4
    ends = [chunk[-1] in ".!?。！？" for chunk in found]
    assert sum(ends) / len(ends) > (0.95 if size > 32 else 0.5)


def test_brackets_stay_with_what_they_enclose() -> None:
    found = chunks_of("导演是李安。《卧虎藏龙》是电影。（真的）谁是导演？" * 50, 32)
    assert not [chunk for chunk in found if chunk[-1] in "《（" or chunk[0] in "》）"]


def test_headings_begin_chunks() -> None:
    sections = [f"# Part {number}\n\n{ENGLISH * 2}" for number in range(20)]
    found = chunks_of("\n\n".join(sections), 128, is_markdown=True)
    assert len(found) == 20
    assert [chunk.partition("\n")[0] for chunk in found] == [f"# Part {number}" for number in range(20)]


def test_paragraphs_stay_whole() -> None:
    paragraphs = [f"{number} {CHINESE}" for number in range(30)]
    found = chunks_of("\n\n".join(paragraphs), 256)
    assert [paragraph for chunk in found for paragraph in chunk.split("\n\n")] == paragraphs


def test_the_same_whatever_pieces_it_comes_in() -> None:
    text = (ENGLISH + "\n\n" + CHINESE) * 1_500
    dice = random.Random(5)  # noqa: S311 - it makes no secret
    pieces, start = [], 0
    while start < len(text):
        end = start + dice.randrange(1, 3 * PART)
        pieces.append(text[start:end])
        start = end
    assert chunks_of(pieces, 512) == chunks_of(text, 512)


def test_no_more_than_parts_are_held() -> None:
    """A source that has not been read is not asked for."""
    given = 0

    def source() -> Iterable[str]:
        nonlocal given
        while True:
            given += 1
            yield ENGLISH * 100

    stream = split(source(), 512, is_markdown=False)
    for _ in range(100):
        next(stream)
    assert given < 20


@pytest.mark.parametrize("text", ["", " \n\t\u3000\n"])
def test_nothing(text: str) -> None:
    assert chunks_of(text) == []


@pytest.mark.parametrize(
    "unit",
    ["a", "的", " a", "\u202e", "\u0301", "😀", "\ufffd", "a\n", "> ", "* ", "[", "|", "`", "<b>", "# \n", "- a\n  "],
)
@pytest.mark.parametrize("is_markdown", [False, True])
def test_texts_that_are_made_to_be_hard(unit: str, is_markdown: bool) -> None:
    began = time.process_time()
    found = chunks_of((unit * 100_000)[:100_000], 64, is_markdown=is_markdown)
    assert time.process_time() - began < 20
    assert max(token_counts(found)) <= 64


def test_parts_end_at_headings_first() -> None:
    text = "a. " * (PART // 4) + "\n\n# Two\n\n" + "b.\n\n" * PART
    first, second, *_ = chunks.parts([text])
    assert first.endswith("\n\n")
    assert second.startswith("# Two")
