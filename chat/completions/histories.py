"""The earlier messages of a conversation, read on the hot path for many conversations in one query."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from apikeys.hot_path.group_commit import Batcher
from apikeys.hot_path.statements import Row, StatementConnection, format_array
from chat.completions.turns import StoredMessage


@dataclass(frozen=True, slots=True)
class HistoryRequest:
    """Which messages are asked for, and an id that must not be taken yet.

    A request that goes on with the latest turn asks for all of that turn, and `limit` messages before it.
    """

    app_id: str
    chat_id: str
    limit: int
    new_data_id: str | None
    is_continuing: bool = False


@dataclass(frozen=True, slots=True)
class History:
    """The latest messages, oldest first, and the key of the very latest."""

    messages: list[StoredMessage]
    latest_id: int | None
    is_data_id_taken: bool


# A history has as much as a request's own messages may hold; older messages beyond it are left out.
MAX_BYTES = 1024 * 1024
# A turn of more messages has gone astray.
MAX_TURN_MESSAGES = 1_000
# To decode more would hold up the event loop.
QUICK_BYTES = 128 * 1024


def _sql(row_limit: str) -> str:
    return f"""
SELECT requested.ordinal, message.id, message.role, message.content, message.extras,
    requested.new_data_id IS NOT NULL AND EXISTS (
        SELECT 1 FROM chat_message AS taken
        WHERE taken.conversation_id = conversation.id AND taken.data_id = requested.new_data_id) AS is_data_id_taken
FROM unnest($1::int[], $2::text[], $3::text[], $4::int[], $5::text[])
    AS requested(ordinal, app_id, chat_id, row_limit, new_data_id)
CROSS JOIN LATERAL (
    -- The limit makes it a look-up for each, whatever the planner believes of the table's size.
    SELECT id FROM chat_conversation WHERE app_id = requested.app_id AND chat_id = requested.chat_id LIMIT 1
) AS conversation
LEFT JOIN LATERAL (
    SELECT id, role, content, extras FROM (
        SELECT id, role, content, extras,
            sum(octet_length(content::text) + coalesce(octet_length(extras::text), 0)) OVER (ORDER BY id DESC) AS bytes
        FROM (
            SELECT id, role, content, extras FROM chat_message
            WHERE conversation_id = conversation.id ORDER BY id DESC LIMIT {row_limit}
        ) AS latest
    ) AS summed
    WHERE bytes <= {MAX_BYTES}
) AS message ON true
ORDER BY requested.ordinal, message.id
"""  # noqa: S608 - built from constants


SQL = _sql("requested.row_limit")
# Few batches continue a turn, so the others do not pay for it.
SQL_OF_TURNS = _sql(f"""
    CASE WHEN ($6::bool[])[requested.ordinal + 1] THEN (
        SELECT least(requested.row_limit + count(*), {MAX_TURN_MESSAGES}) FROM chat_message AS part
        WHERE part.conversation_id = conversation.id AND part.id >= (
            SELECT id FROM chat_message AS question
            WHERE question.conversation_id = conversation.id AND question.role = 'user' ORDER BY id DESC LIMIT 1)
    ) ELSE requested.row_limit END""")  # noqa: S608 - built from constants


async def _load(connection: StatementConnection, batch: Sequence[HistoryRequest]) -> list[History]:
    sql = SQL
    columns = [
        format_array(range(len(batch))),
        format_array(request.app_id for request in batch),
        format_array(request.chat_id for request in batch),
        format_array(request.limit for request in batch),
        format_array(request.new_data_id for request in batch),
    ]
    if any(request.is_continuing for request in batch):
        sql = SQL_OF_TURNS
        columns.append(format_array(str(request.is_continuing) for request in batch))
    rows = await connection.execute(sql, columns)
    if sum(len(content or b"") + len(extras or b"") for _, _, _, content, extras, _ in rows) > QUICK_BYTES:
        return await asyncio.to_thread(_histories, rows, len(batch))
    return _histories(rows, len(batch))


def _histories(rows: Sequence[Row], count: int) -> list[History]:
    messages: list[list[StoredMessage]] = [[] for _ in range(count)]
    latest: list[int | None] = [None] * count
    taken = [False] * count
    decode = msgspec.json.decode
    for text, key, role, content, extras, is_taken in rows:
        ordinal = int(text)
        taken[ordinal] = is_taken == b"t"
        # There is neither where the conversation has no messages.
        if role is not None:
            latest[ordinal] = int(key)
            messages[ordinal].append(
                StoredMessage(role.decode(), decode(content), None if extras is None else decode(extras))
            )
    return [History(*columns) for columns in zip(messages, latest, taken, strict=True)]


batcher: Batcher[HistoryRequest, History] = Batcher("history", _load, capacity=5_000, max_batch=64)
