"""One JSON object a line, on standard error."""

import logging
import traceback
from datetime import UTC, datetime
from typing import Any

import msgspec

access_logger = logging.getLogger("fastgpt_site.access")


class JsonFormatter(logging.Formatter):
    """A record as JSON; what is passed as `extra={"fields": {...}}` becomes fields of the object."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = "".join(traceback.format_exception(*record.exc_info))
        return msgspec.json.encode(line, enc_hook=str).decode()
