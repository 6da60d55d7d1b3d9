"""Keys as rows of an export, without anything secret."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from apikeys.keys.models import RIGHTS, ApiKey
from apikeys.lifecycle.import_file import COLUMNS
from apikeys.lifecycle.reports import iso, summary


def export_rows(api_keys: Iterable[ApiKey]) -> Iterator[dict[str, Any]]:
    """Yield the rows of keys that were read `with_state()`."""
    for api_key in api_keys:
        row = summary(api_key)
        cells = {name: row[name] for name in ("id", "team", "team_id", "app", "app_id", "owner", "last_four")}
        cells |= {"kind": row["kind"], "state": row["why_unusable"] or "usable"}
        cells |= {"expires_at": row["expires_at"], "last_used_at": row["last_used_at"]}
        cells |= {name: getattr(api_key, name) for name in ("name", "note", *RIGHTS, "revoked_reason")}
        cells |= {name: iso(getattr(api_key, name)) for name in ("disabled_at", "revoked_at", "created_at")}
        yield {name: cells[name] for name in COLUMNS}
