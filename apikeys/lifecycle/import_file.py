"""Rows of keys read from a CSV or JSON file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from django.utils.translation import gettext as _

from apikeys.keys.models import RIGHTS
from apikeys.spreadsheet import from_cell
from apikeys.storable_text import storable_json

MAXIMUM_ROWS = 5_000
MAXIMUM_BYTES = 5 * 1024 * 1024
CHANGEABLE = ("name", "note", "owner", "expires_at", *RIGHTS)
IDENTITY = ("id", "team", "app")
# An export writes these columns, and an import ignores them.
TOLD = (
    *("team_id", "app_id", "kind", "last_four", "state", "disabled_at", "revoked_at", "revoked_reason"),
    *("created_at", "last_used_at"),
)
COLUMNS = (*IDENTITY, *CHANGEABLE, *TOLD)


class Unreadable(Exception):
    """The file as a whole cannot be imported. The message is for the person who sent it."""


def read(raw: bytes) -> list[tuple[int, dict[str, Any]]]:
    """Return the rows with their line or, in JSON, their number. Raise Unreadable."""
    if len(raw) > MAXIMUM_BYTES:
        raise Unreadable(_("The file is larger than 5 MB."))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unreadable(_("The file is not UTF-8 text.")) from None
    if "\0" in text:
        raise Unreadable(_("The file contains NUL characters or incomplete characters."))
    rows = list(_json_rows(text) if text.lstrip()[:1] in ("[", "{") else _csv_rows(text))
    if not rows:
        raise Unreadable(_("The file has no rows."))
    if len(rows) > MAXIMUM_ROWS:
        raise Unreadable(_("The file has more than %(count)s rows.") % {"count": MAXIMUM_ROWS})
    unknown = sorted({name for _line, row in rows for name in row} - set(COLUMNS))
    if unknown:
        raise Unreadable(_("Line 1: unknown columns: %(names)s.") % {"names": ", ".join(unknown)[:200]})
    return rows


def _json_rows(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        rows = json.loads(text)
        is_storable = storable_json(rows) == rows
    except (ValueError, RecursionError) as error:
        raise Unreadable(_("The file is not valid JSON: %(error)s.") % {"error": str(error)[:200]}) from None
    if not is_storable:
        raise Unreadable(_("The file contains NUL characters or incomplete characters."))
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Unreadable(_("JSON must be a list of objects."))
    yield from enumerate(rows, 1)


def _csv_rows(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        if len(set(header)) < len(header):
            raise Unreadable(_("Line 1: a column appears twice."))
        line = reader.line_num
        for cells in reader:
            line, begins = reader.line_num, line + 1
            if not cells:
                continue
            if len(cells) != len(header):
                raise Unreadable(
                    _("Line %(line)s has %(count)s cells, but the first line has %(expected)s.")
                    % {"line": begins, "count": len(cells), "expected": len(header)}
                )
            yield begins, {name: from_cell(value) for name, value in zip(header, cells, strict=True)}
    except csv.Error as error:
        raise Unreadable(
            _("Line %(line)s is not valid CSV: %(error)s.") % {"line": reader.line_num, "error": error}
        ) from None
