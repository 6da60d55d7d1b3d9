"""The length of texts in tokens, and their words, in English and Chinese alike."""

import re
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

# A datum's question and answer have at most so many tokens together, which embedding models commonly take.
MAXIMUM_TOKENS = 8_192
# The static model's longest token has so many characters; a text has at most so many tokens besides one for each byte.
LONGEST_TOKEN, MORE_TOKENS = 16, 2
# These words say nothing. The database leaves out those of English.
EMPTY_WORDS = frozenset("的了是在和与也就都而及着吗呢吧啊之其把被给让谁") | frozenset(
    ("什么", "哪", "哪个", "怎么", "怎样", "多少", "请问")
)
# Nobody sees these in a text, so they are no part of its words: marks of direction, and what stands for a NUL.
_UNSEEN = dict.fromkeys((8206, 8207, *range(8234, 8239), *range(8288, 8298), 65279))
_UNSEEN |= {0x200B: " ", 0xFFFD: " "}
_HAS_CHINESE = re.compile(r"[\u3400-\u9fff]")


def token_counts(texts: Sequence[str]) -> list[int]:
    """Count by the tokenizer of the static model, whichever model embeds or reads the texts."""
    return [len(encoded.ids) for encoded in tokenizer().encode_batch_fast(list(texts))]


def is_too_long_by_size(text: str) -> bool | None:
    """Return None where only counting tells whether a text has more than MAXIMUM_TOKENS."""
    if len(text) > MAXIMUM_TOKENS * LONGEST_TOKEN:
        return True
    return None if len(text.encode()) + MORE_TOKENS > MAXIMUM_TOKENS else False


def are_too_long(texts: Sequence[str]) -> list[bool]:
    # Few texts have to be counted.
    found = [is_too_long_by_size(text) for text in texts]
    uncertain = [text for text, is_too_long in zip(texts, found, strict=True) if is_too_long is None]
    counts = iter(token_counts(uncertain) if uncertain else [])
    return [next(counts) > MAXIMUM_TOKENS if is_too_long is None else is_too_long for is_too_long in found]


def words_of(text: str) -> str:
    """Return the words, separated by blanks for PostgreSQL's parser. Chinese is cut as for a search engine."""
    text = text.lower().translate(_UNSEEN)
    if not _HAS_CHINESE.search(text):
        return text
    import rjieba

    words = rjieba.cut_for_search(text)
    # PostgreSQL takes Chinese marks for words.
    return " ".join(word for word in words if word not in EMPTY_WORDS and any(map(str.isalnum, word)))


STATIC_MODEL = "wordllama-256"
STATIC_DIMENSION = 256
loading = threading.Lock()


def tokenizer() -> Any:
    """Return a `tokenizers.Tokenizer` without padding: its encodings are as long as their texts."""
    with loading:
        return _load_tokenizer()


@cache
def _load_tokenizer() -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(wordllama_folder() / "tokenizers" / "l2_supercat_tokenizer_config.json"))


def wordllama_folder() -> Path:
    import wordllama

    return Path(wordllama.__file__).parent
