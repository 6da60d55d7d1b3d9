"""What the hot path knows of an app: its settings and its provider, with the provider's secret decrypted."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from apikeys import encryption
from apikeys.hot_path.connections import Connection
from apikeys.hot_path.group_commit import Batcher
from apikeys.hot_path.listener import listener
from apikeys.hot_path.snapshots import Snapshots
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
    dialect: str
    base_url: str
    connect_seconds: int
    first_byte_seconds: int
    between_chunks_seconds: int
    total_seconds: int
    # None when there is no secret; a secret that cannot be decrypted must not be mistaken for that.
    secret: str | None = field(repr=False)
    is_secret_lost: bool
    # In millionths of a point for 1,000 tokens.
    prompt_price: int
    completion_price: int
    # None for an app without datasets.
    knowledge: Knowledge | None = None

    @property
    def is_classic(self) -> bool:
        return self.dialect == Dialect.CLASSIC


SQL = """
SELECT app.id, app.team_id, app.name, app.model, app.system_prompt, app.max_tokens, app.temperature,
    app.history_length, app.can_override, app.dialect, provider.base_url, provider.connect_seconds,
    provider.first_byte_seconds, provider.between_chunks_seconds, provider.total_seconds, provider.encrypted_secret,
    provider.base_url, coalesce(price.prompt_micropoints, 0), coalesce(price.completion_micropoints, 0),
    ARRAY(SELECT dataset_id FROM chat_appdataset WHERE app_id = app.id ORDER BY id), app.search_mode, app.similarity,
    app.quote_limit, app.uses_rerank, app.quote_template, app.quote_prompt, app.empty_answer
FROM chat_app AS app JOIN chat_provider AS provider ON provider.id = app.provider_id
LEFT JOIN chat_price AS price ON price.provider_id = app.provider_id AND price.model = app.model
WHERE app.id = ANY(%s) AND app.archived_at IS NULL
"""
# The last columns: how an app's datasets are searched and quoted.
SETTINGS = 7


def _load(connection: Connection, batch: Sequence[str]) -> list[AppSnapshot | None]:
    found: dict[str, AppSnapshot] = {}
    for row in connection.execute(SQL, [sorted(set(batch))]).fetchall():
        *columns, encrypted, base_url, prompt_price, completion_price, dataset_ids = row[:-SETTINGS]
        secret, is_lost = None, False
        if encrypted is not None:
            try:
                secret = encryption.unseal(encrypted, base_url)
            except encryption.DecryptionError:
                is_lost = True
        knowledge = Knowledge(columns[1], tuple(dataset_ids), *row[-SETTINGS:]) if dataset_ids else None
        found[columns[0]] = AppSnapshot(*[*columns, secret, is_lost, prompt_price, completion_price, knowledge])
    return [found.get(app_id) for app_id in batch]


batcher: Batcher[str, AppSnapshot | None] = Batcher("app-lookup", _load, capacity=5_000)
_apps: Snapshots[str, AppSnapshot] = Snapshots(batcher, listener)


async def find_app(app_id: str, team_id: str) -> AppSnapshot | None:
    """The app of this team with this id; None if it is archived, somebody else's or no app at all."""
    app = await _apps.get(app_id, app_id) if is_object_id(app_id) else None
    return app if app is not None and app.team_id == team_id else None
