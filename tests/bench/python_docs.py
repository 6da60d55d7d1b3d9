"""Questions and texts of Python's documentation, in English and Chinese: `python_docs.jsonl.xz`.

The texts are pieces of the FAQ, the glossary, the tutorial and the HOWTOs of Python 3.13, each a paragraph or several
of one section. The questions are the headings of the FAQ, and the glossary's terms; what stands under a heading is
relevant to it, and nothing else. The Chinese is the translators': it is no paraphrase made for this.

Copyright 2001-2024 Python Software Foundation, under the PSF License Agreement (docs.python.org/3/license.html). The
translation is that of python/python-docs-zh-cn, which is distributed under the same license.
"""

import json
import lzma
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("python_docs.jsonl.xz")
LANGUAGES = ("en", "zh")


@dataclass(frozen=True)
class Question:
    """`texts` by language; `relevant` are numbers of texts."""

    texts: dict[str, str]
    relevant: frozenset[int]


@dataclass(frozen=True)
class Documentation:
    texts: dict[str, list[str]]
    questions: list[Question]


def load() -> Documentation:
    with lzma.open(FILE, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    texts = {language: [row[language] for row in rows if "source" in row] for language in LANGUAGES}
    questions = [
        Question({language: row[language] for language in LANGUAGES}, frozenset(row["relevant"]))
        for row in rows
        if "relevant" in row
    ]
    return Documentation(texts, questions)
