"""Cells of CSV that no spreadsheet takes for formulas."""

from __future__ import annotations

import json
import re
from typing import Any

# What spreadsheets take for a formula. An apostrophe in front makes it text; one that stands there already is kept.
FORMULA = re.compile(r"'*[=+\-@\t\r]")


def cell(value: Any) -> str:
    if isinstance(value, list):
        value = "\n".join(value)
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"'{text}" if FORMULA.match(text) else text


def plain(text: str) -> str:
    """A cell without the apostrophe that `cell` gave it."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text
