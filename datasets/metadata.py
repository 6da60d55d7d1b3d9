"""Metadata that callers keep with a collection, as they gave it."""

from typing import Any

import msgspec

from apikeys.errors import InvalidParameter
from apikeys.storable_text import storable_json

MAXIMUM_METADATA_BYTES = 16 * 1024


def clean_metadata(metadata: dict[str, Any]) -> Any:
    try:
        if len(msgspec.json.encode(metadata)) <= MAXIMUM_METADATA_BYTES:
            return storable_json(metadata)
    except RecursionError:
        pass
    raise InvalidParameter(
        f"metadata: It is nested too deeply, or holds more than {MAXIMUM_METADATA_BYTES} bytes.", param="metadata"
    )
