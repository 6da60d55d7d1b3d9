"""JSON as servers send it: after a byte order mark, with NaN in it, or with characters cut in two. Pure data."""

import json
from typing import Any

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def load(raw: bytes) -> Any:
    """Return what JSON says. Half a character stays as a surrogate. Raise ValueError or RecursionError."""
    text = raw.removeprefix(BYTE_ORDER_MARK).decode("utf-8", "surrogateescape")
    return json.loads(text, parse_constant=lambda name: None)


def is_json(lead: bytes) -> bool:
    """Return whether a body that begins so may be JSON, whatever its Content-Type says."""
    return lead.removeprefix(BYTE_ORDER_MARK).lstrip()[:1] in (b"{", b"[")
