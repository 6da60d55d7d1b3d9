"""The earlier messages of a conversation, read on the hot path for many conversations in one query."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from apikeys.hot_path.group_commit import Batcher
from apikeys.hot_path.statements import Row, StatementConnection, format_array


@dataclass(frozen=True, slots=True)
class HistoryRequest:
    """Which messages are asked for, and an id that must not be taken yet."""

    app_id: str
    chat_id: str
    limit: int
    new_data_id: str | None


@dataclass(frozen=True, slots=True)
class History:
    """(role, content) of the latest messages, oldest first."""

    messages: list[tuple[str, Any]]
    is_data_id_taken: bool


# A history has as much as a request's own messages may hold; older messages beyond it are left out.
MAX_BYTES = 1024 * 1024
# To decode more would hold up the event loop.
QUICK_BYTES = 128 * 1024

SQL = f"""
SELECT requested.ordinal, message.role, message.content,
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
    SELECT id, role, content FROM (
        SELECT id, role, content, sum(octet_length(content::text)) OVER (ORDER BY id DESC) AS bytes FROM (
            SELECT id, role, content FROM chat_message
            WHERE conversation_id = conversation.id ORDER BY id DESC LIMIT requested.row_limit
        ) AS latest
    ) AS summed
    WHERE bytes <= {MAX_BYTES}
) AS message ON true
ORDER BY requested.ordinal, message.id
"""  # noqa: S608 - built from a constant


async def _load(connection: StatementConnection, batch: Sequence[HistoryRequest]) -> list[History]:
    columns = [
        format_array(range(len(batch))),
        format_array(request.app_id for request in batch),
        format_array(request.chat_id for request in batch),
        format_array(request.limit for request in batch),
        format_array(request.new_data_id for request in batch),
    ]
    rows = await connection.execute(SQL, columns)
    if sum(len(content or b"") for _, _, content, _ in rows) > QUICK_BYTES:
        return await asyncio.to_thread(_histories, rows, len(batch))
    return _histories(rows, len(batch))


def _histories(rows: Sequence[Row], count: int) -> list[History]:
    messages: list[list[tuple[str, Any]]] = [[] for _ in range(count)]
    taken = [False] * count
    for text, role, content, is_taken in rows:
        ordinal = int(text)
        taken[ordinal] = is_taken == b"t"
        # There is neither where the conversation has no messages.
        if role is not None:
            messages[ordinal].append((role.decode(), msgspec.json.decode(content)))
    return [History(found, is_taken) for found, is_taken in zip(messages, taken, strict=True)]


batcher: Batcher[HistoryRequest, History] = Batcher("history", _load, capacity=5_000, max_batch=64)
