"""One JSON object a line, on standard error."""

import asyncio
import logging
import select
import time
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

access_logger = logging.getLogger("fastgpt_site.access")
_encoder = msgspec.json.Encoder(enc_hook=str)


def encode(created: float, level: str, logger: str, message: str, fields: Mapping[str, Any]) -> bytes:
    line = {
        "time": datetime.fromtimestamp(created, UTC),
        "level": level,
        "logger": logger,
        "message": message,
        **fields,
    }
    return _encoder.encode(line)


class JsonFormatter(logging.Formatter):
    """A record as JSON; what is passed as `extra={"fields": {...}}` becomes fields of the object."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        if record.exc_info:
            fields = {**fields, "exception": "".join(traceback.format_exception(*record.exc_info))}
        return encode(record.created, record.levelname.lower(), record.name, record.getMessage(), fields).decode()


class LineHandler(logging.StreamHandler[TextIO]):
    """Writes each record at once, and gathered lines together when the event loop's turn ends, or before a record.

    To write costs more than all else about a line.
    """

    # The server processes may write to one pipe, which keeps what is no longer than this in one piece.
    MAX_BYTES = select.PIPE_BUF

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self._gathered = bytearray()

    def gather(self, line: bytes) -> None:
        self.acquire()
        try:
            if len(self._gathered) + len(line) >= self.MAX_BYTES:
                self.write_gathered()
            is_first = not self._gathered
            self._gathered += line
            self._gathered += b"\n"
            if is_first:
                self._write_soon()
        finally:
            self.release()

    def _write_soon(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # this thread runs none
            self.write_gathered()
        else:
            loop.call_soon(self.write_gathered)

    def write_gathered(self) -> None:
        self.acquire()
        try:
            lines = self._gathered.decode()
            self._gathered.clear()
            if lines:
                self.stream.write(lines)
                self.stream.flush()
        except (OSError, ValueError):
            # Nobody reads them any more, or the stream is closed. That must not fail a request, nor can it be logged.
            pass
        finally:
            self.release()

    def emit(self, record: logging.LogRecord) -> None:
        self.write_gathered()
        super().emit(record)

    def flush(self) -> None:
        self.write_gathered()
        super().flush()


def log_access(message: str, fields: Mapping[str, Any]) -> None:
    """Write a line of the access log. Every request pays for this: some microseconds, and its share of a write."""
    if not access_logger.isEnabledFor(logging.INFO):
        return
    match access_logger.handlers:
        case [LineHandler() as handler] if not access_logger.propagate:
            # A record would cost more than its line.
            handler.gather(encode(time.time(), "info", access_logger.name, message, fields))
        case _:
            # Other handlers, such as those of a site's own or of a test, take nothing but records.
            access_logger.info(message, extra={"fields": fields})
