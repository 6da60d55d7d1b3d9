"""The ledger's writer: one usage record for each accepted request, durable before its answer is complete."""

from collections.abc import Sequence
from typing import Any

import msgspec
from django.conf import settings

from apikeys.accounting.ledger import Outcome, TokenSource
from apikeys.hot_path.group_commit import Batcher
from apikeys.hot_path.statements import StatementConnection


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
    prompt_price: int = 0
    completion_price: int = 0
    outcome: Outcome = Outcome.COMPLETE
    # An object: `what`, and if the provider said so, `status`, `code` and `message`.
    failure: Any = None
    # A list of objects with `provider` and `model`, and for those that failed what `failure` has, and `ms`.
    attempts: Any = None
    # An object: `cached_tokens`, `reasoning_tokens`, `images`, and for each that has one its price.
    details: Any = None
    time_to_first_byte_ms: int | None = None
    client_address: str | None = None


# The database's own function writes ledger, counters and last use in one transaction, once for each id.
SETTLE_SQL = "SELECT apikeys_settle($1::jsonb)"
WAIT_SECONDS = 10.0


async def write(connection: StatementConnection, batch: Sequence[Usage]) -> list[None]:
    await connection.execute(SETTLE_SQL, [msgspec.json.encode(batch)])
    return [None] * len(batch)


usage_batcher: Batcher[Usage, None] = Batcher(
    "usage", write, capacity=settings.RECORDER_QUEUE_SIZE, retry=True, wait_seconds=WAIT_SECONDS
)
