"""Answers that earlier responses left in conversations, looked up for many requests in one query."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from apikeys.hot_path.group_commit import Batcher
from apikeys.hot_path.statements import StatementConnection, format_array
from chat.completions.histories import MAX_BYTES
from chat.completions.turns import StoredMessage
from chat.responses.ids import Place


class AnswerRequest(NamedTuple):
    app_id: str
    place: Place
    # Whether what it says is asked for, too.
    is_read: bool


class StoredAnswer(NamedTuple):
    """The key of an answer, and that of its conversation's latest message.

    It has no message where none was asked for, or where that is larger than a history may be.
    """

    key: int
    latest_key: int
    message: StoredMessage | None


SQL = f"""
SELECT requested.ordinal, answer.id, latest.id, answer.content, answer.extras
FROM unnest($1::int[], $2::text[], $3::text[], $4::text[], $5::bool[])
    AS requested(ordinal, app_id, chat_id, data_id, is_read)
CROSS JOIN LATERAL (
    SELECT id FROM chat_conversation WHERE app_id = requested.app_id AND chat_id = requested.chat_id LIMIT 1
) AS conversation
CROSS JOIN LATERAL (
    SELECT id, CASE WHEN is_short THEN content END AS content, CASE WHEN is_short THEN extras END AS extras
    FROM (
        SELECT id, content, extras, requested.is_read AND
            octet_length(content::text) + coalesce(octet_length(extras::text), 0) <= {MAX_BYTES} AS is_short
        FROM chat_message
        WHERE conversation_id = conversation.id AND data_id = requested.data_id AND role = 'assistant' LIMIT 1
    ) AS found
) AS answer
CROSS JOIN LATERAL (
    SELECT id FROM chat_message WHERE conversation_id = conversation.id ORDER BY id DESC LIMIT 1
) AS latest
"""  # noqa: S608 - built from a constant


async def _load(connection: StatementConnection, batch: Sequence[AnswerRequest]) -> list[StoredAnswer | None]:
    columns = [
        format_array(range(len(batch))),
        format_array(request.app_id for request in batch),
        format_array(request.place.chat_id for request in batch),
        format_array(request.place.data_id for request in batch),
        format_array(str(request.is_read) for request in batch),
    ]
    found: list[StoredAnswer | None] = [None] * len(batch)
    decode = msgspec.json.decode
    for ordinal, key, latest_key, content, extras in await connection.execute(SQL, columns):
        message = None
        if content is not None:
            message = StoredMessage("assistant", decode(content), None if extras is None else decode(extras))
        found[int(ordinal)] = StoredAnswer(int(key), int(latest_key), message)
    return found


batcher: Batcher[AnswerRequest, StoredAnswer | None] = Batcher("stored-answers", _load, capacity=5_000, max_batch=64)
