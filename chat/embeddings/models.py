"""The models that a team's keys embed with: the static one of every server, and those of the team's datasets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.rows import kwargs_row

from apikeys.hot_path.connections import Connection
from apikeys.hot_path.group_commit import Batcher
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
SQL = """
SELECT requested.ordinal, vector_set.model, vector_set.dimension, vector_set.base_url, vector_set.encrypted_secret,
    vector_set.connect_seconds, vector_set.total_seconds, vector_set.price
FROM unnest(%s::int[], %s::text[], %s::text[]) AS requested(ordinal, team_id, name)
CROSS JOIN LATERAL (
    SELECT vector_set.model, vector_set.dimension, provider.base_url, provider.encrypted_secret,
        provider.connect_seconds, provider.total_seconds, coalesce(price.prompt_micropoints, 0) AS price
    FROM datasets_dataset AS dataset
    JOIN datasets_vectorset AS vector_set ON vector_set.dataset_id = dataset.id
    JOIN chat_provider AS provider ON provider.id = vector_set.provider_id
    LEFT JOIN chat_price AS price ON price.provider_id = provider.id AND price.model = vector_set.model
    WHERE dataset.team_id = requested.team_id AND vector_set.model = requested.name
    ORDER BY vector_set.id LIMIT 1
) AS vector_set
"""


def _load(connection: Connection, batch: Sequence[ModelRequest]) -> list[TeamModel | None]:
    columns = [
        list(range(len(batch))),
        [request.team_id for request in batch],
        [request.name for request in batch],
    ]
    found: list[TeamModel | None] = [None] * len(batch)
    for ordinal, model in connection.cursor(row_factory=kwargs_row(_numbered_model)).execute(SQL, columns):
        found[ordinal] = model
    return found


def _numbered_model(
    *, ordinal: int, dimension: int | None, price: int, model: str, **provider: Any
) -> tuple[int, TeamModel]:
    return ordinal, TeamModel(ProviderModel.of_columns(model, **provider), dimension, price)


batcher: Batcher[ModelRequest, TeamModel | None] = Batcher("embedding-model", _load, capacity=5_000, max_batch=64)


async def find_model(team_id: str, name: str) -> TeamModel | None:
    if name == STATIC_MODEL:
        return TeamModel(ProviderModel.of(None, name), STATIC_DIMENSION)
    return await batcher.submit(ModelRequest(team_id, storable(name)))
