"""Ids of 24 hexadecimal characters, as FastGPT's clients know them: time-ordered, with a random tail."""

import os
import re
import secrets
import time
from datetime import datetime

LENGTH = 24
PATTERN = re.compile(r"[0-9a-f]{24}")


# The system is asked for the bits of many ids at once.
IDS_AT_ONCE = 512
_tails: list[str] = []
# A forked process must not make the same ids.
os.register_at_fork(after_in_child=_tails.clear)


def new_object_id() -> str:
    """Return 32 bits of Unix seconds, then 64 random bits."""
    try:
        tail = _tails.pop()
    except IndexError:
        bits = secrets.token_hex(8 * IDS_AT_ONCE)
        _tails.extend(bits[start : start + 16] for start in range(0, len(bits), 16))
        tail = _tails.pop()
    return f"{int(time.time()):08x}{tail}"


def first_object_id(moment: datetime) -> str:
    """Return the least id that could have been made at this moment."""
    return f"{int(moment.timestamp()):08x}{'0' * 16}"


def is_object_id(text: str) -> bool:
    return PATTERN.fullmatch(text) is not None
