"""The models that need no app: the static one, those of the catalog, and those of the team's datasets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from apikeys.hot_path.group_commit import Batcher
from apikeys.hot_path.statements import StatementConnection, format_array
from apikeys.outbound.service import Service, service_sql
from apikeys.storable_text import storable
from chat.catalog import ModelKind
from chat.routing.entries import ENTRY_SQL, CatalogEntry, Prices, Route, entry_of
from datasets.texts import STATIC_DIMENSION, STATIC_MODEL


@dataclass(frozen=True, slots=True)
class TeamModel:
    """`entry` is None for the static model; `dimension` is known of that and of a dataset's that has vectors."""

    name: str
    entry: CatalogEntry | None
    dimension: int | None = None

    @property
    def price(self) -> int:
        """Return millionths of a point for 1,000 tokens."""
        return 0 if self.entry is None else self.entry.prices.prompt


@dataclass(frozen=True, slots=True)
class ModelRequest:
    team_id: str
    kind: ModelKind
    name: str


# A dataset's model has the price that the catalog has for it, under whatever name.
_OF_PROVIDER = f"""
    provider.name AS provider, {service_sql("provider")} AS service, coalesce((
        SELECT catalog.prompt_price FROM chat_route AS route
        JOIN chat_catalogmodel AS catalog ON catalog.id = route.model_id
        WHERE route.provider_id = provider.id AND route.upstream_name = requested.name
        ORDER BY route.id LIMIT 1), 0) AS price
"""  # noqa: S608 - built from constants
# A model of the catalog comes first. Where several datasets have a model of one name, that of the oldest counts.
SQL = f"""
SELECT requested.ordinal, row_to_json(entry), row_to_json(of_dataset)
FROM unnest($1::int[], $2::text[], $3::text[], $4::text[]) AS requested(ordinal, team_id, kind, name)
LEFT JOIN LATERAL (
    SELECT {ENTRY_SQL} FROM chat_catalogmodel AS entry
    WHERE entry.team_id = requested.team_id AND entry.name = requested.name AND entry.kind = requested.kind
        AND entry.archived_at IS NULL
) AS entry ON true
LEFT JOIN LATERAL (
    (SELECT vector_set.dimension, {_OF_PROVIDER}
    FROM datasets_dataset AS dataset
    JOIN datasets_vectorset AS vector_set ON vector_set.dataset_id = dataset.id
    JOIN chat_provider AS provider ON provider.id = vector_set.provider_id
    WHERE requested.kind = 'embedding' AND dataset.team_id = requested.team_id AND vector_set.model = requested.name
    ORDER BY vector_set.id LIMIT 1)
    UNION ALL
    (SELECT NULL, {_OF_PROVIDER}
    FROM datasets_dataset AS dataset
    JOIN chat_provider AS provider ON provider.id = dataset.rerank_provider_id
    WHERE requested.kind = 'rerank' AND dataset.team_id = requested.team_id AND dataset.rerank_model = requested.name
    ORDER BY dataset.id LIMIT 1)
) AS of_dataset ON entry.id IS NULL
"""  # noqa: S608 - built from constants


async def _load(connection: StatementConnection, batch: Sequence[ModelRequest]) -> list[TeamModel | None]:
    columns = [
        format_array(range(len(batch))),
        format_array(request.team_id for request in batch),
        format_array(request.kind.value for request in batch),
        format_array(request.name for request in batch),
    ]
    found: list[TeamModel | None] = [None] * len(batch)
    for number, entry, of_dataset in await connection.execute(SQL, columns):
        ordinal = int(number)
        if entry is not None:
            made = entry_of(msgspec.json.decode(entry))
            found[ordinal] = TeamModel(made.name, made)
        elif of_dataset is not None:
            found[ordinal] = _of_dataset(batch[ordinal].name, **msgspec.json.decode(of_dataset))
    return found


def _of_dataset(name: str, *, dimension: int | None, provider: str, service: dict[str, Any], price: int) -> TeamModel:
    route = Route(id=0, provider=provider, model=name, priority=1, weight=1, service=Service.of_json(service))
    return TeamModel(name, CatalogEntry.of_route(name, route, Prices(price)), dimension)


batcher: Batcher[ModelRequest, TeamModel | None] = Batcher("team-model", _load, capacity=5_000, max_batch=64)


async def find_model(team_id: str, kind: ModelKind, name: str) -> TeamModel | None:
    if kind == ModelKind.EMBEDDING and name == STATIC_MODEL:
        return TeamModel(name, None, STATIC_DIMENSION)
    return await batcher.submit(ModelRequest(team_id, kind, storable(name)))
