"""Cells of CSV that no spreadsheet mistakes for formulas."""

from __future__ import annotations

import json
import re
from typing import Any

# Spreadsheets take this for a formula. An apostrophe in front makes it text; one that is there already is kept.
FORMULA = re.compile(r"'*[=+\-@\t\r]")


def to_cell(value: Any) -> str:
    if isinstance(value, list):
        value = "\n".join(value)
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"'{text}" if FORMULA.match(text) else text


def from_cell(text: str) -> str:
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text
