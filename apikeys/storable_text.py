"""Text that PostgreSQL and JSON can hold."""

from typing import Any


def storable(text: str) -> str:
    """Replace NULs and lone surrogates, which neither a text column nor UTF-8 can carry, by U+FFFD."""
    text = text.replace("\0", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        # UTF-16 joins two halves of one character that were sent apart.
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def storable_json(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, list):
        return [storable_json(item) for item in value]
    if isinstance(value, dict):
        return {storable(name): storable_json(item) for name, item in value.items()}
    return value
