"""Ids of 24 hexadecimal characters, as FastGPT's clients know them: time-ordered, with a random tail."""

import re
import secrets
import time
from datetime import datetime

LENGTH = 24
PATTERN = re.compile(r"[0-9a-f]{24}")


def new_object_id() -> str:
    """Return 32 bits of Unix seconds, then 64 random bits."""
    return f"{int(time.time()):08x}{secrets.token_hex(8)}"


def first_object_id(moment: datetime) -> str:
    """Return the least id that could have been made at this moment."""
    return f"{int(moment.timestamp()):08x}{'0' * 16}"


def is_object_id(text: str) -> bool:
    return PATTERN.fullmatch(text) is not None
