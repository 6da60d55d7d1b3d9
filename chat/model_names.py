"""Names of the models of a team's catalog and datasets, and what a request is told that names none of them."""

from collections.abc import Collection, Sequence
from difflib import get_close_matches

import msgspec

from apikeys.access.policy import KeyPolicy
from apikeys.errors import ApiError, InvalidParameter, ModelNotAllowed
from apikeys.hot_path.group_commit import Batcher
from apikeys.hot_path.statements import StatementConnection, format_array
from apikeys.storable_text import storable
from datasets.texts import STATIC_MODEL

# So many names are compared with a wrong one, and so many are listed.
MAX_COMPARED, MAX_LISTED = 100, 10
MAX_NAME_LENGTH = 200


class ModelNames(msgspec.Struct, frozen=True):
    embedding: list[str]
    rerank: list[str]


SQL = f"""
SELECT team_id, json_build_object(
    'embedding', ARRAY(
        SELECT vector_set.model FROM datasets_dataset AS dataset
        JOIN datasets_vectorset AS vector_set ON vector_set.dataset_id = dataset.id
        WHERE dataset.team_id = requested.team_id
        UNION
        SELECT name FROM chat_catalogmodel
        WHERE team_id = requested.team_id AND kind = 'embedding' AND archived_at IS NULL
        ORDER BY 1 LIMIT {MAX_COMPARED}),
    'rerank', ARRAY(
        SELECT rerank_model FROM datasets_dataset AS dataset
        WHERE dataset.team_id = requested.team_id AND rerank_model <> ''
        UNION
        SELECT name FROM chat_catalogmodel
        WHERE team_id = requested.team_id AND kind = 'rerank' AND archived_at IS NULL
        ORDER BY 1 LIMIT {MAX_COMPARED})
)
FROM unnest($1::text[]) AS requested(team_id)
"""  # noqa: S608 - built from a constant
_decoder = msgspec.json.Decoder(ModelNames)


async def _load(connection: StatementConnection, batch: Sequence[str]) -> list[ModelNames]:
    rows = await connection.execute(SQL, [format_array(sorted(set(batch)))])
    found = {team_id.decode(): _decoder.decode(names) for team_id, names in rows}
    return [found[team_id] for team_id in batch]


batcher: Batcher[str, ModelNames] = Batcher("model-names", _load, capacity=1_000, max_batch=64)


async def embedding_refusal(policy: KeyPolicy, name: str) -> ApiError:
    """Return the refusal of a name that is no embedding model of the key's team, or none that the key may use."""
    names = {STATIC_MODEL, *(await batcher.submit(policy.team_id)).embedding}
    return _refusal(policy, name, names, "embedding")


async def rerank_refusal(policy: KeyPolicy, name: str) -> ApiError:
    names = (await batcher.submit(policy.team_id)).rerank
    return _refusal(policy, name, names, "rerank")


def _refusal(policy: KeyPolicy, name: str, names: Collection[str], kind: str) -> ApiError:
    usable = sorted(name for name in names if not policy.allowed_models or name in policy.allowed_models)
    advice = _advice(name, usable, kind)
    if policy.allowed_models and name not in policy.allowed_models:
        return ModelNotAllowed(f"This API key may not use the model {storable(name)}. {advice}")
    return InvalidParameter(f"model: Your team has no such {kind} model. {advice}", param="model")


def _advice(name: str, usable: Sequence[str], kind: str) -> str:
    near = get_close_matches(name, usable, n=1)
    if near:
        return f"Did you mean {near[0]}?"
    if not usable:
        return f"There is no {kind} model that this API key may use."
    others = len(usable) - MAX_LISTED
    listed = ", ".join(usable[:MAX_LISTED]) + (f" and {others} others" if others > 0 else "")
    return f"This API key may use: {listed}."
