"""The embedding model that every server has: static vectors of tokens, averaged. Its weights are in its wheel.

Loading takes half a second and 33 MB, the first time that a process needs it. A text then takes some 40 microseconds.
"""

import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

STATIC_MODEL = "wordllama-256"
STATIC_DIMENSION = 256
_loading = threading.Lock()


def embed(texts: Sequence[str]) -> list[list[float]]:
    """One vector for each text, not normed; of one without any token, a vector of zeros."""
    vectors: list[list[float]] = _model().embed(list(texts), return_np=False)
    return vectors


def tokenizer() -> Any:
    """Of the `tokenizers` library, without padding: its encodings are as long as their texts."""
    with _loading:
        return _loaded_tokenizer()


def _model() -> Any:
    with _loading:
        return _loaded()


@cache
def _loaded() -> Any:
    import wordllama

    # The package's own folder is where its weights are; nothing is fetched.
    return wordllama.WordLlama.load(cache_dir=_folder(), dim=STATIC_DIMENSION, disable_download=True)


@cache
def _loaded_tokenizer() -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(_folder() / "tokenizers" / "l2_supercat_tokenizer_config.json"))


def _folder() -> Path:
    import wordllama

    return Path(wordllama.__file__).parent
