"""The embedding model that every server has: static vectors of tokens, averaged. Its weights are in its wheel.

Loading takes half a second and 33 MB, the first time that a process needs it. A text then takes some 40 microseconds.
The package's own `embed` pads all texts of a batch to the longest: one long text among short ones would take gigabytes.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from datasets.texts import STATIC_DIMENSION, loading, tokenizer, wordllama_folder

# The vectors of so many tokens are added up at once: 4 MB.
PIECE_TOKENS = 4_096


def embed(texts: Sequence[str]) -> list[list[float]]:
    """Return one vector for each text, not normalized: zeros for a text without any token."""
    embedding = _token_vectors()
    encodings = tokenizer().encode_batch_fast(list(texts), add_special_tokens=False)
    return [_mean(embedding, encoded.ids) for encoded in encodings]


def _mean(embedding: Any, ids: Sequence[int]) -> list[float]:
    total = embedding.take(ids[:PIECE_TOKENS], axis=0).sum(axis=0) if ids else embedding[0] * 0
    for start in range(PIECE_TOKENS, len(ids), PIECE_TOKENS):
        total += embedding.take(ids[start : start + PIECE_TOKENS], axis=0).sum(axis=0)
    mean: list[float] = (total / max(len(ids), 1)).tolist()
    return mean


def _token_vectors() -> Any:
    with loading:
        return _load_embedding()


@cache
def _load_embedding() -> Any:
    import wordllama

    # The package's own folder is where its weights are; nothing is fetched.
    return wordllama.WordLlama.load(cache_dir=wordllama_folder(), dim=STATIC_DIMENSION, disable_download=True).embedding
