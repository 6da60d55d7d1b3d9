"""The hot path's snapshot of an app: its settings, and its model with the routes that lead to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from apikeys.hot_path.group_commit import Batcher
from apikeys.hot_path.listener import listener
from apikeys.hot_path.snapshots import Snapshots
from apikeys.hot_path.statements import StatementConnection, format_array
from apikeys.object_ids import is_object_id
from chat.completions.knowledge import Knowledge
from chat.models import Dialect
from chat.routing.entries import ENTRY_SQL, CatalogEntry, entry_of


@dataclass(frozen=True, slots=True)
class AppSnapshot:
    """One app, not archived, as it was when it was read."""

    app_id: str
    team_id: str
    name: str
    model: str
    system_prompt: str
    max_tokens: int
    temperature: float | None
    history_length: int
    can_override: bool
    # Whether a request may send tools, functions and the format of the answer.
    passes_tools: bool
    dialect: str
    entry: CatalogEntry
    # It is None for an app without datasets.
    knowledge: Knowledge | None = None

    @property
    def is_classic(self) -> bool:
        return self.dialect == Dialect.CLASSIC


SQL = f"""
SELECT row_to_json(app) FROM (
    SELECT app.id AS app_id, app.team_id, app.name, entry.name AS model, app.system_prompt, app.max_tokens,
        app.temperature, app.history_length, app.can_override, app.dialect, row_to_json(entry) AS entry,
        ARRAY(SELECT dataset_id FROM chat_appdataset WHERE app_id = app.id ORDER BY id) AS dataset_ids,
        app.search_mode, app.similarity, app.quote_limit, app.uses_rerank, app.quote_template, app.quote_prompt,
        app.empty_answer,
        coalesce(app.passes_tools, NOT EXISTS (SELECT 1 FROM chat_appdataset WHERE app_id = app.id)) AS passes_tools
    FROM chat_app AS app
    CROSS JOIN LATERAL (SELECT {ENTRY_SQL} FROM chat_catalogmodel AS entry WHERE entry.id = app.model_id) AS entry
    WHERE app.id = ANY ($1::text[]) AND app.archived_at IS NULL
) AS app
"""  # noqa: S608 - built from a constant


def _snapshot(
    *,
    team_id: str,
    entry: dict[str, Any],
    temperature: float | None,
    dataset_ids: Sequence[str],
    search_mode: str,
    similarity: float,
    quote_limit: int,
    uses_rerank: bool,
    quote_template: str,
    quote_prompt: str,
    empty_answer: str,
    **columns: Any,
) -> AppSnapshot:
    knowledge = Knowledge(
        team_id=team_id,
        dataset_ids=tuple(dataset_ids),
        mode=search_mode,
        similarity=float(similarity),
        limit=quote_limit,
        uses_rerank=uses_rerank,
        quote_template=quote_template,
        quote_prompt=quote_prompt,
        empty_answer=empty_answer,
    )
    return AppSnapshot(
        **columns,
        team_id=team_id,
        entry=entry_of(entry),
        # JSON writes a whole number like an integer.
        temperature=None if temperature is None else float(temperature),
        knowledge=knowledge if dataset_ids else None,
    )


async def _load(connection: StatementConnection, batch: Sequence[str]) -> list[AppSnapshot | None]:
    rows = await connection.execute(SQL, [format_array(sorted(set(batch)))])
    found = {app.app_id: app for app in (_snapshot(**msgspec.json.decode(app)) for [app] in rows)}
    return [found.get(app_id) for app_id in batch]


batcher: Batcher[str, AppSnapshot | None] = Batcher("app-lookup", _load, capacity=5_000)
_apps: Snapshots[str, AppSnapshot] = Snapshots(batcher, listener)


async def find_app(app_id: str, team_id: str) -> AppSnapshot | None:
    """Return the team's app with this id; None if it is archived, somebody else's or no app at all."""
    app = await _apps.get(app_id, app_id) if is_object_id(app_id) else None
    return app if app is not None and app.team_id == team_id else None
