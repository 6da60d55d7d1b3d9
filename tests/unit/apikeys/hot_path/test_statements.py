"""Statements from an event loop, on the real database."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import psycopg
import pytest

from apikeys.hot_path.connections import connect
from apikeys.hot_path.statements import StatementConnection, format_array, format_bytes
from apikeys.outbound.service import parse_bytes
from tests.support.processes import wait_for

PID = "SELECT pg_backend_pid()"


@asynccontextmanager
async def connected() -> AsyncIterator[StatementConnection]:
    connection = await StatementConnection.connect()
    try:
        yield connection
    finally:
        connection.close()


def run(work: Callable[[StatementConnection], Awaitable[None]]) -> None:
    async def main() -> None:
        async with connected() as connection, asyncio.timeout(30):
            await work(connection)

    asyncio.run(main())


async def terminate(pid: bytes) -> None:
    async with connected() as other:
        await other.execute("SELECT pg_terminate_backend($1::int)", [pid])


async def until_running(query: str) -> None:
    sql = "SELECT 1 FROM pg_stat_activity WHERE query = %s AND state = 'active' AND wait_event = 'PgSleep'"
    with connect() as other:
        await asyncio.to_thread(wait_for, lambda: other.execute(sql, [query]).fetchone(), "the statement runs")


@pytest.fixture(params=[True, False], ids=["direct", "pooled"])
def is_direct(request: pytest.FixtureRequest, settings) -> bool:
    """Whether a transaction pooler may be in between, where nothing is prepared and no setting is made."""
    if not request.param:
        settings.DATABASE_DIRECT_URL = "postgres://nobody@nowhere/nothing"
    return bool(request.param)


def test_it_works(is_direct: bool) -> None:
    async def work(connection: StatementConnection) -> None:
        for number in (1, 2):
            query = "SELECT $1::int + 1, $2::text, NULL UNION ALL SELECT 0, 'b', ''"
            rows = await connection.execute(query, [str(number), None])
            assert rows == [[b"%d" % (number + 1), None, None], [b"0", b"b", b""]]
        assert await connection.execute("SELECT WHERE false") == []
        [[prepared]] = await connection.execute("SELECT count(*) FROM pg_prepared_statements")
        assert int(prepared) == (3 if is_direct else 0)
        [[timeout]] = await connection.execute("SHOW statement_timeout")
        assert timeout == (b"15s" if is_direct else b"0")

    run(work)


def test_what_does_not_fit_into_the_socket(is_direct: bool) -> None:
    async def work(connection: StatementConnection) -> None:
        text = "x" * 16 * 1024 * 1024
        [[length, echoed]] = await connection.execute("SELECT length($1::text), $1::text", [text])
        assert int(length) == len(text)
        assert echoed == text.encode()

    run(work)


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELECT 1 / 0", psycopg.errors.DivisionByZero),
        ("SELEC", psycopg.errors.SyntaxError),
        ("SELECT * FROM nothing", psycopg.errors.UndefinedTable),
        ("SELECT '\\u0000'::jsonb", psycopg.errors.InvalidTextRepresentation),
        ("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '22ZZZ'; END $$", psycopg.DataError),
    ],
)
def test_errors_have_the_classes_of_their_states(sql: str, kind: type[psycopg.Error]) -> None:
    async def work(connection: StatementConnection) -> None:
        with pytest.raises(kind) as caught:
            await connection.execute(sql)
        assert caught.value.sqlstate is not None
        # It is as good as before.
        assert await connection.execute("SELECT 1") == [[b"1"]]

    run(work)


def test_a_nul_byte_is_no_text() -> None:
    async def work(connection: StatementConnection) -> None:
        with pytest.raises(psycopg.DataError) as caught:
            await connection.execute("SELECT $1::text", ["a\0b"])
        assert caught.value.sqlstate == "22021"

    run(work)


def test_an_error_at_the_commit_is_one_of_the_statement() -> None:
    async def work(connection: StatementConnection) -> None:
        await connection.execute("CREATE TEMPORARY TABLE one (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED)")
        with pytest.raises(psycopg.errors.UniqueViolation):
            await connection.execute("INSERT INTO one VALUES (1), (1) RETURNING id")
        assert await connection.execute("SELECT id FROM one") == []

    run(work)


def test_notices_are_no_answers() -> None:
    async def work(connection: StatementConnection) -> None:
        await connection.execute("DO $$ BEGIN RAISE WARNING 'careful'; END $$")
        await connection.execute("LISTEN nothing_else_listens")
        async with connected() as other:
            await other.execute("NOTIFY nothing_else_listens")
        assert await connection.execute("SELECT 1") == [[b"1"]]

    run(work)


def test_it_dies_while_idle() -> None:
    async def work(connection: StatementConnection) -> None:
        [[pid]] = await connection.execute(PID)
        await terminate(pid)
        await asyncio.to_thread(wait_for, lambda: connection.is_closed, "its death is noticed")
        with pytest.raises(psycopg.OperationalError):
            await connection.execute(PID)

    run(work)


def test_it_dies_under_way() -> None:
    async def work(connection: StatementConnection) -> None:
        [[pid]] = await connection.execute(PID)
        query = "SELECT pg_sleep(30), 'dies under way'"
        task = asyncio.create_task(connection.execute(query))
        await until_running(query)
        await terminate(pid)
        with pytest.raises(psycopg.OperationalError):
            await task
        assert connection.is_closed

    run(work)


def test_it_is_closed_under_way() -> None:
    async def work(connection: StatementConnection) -> None:
        task = asyncio.create_task(connection.execute("SELECT pg_sleep(30)"))
        await asyncio.sleep(0)
        connection.close()
        with pytest.raises(psycopg.OperationalError):
            await task

    run(work)


def test_a_statement_that_takes_too_long() -> None:
    async def work(connection: StatementConnection) -> None:
        await connection.execute("SET statement_timeout = '50ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            await connection.execute("SELECT pg_sleep(30)")
        assert await connection.execute("SELECT 1") == [[b"1"]]

    run(work)


def test_the_statement_of_a_caller_that_left_goes_on() -> None:
    async def work(connection: StatementConnection) -> None:
        await connection.execute("CREATE TEMPORARY TABLE one AS SELECT 1 AS id")
        query = "WITH slept AS (SELECT pg_sleep(0.5)) INSERT INTO one SELECT 2 FROM slept"
        task = asyncio.create_task(connection.execute(query))
        await until_running(query)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # They wait for it, and for each other.
        counts = await asyncio.gather(*(connection.execute("SELECT count(*) FROM one") for _ in range(3)))
        assert counts == [[[b"2"]]] * 3

    run(work)


def test_a_failure_that_nobody_waits_for_leaves_no_trace() -> None:
    async def work(connection: StatementConnection) -> None:
        query = "SELECT 1 / (extract(epoch FROM clock_timestamp()) * 0)::int FROM pg_sleep(0.2)"
        task = asyncio.create_task(connection.execute(query))
        await until_running(query)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await connection.execute("SELECT 1") == [[b"1"]]

    run(work)


def test_arrays_and_bytes_arrive_as_they_were() -> None:
    texts = ["", "a", 'a "quoted", {braced} \\ one', "NULL", None, "日本", " \n"]
    blob = bytes(range(256))

    async def work(connection: StatementConnection) -> None:
        rows = await connection.execute("SELECT unnest($1::text[])", [format_array(texts)])
        assert [None if text is None else text.decode() for [text] in rows] == texts
        rows = await connection.execute("SELECT unnest($1::bytea[])", [format_array([format_bytes(blob)])])
        assert [parse_bytes(text.decode()) for [text] in rows] == [blob]
        assert await connection.execute("SELECT unnest($1::int[])", [format_array([])]) == []

    run(work)
