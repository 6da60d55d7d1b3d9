"""What batchers do in the database, done at once on a connection of the test, also within its transaction."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from apikeys.access import lookup
from apikeys.access.policy import KeyPolicy
from apikeys.accounting import admission, recording
from apikeys.accounting.admission import Decision, ReservationRequest
from apikeys.accounting.recording import Usage
from apikeys.hot_path.connections import Connection
from apikeys.hot_path.statements import StatementConnection

Item = TypeVar("Item")
Result = TypeVar("Result")
Flush = Callable[[StatementConnection, Sequence[Item]], Awaitable[Sequence[Result]]]


def flush(flush: Flush[Item, Result], raw: Connection, batch: Sequence[Item]) -> list[Result]:
    async def run() -> list[Result]:
        return list(await flush(StatementConnection(raw, can_prepare=False), batch))

    return asyncio.run(run())


def load_policies(raw: Connection, batch: Sequence[dict[str, bytes]]) -> list[KeyPolicy | None]:
    return flush(lookup._load_policies, raw, batch)


def reserve(raw: Connection, batch: Sequence[ReservationRequest]) -> list[Decision]:
    return flush(admission.reserve, raw, batch)


def write(raw: Connection, batch: Sequence[Usage]) -> Any:
    return flush(recording.write, raw, batch)
