"""Statements from an event loop to PostgreSQL: one at a time on a connection, without a thread.

It stands on psycopg's low level, `psycopg.pq`: what its connections and cursors do for each statement would take
longer than the statement does in the database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import psycopg
from django.conf import settings
from psycopg import errors, pq
from psycopg.pq.abc import PGresult

from apikeys.hot_path.connections import SESSION, parameters

# Each value is None or bytes, PostgreSQL's text format of it. A statement knows which of its values are never None.
Row = list[Any]
Parameter = str | bytes | None
SUCCESS = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)


class StatementConnection:
    """A connection, in autocommit mode, that belongs to the event loop in which it was made.

    The statement of a caller that is cancelled goes on, and the next statement waits for its end. When the connection
    dies, also while it is idle, it is closed.
    """

    def __init__(self, connection: psycopg.BaseConnection[Any], *, can_prepare: bool) -> None:
        self.is_closed = False
        # It would warn if it were collected before it is closed.
        self._connection = connection
        self._pgconn = connection.pgconn
        self._pgconn.nonblocking = 1
        self._can_prepare = can_prepare
        self._names: dict[str, bytes] = {}
        self._name_count = 0
        # The answer to the statement under way, and what has come of it so far.
        self._answer: asyncio.Future[PGresult] | None = None
        self._result: PGresult | None = None
        self._is_writing = False
        self._loop = asyncio.get_running_loop()
        self._socket = self._pgconn.socket
        self._loop.add_reader(self._socket, self._read)

    @classmethod
    async def connect(cls) -> StatementConnection:
        """Raise django.db.OperationalError or psycopg.OperationalError when the database cannot be reached."""
        # The project's own database is started here, if it does not run. That takes a while.
        found = await asyncio.to_thread(parameters)
        connection = await psycopg.AsyncConnection.connect(**{**found, "autocommit": True})
        # Through a transaction pooler, others would get a connection with these settings, and a prepared statement may
        # land on one that never saw it.
        is_own = not settings.DATABASE_DIRECT_URL
        try:
            if is_own:
                await connection.execute(SESSION)
            return cls(connection, can_prepare=is_own)
        except BaseException:
            connection.pgconn.finish()
            raise

    async def execute(self, sql: str, parameters: Sequence[Parameter] = ()) -> list[Row]:
        """Run a statement with parameters $1, $2 and so on, and return its rows. Raise psycopg.Error."""
        values = [_encode(parameter) for parameter in parameters]
        if self._can_prepare:
            name = self._names.get(sql) or await self._prepare(sql)
            result = await self._run(self._pgconn.send_query_prepared, name, values)
        else:
            result = await self._run(self._pgconn.send_query_params, sql.encode(), values)
        columns, value_at = range(result.nfields), result.get_value
        return [[value_at(row, column) for column in columns] for row in range(result.ntuples)]

    def close(self) -> None:
        self._lose(psycopg.OperationalError("the connection was closed"))

    async def _prepare(self, sql: str) -> bytes:
        self._name_count += 1
        name = b"statement_%d" % self._name_count
        await self._run(self._pgconn.send_prepare, name, sql.encode())
        self._names[sql] = name
        return name

    async def _run(self, send: Callable[..., None], *arguments: Any) -> PGresult:
        while self._answer is not None:
            await asyncio.wait({self._answer})
        try:
            send(*arguments)
        except psycopg.Error as error:
            self._lose(error)
            raise
        answer: asyncio.Future[PGresult] = self._loop.create_future()
        self._answer = answer
        self._flush()
        try:
            return await answer
        except asyncio.CancelledError:
            if self._answer is answer:
                # The database is not asked to stop. Whoever comes next waits for the end of the statement.
                self._answer = self._loop.create_future()
            raise

    def _flush(self) -> None:
        """Send what the socket takes, and the rest when it takes more."""
        try:
            is_blocked = self._pgconn.flush()
        except psycopg.Error as error:
            self._lose(error)
            return
        if is_blocked and not self._is_writing:
            self._is_writing = True
            self._loop.add_writer(self._socket, self._flush)
        elif self._is_writing and not is_blocked:
            self._is_writing = False
            self._loop.remove_writer(self._socket)

    def _read(self) -> None:
        pgconn = self._pgconn
        try:
            pgconn.consume_input()
            # A result is only that of a committed statement when nothing comes after it.
            while not pgconn.is_busy():
                result = pgconn.get_result()
                if result is None:
                    break
                self._result = result
            else:
                return
        except psycopg.Error as error:
            self._lose(error)
            return
        result, self._result = self._result, None
        if self._answer is None or result is None:
            # A notice came, or the value of a parameter, while the connection was idle.
            return
        answer, self._answer = self._answer, None
        if result.status in SUCCESS:
            _resolve(answer, result)
        else:
            _resolve(answer, errors.error_from_result(result))

    def _lose(self, error: psycopg.Error) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        if not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
        self._pgconn.finish()
        answer, self._answer = self._answer, None
        if answer is not None and not self._loop.is_closed():
            result = self._result
            # The database may have said why it ends the connection.
            is_explained = result is not None and result.status not in SUCCESS
            _resolve(answer, errors.error_from_result(result) if result is not None and is_explained else error)


def format_array(values: Iterable[str | int | None]) -> str:
    """Return PostgreSQL's text format of an array."""
    return "{" + ",".join("NULL" if value is None else _quote(str(value)) for value in values) + "}"


def format_bytes(value: bytes) -> str:
    return "\\x" + value.hex()


def _quote(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _encode(parameter: Parameter) -> bytes | None:
    value = parameter.encode() if isinstance(parameter, str) else parameter
    if value is not None and b"\0" in value:
        # libpq would take it for the end of the text.
        raise errors.CharacterNotInRepertoire("a parameter contains a NUL byte")
    return value


def _resolve(answer: asyncio.Future[PGresult], outcome: PGresult | psycopg.Error) -> None:
    if answer.done():
        return
    if isinstance(outcome, psycopg.Error):
        answer.set_exception(outcome)
        # Where the caller was cancelled nobody hears of it, which is no error.
        answer.exception()
    else:
        answer.set_result(outcome)
