"""Names that people give, as they are kept."""

import re
from typing import Annotated

import msgspec

from apikeys.errors import InvalidParameter
from apikeys.storable_text import storable

# These would break a line, or turn the text around them in a list of names.
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]")

DatasetName = Annotated[str, msgspec.Meta(max_length=100)]
CollectionName = Annotated[str, msgspec.Meta(max_length=200)]


def clean_name(name: str, param: str = "name") -> str:
    """Raise InvalidParameter for a name that is empty or cannot be shown in a line."""
    name = name.strip()
    if not name or CONTROLS.search(name):
        raise InvalidParameter(f"{param}: Give a name without control characters.", param=param)
    return storable(name)
