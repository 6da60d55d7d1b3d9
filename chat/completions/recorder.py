"""Writes a finished completion: its usage, its question and its answer, in one transaction for many at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from django.conf import settings

from apikeys.accounting.recording import WAIT_SECONDS, Usage
from apikeys.accounting.recording import write as write_usage
from apikeys.hot_path.group_commit import Batcher
from apikeys.hot_path.statements import StatementConnection
from apikeys.object_ids import new_object_id


class Result(msgspec.Struct, frozen=True):
    """The result of a tool. `extras` say of which call."""

    data_id: str
    role: str
    content: Any
    extras: dict[str, Any] | None


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """A question and its answer, for the conversation that `chat_id` names in the app. All text is storable.

    Before the question or in its place may be `results`, of the calls that the message with the key `called_by` asks
    for. If that is not the conversation's latest message any more, others were quicker: the results are not kept, and
    without a question neither is the answer. The messages of a response are stored as such results, whatever they are.
    """

    chat_id: str
    question_id: str = ""
    question: Any = None
    results: list[Result] | None = None
    called_by: int | None = None
    answer_id: str
    answer: str
    extras: dict[str, Any] | None = None
    response_data: list[dict[str, Any]]
    custom_uid: str = ""
    metadata: dict[str, Any] | None = None
    variables: dict[str, Any] | None = None


# Upserting the conversation locks its row until the commit, so that two requests on one chat store their messages
# one after the other. Rows are taken in one order everywhere, so that no two batches wait for each other.
# An answer id that a faster request has taken meanwhile is replaced by a new one: the answer is given already.
BEGINNING = """
WITH item AS (
    SELECT * FROM jsonb_to_recordset($1::jsonb) AS item(id text, app_id text, outcome text, ordinal int,
        chat_id text, question_id text, question jsonb, results jsonb, called_by bigint, answer_id text, spare_id text,
        answer jsonb, extras jsonb, response_data jsonb, custom_uid text, metadata jsonb, variables jsonb)
),
recorded AS MATERIALIZED (SELECT id FROM apikeys_settle($1::jsonb) AS settled(id)),
exchange AS (SELECT item.* FROM item JOIN recorded USING (id) WHERE item.chat_id IS NOT NULL),
conversation AS (
    INSERT INTO chat_conversation (app_id, chat_id, custom_uid, metadata, variables)
    SELECT DISTINCT ON (app_id, chat_id) app_id, chat_id, coalesce(custom_uid, ''),
        coalesce(metadata, '{}'), coalesce(variables, '{}')
    FROM exchange ORDER BY app_id, chat_id, ordinal DESC
    ON CONFLICT (app_id, chat_id) DO UPDATE SET
        updated_at = statement_timestamp(),
        custom_uid = coalesce(nullif(excluded.custom_uid, ''), chat_conversation.custom_uid),
        -- The latest that were given, and not merged: merging would let a chat grow without end.
        metadata = CASE excluded.metadata WHEN '{}' THEN chat_conversation.metadata ELSE excluded.metadata END,
        variables = CASE excluded.variables WHEN '{}' THEN chat_conversation.variables ELSE excluded.variables END
    RETURNING id, app_id, chat_id
),
message AS (
    INSERT INTO chat_message (conversation_id, data_id, role, content, extras, response_data, outcome, request_id,
        created_at)
    SELECT conversation.id, part.data_id, part.role, part.content, part.extras, part.response_data, exchange.outcome,
        exchange.id, clock_timestamp()
    FROM exchange
    JOIN conversation USING (app_id, chat_id)
    CROSS JOIN LATERAL (VALUES
        (1, 'user', exchange.question_id, exchange.question, NULL::jsonb, NULL::jsonb),
        (2, 'assistant',
            CASE WHEN EXISTS (
                SELECT 1 FROM chat_message AS taken
                WHERE taken.conversation_id = conversation.id AND taken.data_id = exchange.answer_id
            ) THEN exchange.spare_id ELSE exchange.answer_id END,
            exchange.answer, exchange.extras, exchange.response_data)
"""
END = """
    ORDER BY exchange.ordinal, part.ordinal
)
SELECT count(*) FROM recorded
"""
SQL = f"{BEGINNING}) AS part(ordinal, role, data_id, content, extras, response_data){END}"
# Results are stored behind their calls or not at all: the conversation's row is locked when its latest message is read,
# and what comes earlier in the same batch counts as well. Batches without results do not pay for that.
SQL_WITH_RESULTS = f"""{BEGINNING}
        UNION ALL
        SELECT result.ordinal - jsonb_array_length(exchange.results), result.value ->> 'role',
            result.value ->> 'data_id', result.value -> 'content', result.value -> 'extras', NULL
        FROM jsonb_array_elements(exchange.results) WITH ORDINALITY AS result(value, ordinal)
    ) AS part(ordinal, role, data_id, content, extras, response_data)
    WHERE (exchange.question IS NOT NULL OR part.ordinal <> 1) AND (
        exchange.called_by IS NULL
        OR (exchange.question IS NOT NULL AND part.ordinal > 0)
        OR (
            exchange.called_by = chat_latest_message(conversation.id)
            AND NOT EXISTS (
                SELECT 1 FROM exchange AS earlier
                WHERE (earlier.app_id, earlier.chat_id) = (exchange.app_id, exchange.chat_id)
                    AND earlier.ordinal < exchange.ordinal
                    AND coalesce(earlier.called_by, exchange.called_by) = exchange.called_by
            )
        )
    ){END}"""  # noqa: S608 - built from constants

Item = tuple[Usage, Exchange | None]


async def _write(connection: StatementConnection, batch: Sequence[Item]) -> list[None]:
    if all(exchange is None for _, exchange in batch):
        # A statement of this size costs something even where it finds nothing to do.
        return await write_usage(connection, [usage for usage, _ in batch])
    rows: list[dict[str, Any]] = []
    sql = SQL
    for ordinal, (usage, exchange) in enumerate(batch):
        row = msgspec.structs.asdict(usage)
        if exchange is not None:
            if exchange.results:
                sql = SQL_WITH_RESULTS
            row |= msgspec.structs.asdict(exchange) | {"ordinal": ordinal, "spare_id": new_object_id()}
        rows.append(row)
    await connection.execute(sql, [msgspec.json.encode(rows)])
    return [None] * len(batch)


def _usage_alone(item: Item) -> Item | None:
    # The usage is written even where the exchange cannot be kept: the answer was given, and is charged.
    usage, exchange = item
    return None if exchange is None else (usage, None)


batcher: Batcher[Item, None] = Batcher(
    "recorder",
    _write,
    capacity=settings.RECORDER_QUEUE_SIZE,
    # One batch must not hold the rows of a busy chat for long.
    max_batch=128,
    retry=True,
    wait_seconds=WAIT_SECONDS,
    fallback=_usage_alone,
)
