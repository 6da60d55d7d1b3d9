"""JSON bodies, decoded into typed structs. What is wrong with one is said by the name of its field."""

import re
from typing import TypeVar

import msgspec

from apikeys.errors import InvalidParameter

Body = TypeVar("Body", bound=msgspec.Struct)
_MISSING = re.compile(r"missing required field `(\w+)`")


def decode(raw: bytes, decoder: msgspec.json.Decoder[Body]) -> Body:
    """Decode and validate a request's body. Raises InvalidParameter, whose `param` names the field."""
    try:
        return decoder.decode(raw.decode())
    except UnicodeDecodeError:
        raise InvalidParameter("The body is not valid UTF-8.") from None
    except RecursionError:
        raise InvalidParameter("The body's JSON is nested too deeply.") from None
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$")
        missing = _MISSING.search(text)
        param = ".".join(filter(None, [path.rstrip("`").lstrip("."), missing and missing[1]]))
        raise InvalidParameter(f"{param or 'The body'}: {text}.", param=param or None) from None
    except msgspec.DecodeError as error:
        raise InvalidParameter(f"The body is not valid JSON: {error}.") from None
