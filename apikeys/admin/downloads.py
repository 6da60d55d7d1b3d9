"""Downloads of a list's rows: CSV in which no spreadsheet sees formulas, or JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from typing import Any

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from apikeys.spreadsheet import to_cell

MAXIMUM_ROWS = 50_000
CONTENT_TYPES = {"csv": "text/csv; charset=utf-8", "json": "application/json"}


def is_too_long(model_admin: Any, request: HttpRequest, rows: QuerySet[Any]) -> bool:
    """Return whether the rows do not fit in one file, and tell the user then."""
    if rows.order_by().values("pk")[: MAXIMUM_ROWS + 1].count() <= MAXIMUM_ROWS:
        return False
    message = _("A file holds at most %(number)s rows. Filter the list.")
    model_admin.message_user(request, message % {"number": f"{MAXIMUM_ROWS:,}"}, messages.ERROR)
    return True


def download(name: str, file_format: str, columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> HttpResponse:
    """Return `rows` as a file, in one of the formats of CONTENT_TYPES."""
    headers = {"Content-Disposition": f'attachment; filename="{name}.{file_format}"', "Cache-Control": "no-store"}
    response = HttpResponse(content_type=CONTENT_TYPES[file_format], headers=headers)
    if file_format == "json":
        response.write(json.dumps(list(rows), ensure_ascii=False, indent=1))
        return response
    writer = csv.writer(response)
    writer.writerow(columns)
    writer.writerows([to_cell(row[column]) for column in columns] for row in rows)
    return response
