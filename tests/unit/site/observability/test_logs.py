"""How lines come to standard error."""

import asyncio
import io
import json
import logging
import os

import pytest

from apikeys.hot_path.trace import Trace
from fastgpt_site.http import access_log
from fastgpt_site.observability.logs import JsonFormatter, LineHandler, access_logger


class Stream(io.StringIO):
    """A stream that knows its writes apart."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return super().write(text)


@pytest.fixture
def stream() -> Stream:
    return Stream()


@pytest.fixture
def handler(stream: Stream) -> LineHandler:
    handler = LineHandler(stream)
    handler.setFormatter(JsonFormatter())
    return handler


def test_it_works(handler: LineHandler, stream: Stream) -> None:
    """Lines of one turn are one write, in their order."""

    async def two_turns() -> None:
        for line in (b"1", b"2", b"3"):
            handler.gather(line)
        assert not stream.writes
        await asyncio.sleep(0)
        handler.gather(b"4")
        handler.gather(b"5")
        await asyncio.sleep(0)
        assert stream.writes == ["1\n2\n3\n", "4\n5\n"]
        await asyncio.sleep(0)

    asyncio.run(two_turns())
    assert stream.writes == ["1\n2\n3\n", "4\n5\n"]


def test_without_a_loop(handler: LineHandler, stream: Stream) -> None:
    handler.gather(b"1")
    handler.gather("雪".encode())
    assert stream.writes == ["1\n", "雪\n"]


def test_a_record_comes_behind_the_lines_before_it(handler: LineHandler, stream: Stream) -> None:
    async def turn() -> None:
        handler.gather(b"1")
        await asyncio.to_thread(handler.handle, logging.makeLogRecord({"msg": "record", "levelname": "INFO"}))
        handler.gather(b"2")
        await asyncio.sleep(0)

    asyncio.run(turn())
    first, record, last = stream.getvalue().splitlines()
    assert (first, json.loads(record)["message"], last) == ("1", "record", "2")


def test_no_write_is_longer_than_a_pipe_keeps_whole(handler: LineHandler, stream: Stream) -> None:
    lines = [f"{number:0400}" for number in range(30)]
    too_long = "x" * 2 * LineHandler.MAX_BYTES

    async def turn() -> None:
        for line in (*lines, too_long, *lines):
            handler.gather(line.encode())
        await asyncio.sleep(0)

    asyncio.run(turn())
    assert stream.getvalue().splitlines() == [*lines, too_long, *lines]
    assert all(write.endswith("\n") for write in stream.writes)
    assert [write for write in stream.writes if len(write) > LineHandler.MAX_BYTES] == [f"{too_long}\n"]
    assert len(stream.writes) < len(lines)


def test_a_reader_that_left() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")
    handler = LineHandler(stream)
    handler.gather(b"1")
    handler.gather(b"2")
    with pytest.raises(BrokenPipeError):
        stream.close()
    handler.gather(b"3")


def test_a_request_is_the_same_line_with_a_record_and_without(
    handler: LineHandler, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = Trace("127.0.0.1")
    trace.error_code, trace.user_id = "app_not_found", 7
    records = Stream()
    other = logging.StreamHandler(records)

    for handlers in ([handler], [handler, other]):
        monkeypatch.setattr(access_logger, "handlers", handlers)
        access_log.write("POST", "/api/v1/雪", trace, 404, is_api=True, is_gone=True)
        access_log.write_refused_connection(trace, 400, ("127.0.0.1", 1))
    assert records.writes == ["request\n", "refused connection\n"]
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    for line in lines:
        assert line.pop("time").endswith("Z")
        line.pop("duration_ms", None)
    assert lines[:2] == lines[2:]
    assert [list(line) for line in lines[:2]] == [list(line) for line in lines[2:]]
    assert list(lines[0])[-3:] == ["error", "user_id", "client_gone"]
