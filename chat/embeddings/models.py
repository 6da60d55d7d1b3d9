"""The models that a team's keys embed with: the static one of every server, and those of the team's datasets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from apikeys.hot_path.group_commit import Batcher
from apikeys.hot_path.statements import StatementConnection, format_array
from apikeys.outbound.service import Service, service_sql
from apikeys.storable_text import storable
from datasets.texts import STATIC_DIMENSION, STATIC_MODEL
from datasets.vectors.provider_models import ProviderModel


@dataclass(frozen=True, slots=True)
class TeamModel:
    """`dimension` is None before its first vector; `price` in millionths of a point for 1,000 tokens."""

    model: ProviderModel
    dimension: int | None
    price: int = 0


@dataclass(frozen=True, slots=True)
class ModelRequest:
    team_id: str
    name: str


# Where several datasets have a model of one name, that of the oldest counts.
SQL = f"""
SELECT requested.ordinal, row_to_json(vector_set)
FROM unnest($1::int[], $2::text[], $3::text[]) AS requested(ordinal, team_id, name)
CROSS JOIN LATERAL (
    SELECT vector_set.model, vector_set.dimension, {service_sql("provider")} AS service, coalesce((
            SELECT catalog.prompt_price FROM chat_route AS route
            JOIN chat_catalogmodel AS catalog ON catalog.id = route.model_id
            WHERE route.provider_id = provider.id AND route.upstream_name = vector_set.model
            ORDER BY route.id LIMIT 1), 0) AS price
    FROM datasets_dataset AS dataset
    JOIN datasets_vectorset AS vector_set ON vector_set.dataset_id = dataset.id
    JOIN chat_provider AS provider ON provider.id = vector_set.provider_id
    WHERE dataset.team_id = requested.team_id AND vector_set.model = requested.name
    ORDER BY vector_set.id LIMIT 1
) AS vector_set
"""  # noqa: S608 - built from constants


async def _load(connection: StatementConnection, batch: Sequence[ModelRequest]) -> list[TeamModel | None]:
    columns = [
        format_array(range(len(batch))),
        format_array(request.team_id for request in batch),
        format_array(request.name for request in batch),
    ]
    found: list[TeamModel | None] = [None] * len(batch)
    for ordinal, model in await connection.execute(SQL, columns):
        found[int(ordinal)] = _team_model(**msgspec.json.decode(model))
    return found


def _team_model(*, dimension: int | None, price: int, model: str, service: dict[str, Any]) -> TeamModel:
    return TeamModel(ProviderModel(model, Service.of_json(service)), dimension, price)


batcher: Batcher[ModelRequest, TeamModel | None] = Batcher("embedding-model", _load, capacity=5_000, max_batch=64)


async def find_model(team_id: str, name: str) -> TeamModel | None:
    if name == STATIC_MODEL:
        return TeamModel(ProviderModel.of(None, name), STATIC_DIMENSION)
    return await batcher.submit(ModelRequest(team_id, storable(name)))
