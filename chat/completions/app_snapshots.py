"""The hot path's snapshot of an app: its settings and its provider, with the provider's secret decrypted."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from apikeys import encryption
from apikeys.hot_path.group_commit import Batcher
from apikeys.hot_path.listener import listener
from apikeys.hot_path.snapshots import Snapshots
from apikeys.hot_path.statements import StatementConnection, format_array, parse_bytes
from apikeys.object_ids import is_object_id
from chat.completions.knowledge import Knowledge
from chat.models import Dialect


@dataclass(frozen=True, slots=True)
class AppSnapshot:
    """One app, not archived, as it was when it was read. Time limits in seconds."""

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
    base_url: str
    connect_seconds: int
    first_byte_seconds: int
    between_chunks_seconds: int
    total_seconds: int
    # It is None when there is no secret; a secret that cannot be decrypted must not be mistaken for that.
    secret: str | None = field(repr=False)
    is_secret_lost: bool
    # Prices are in millionths of a point for 1,000 tokens.
    prompt_price: int
    completion_price: int
    # It is None for an app without datasets.
    knowledge: Knowledge | None = None

    @property
    def is_classic(self) -> bool:
        return self.dialect == Dialect.CLASSIC


SQL = """
SELECT row_to_json(app) FROM (
    SELECT app.id AS app_id, app.team_id, app.name, app.model, app.system_prompt, app.max_tokens, app.temperature,
        app.history_length, app.can_override, app.dialect, provider.base_url, provider.connect_seconds,
        provider.first_byte_seconds, provider.between_chunks_seconds, provider.total_seconds, provider.encrypted_secret,
        coalesce(price.prompt_micropoints, 0) AS prompt_price,
        coalesce(price.completion_micropoints, 0) AS completion_price,
        ARRAY(SELECT dataset_id FROM chat_appdataset WHERE app_id = app.id ORDER BY id) AS dataset_ids,
        app.search_mode, app.similarity, app.quote_limit, app.uses_rerank, app.quote_template, app.quote_prompt,
        app.empty_answer,
        coalesce(app.passes_tools, NOT EXISTS (SELECT 1 FROM chat_appdataset WHERE app_id = app.id)) AS passes_tools
    FROM chat_app AS app JOIN chat_provider AS provider ON provider.id = app.provider_id
    LEFT JOIN chat_price AS price ON price.provider_id = app.provider_id AND price.model = app.model
    WHERE app.id = ANY ($1::text[]) AND app.archived_at IS NULL
) AS app
"""


def _snapshot(
    *,
    team_id: str,
    base_url: str,
    encrypted_secret: str | None,
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
    secret, is_lost = None, False
    if encrypted_secret is not None:
        try:
            secret = encryption.unseal(parse_bytes(encrypted_secret), base_url)
        except encryption.DecryptionError:
            is_lost = True
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
        base_url=base_url,
        # JSON writes a whole number like an integer.
        temperature=None if temperature is None else float(temperature),
        secret=secret,
        is_secret_lost=is_lost,
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
