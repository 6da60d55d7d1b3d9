"""Text for a terminal: without control characters, and its width in columns."""

import unicodedata
from typing import Any


def printable(value: Any) -> str:
    return "".join(character if character.isprintable() else "\ufffd" for character in str(value))


def width(text: str) -> int:
    """Return columns of a terminal: Chinese characters take two, combining ones none."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )
