"""Reads in threads of their own: connections are kept and replaced, and no more reads are taken than have room."""

import asyncio
import threading
from collections.abc import Iterator

import psycopg
import pytest
from asgiref.sync import async_to_sync
from django.db import connection

from apikeys.errors import ServiceUnavailable
from apikeys.hot_path.connections import Connection
from apikeys.hot_path.readers import Readers


@pytest.fixture
def readers() -> Iterator[Readers]:
    readers = Readers("test", threads=1, capacity=2, wait_seconds=5)
    yield readers
    readers.close()


def backend(connection: Connection) -> int:
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])


def test_it_works(readers: Readers) -> None:
    first = async_to_sync(readers.read)(backend)
    assert async_to_sync(readers.read)(backend) == first
    readers.close()
    assert async_to_sync(readers.read)(backend) != first


def test_a_connection_that_died_is_replaced(readers: Readers) -> None:
    first = async_to_sync(readers.read)(backend)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [first])
    assert async_to_sync(readers.read)(backend) != first


def test_no_database(readers: Readers) -> None:
    def die(own: Connection) -> None:
        own.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(ServiceUnavailable):
        async_to_sync(readers.read)(die)


def test_a_wrong_statement_is_no_outage(readers: Readers) -> None:
    with pytest.raises(psycopg.errors.SyntaxError):
        async_to_sync(readers.read)(lambda own: own.execute("SELEC"))
    assert async_to_sync(readers.read)(backend)


def test_no_room(readers: Readers) -> None:
    go_on = threading.Event()

    async def ask() -> list[object]:
        under_way = [asyncio.ensure_future(readers.read(lambda own: go_on.wait(30))) for _ in range(2)]
        await asyncio.sleep(0)
        try:
            await readers.read(backend)
        except ServiceUnavailable as error:
            refused = error
        go_on.set()
        return [refused, *await asyncio.gather(*under_way), await readers.read(backend) > 0]

    refused, *rest = async_to_sync(ask)()
    assert isinstance(refused, ServiceUnavailable)
    assert rest == [True, True, True]


def test_it_takes_too_long() -> None:
    readers = Readers("slow", threads=1, capacity=2, wait_seconds=0.05)
    go_on = threading.Event()
    try:
        with pytest.raises(ServiceUnavailable):
            async_to_sync(readers.read)(lambda own: go_on.wait(30))
    finally:
        go_on.set()
        readers.close()
