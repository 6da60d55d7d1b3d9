"""The ledger's writer: one usage record for each accepted request, durable before its answer is complete."""

from collections.abc import Sequence

import msgspec
from django.conf import settings

from apikeys.database import Connection
from apikeys.group_commit import Gate
from apikeys.models import Ending, TokenSource


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """A usage record to be. Field names are the table's columns."""

    id: str
    team_id: str
    key_id: str
    endpoint: str
    status: int
    duration_ms: int
    app_id: str | None = None
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    token_source: TokenSource | str = ""
    cost_micropoints: int = 0
    ending: Ending = Ending.COMPLETE
    time_to_first_byte_ms: int | None = None
    client_address: str | None = None


# The columns of a JSON recordset named `item` that holds usages, and what is written from it. Statements that
# record more than usage (chat.recorder) join in the same transaction by building on these.
ITEM_COLUMNS = """
    id text, team_id text, key_id text, endpoint text, status smallint, duration_ms int, app_id text, model text,
    prompt_tokens int, completion_tokens int, token_source text, cost_micropoints bigint, ending text,
    time_to_first_byte_ms int, client_address inet
"""
# A batch that was committed although the connection broke before the answer came is sent again: the id decides.
RECORD_SQL = """
    INSERT INTO apikeys_usagerecord (
        id, team_id, key_id, endpoint, status, duration_ms, app_id, model, prompt_tokens, completion_tokens,
        token_source, cost_micropoints, ending, time_to_first_byte_ms, client_address)
    SELECT id, team_id, key_id, endpoint, status, duration_ms, app_id, model, prompt_tokens, completion_tokens,
        token_source, cost_micropoints, ending, time_to_first_byte_ms, client_address
    FROM item
    ON CONFLICT (id) DO NOTHING
    RETURNING id
"""
# In the order of the keys, so that two processes never wait for each other's rows.
ACTIVITY_SQL = """
    INSERT INTO apikeys_keyactivity (key_id, last_used_at, last_used_from)
    SELECT DISTINCT ON (key_id) key_id, statement_timestamp(), client_address FROM item ORDER BY key_id
    ON CONFLICT (key_id) DO UPDATE
    SET last_used_at = greatest(excluded.last_used_at, apikeys_keyactivity.last_used_at),
        last_used_from = excluded.last_used_from
"""
LEDGER_SQL = f"""
WITH item AS (SELECT * FROM jsonb_to_recordset(%s::text::jsonb) AS item({ITEM_COLUMNS})),
recorded AS ({RECORD_SQL}),
activity AS ({ACTIVITY_SQL})
SELECT count(*) FROM recorded
"""  # noqa: S608 - built from constants only
WAIT_SECONDS = 10.0


def _write(connection: Connection, batch: Sequence[Usage]) -> list[None]:
    connection.execute(LEDGER_SQL, [msgspec.json.encode(batch).decode()])
    return [None] * len(batch)


usage_gate: Gate[Usage, None] = Gate(
    "usage", _write, capacity=settings.RECORDER_QUEUE_SIZE, retry=True, wait_seconds=WAIT_SECONDS
)
