"""Import of keys from another system, read once from a stream. No message repeats what a line holds."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management.base import CommandError
from django.db import IntegrityError, transaction

from apikeys.keys.models import ApiKey
from apikeys.management import lookups
from apikeys.management.command_line import error_text
from apikeys.teams import Team

REQUIRED = frozenset({"name", "plaintext"})
COLUMNS = REQUIRED | {"owner", "app"}
MAXIMUM_BYTES = 16 * 1024 * 1024


class ImportRefused(Exception):
    """Nothing was imported. The message names the line at fault."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the input; `owner` and `app` are empty where it does not say."""

    line: int
    name: str
    plaintext: str = field(repr=False)
    owner: str = ""
    app: str = ""


def read_rows(stream: IO[bytes]) -> list[Row]:
    """Read CSV in UTF-8 whose first line names its columns. Raise ImportRefused."""
    data = stream.read(MAXIMUM_BYTES + 1)
    if len(data) > MAXIMUM_BYTES:
        raise ImportRefused(f"The input is longer than {MAXIMUM_BYTES} bytes. Import it in parts.")
    try:
        content = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ImportRefused(f"Line {line} is not valid UTF-8.") from None
    rows: list[Row] = []
    lines_of: dict[str, int] = {}
    for row in _parse(content):
        first = lines_of.setdefault(row.plaintext, row.line)
        if first != row.line:
            raise ImportRefused(f"Line {row.line} has the same plaintext as line {first}.")
        rows.append(row)
    if not rows:
        raise ImportRefused("The input has no keys.")
    return rows


def _parse(content: str) -> Iterator[Row]:
    records = _records(content)
    _, header = next(records, (1, []))
    columns = [column.lower() for column in header]
    if len(set(columns)) != len(columns) or not REQUIRED <= set(columns) <= COLUMNS:
        raise ImportRefused("Line 1 must name the columns: name, plaintext and, optionally, owner and app.")
    for line, values in records:
        if len(values) != len(columns):
            raise ImportRefused(f"Line {line} has {len(values)} columns; the first line names {len(columns)}.")
        cells = dict(zip(columns, values, strict=True))
        if "\0" in "".join(values):
            raise ImportRefused(f"Line {line} has a NUL character.")
        yield Row(line, **cells)


def _records(content: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(content, newline=""), strict=True)
    begin = 1
    try:
        for values in reader:
            if any(value.strip() for value in values):
                yield begin, [value.strip() for value in values]
            begin = reader.line_num + 1
    except csv.Error:
        raise ImportRefused(f"Line {begin} is not valid CSV.") from None


def import_rows(rows: list[Row], team: Team, default_owner: User | None) -> list[ApiKey]:
    """Make one key of the team from each row: all of them, or none. Raise ImportRefused."""
    made = []
    try:
        with transaction.atomic():
            for row in rows:
                policy = _policy(row, team, default_owner)
                api_key, _ = ApiKey.objects.create_key(team=team, name=row.name, secret=row.plaintext, **policy)
                made.append(api_key)
    except ValidationError as error:
        raise ImportRefused(f"Line {row.line}: {error_text(error, {'secret': 'plaintext'})}") from None
    except IntegrityError:
        raise ImportRefused(
            f"Line {row.line} conflicts with another change made at the same time. Try again."
        ) from None
    return made


def _policy(row: Row, team: Team, default_owner: User | None) -> dict[str, Any]:
    # A name that is not found is not repeated: in a file whose columns are mixed up it is a plaintext.
    try:
        owner = lookups.find_owner(row.owner) if row.owner else default_owner
    except CommandError:
        raise ImportRefused(f"Line {row.line} names an owner that does not exist.") from None
    if owner is None:
        raise ImportRefused(f"Line {row.line} names no owner, and no --owner is given.")
    try:
        app = lookups.find_app(team, row.app) if row.app else None
    except CommandError:
        raise ImportRefused(f"Line {row.line} names an app that the team does not have or has archived.") from None
    return {"owner": owner, "app": app}
