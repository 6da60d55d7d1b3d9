"""JSON bodies and queries, decoded into typed structs. An error names the field that is wrong."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from apikeys.api.validation_errors import explain, explain_malformed
from apikeys.errors import InvalidParameter

Body = TypeVar("Body", bound=msgspec.Struct)


def decode(raw: bytes, decoder: msgspec.json.Decoder[Body]) -> Body:
    """Decode and validate a request's body. Raise InvalidParameter, whose `param` names the field."""
    try:
        # ASCII needs no copy: bytes that are decoded are not checked where no field wants them.
        return decoder.decode(raw if raw.isascii() else raw.decode())
    except UnicodeDecodeError:
        raise InvalidParameter("The body is not valid UTF-8.") from None
    except RecursionError:
        raise InvalidParameter("The body's JSON is nested too deeply.") from None
    except msgspec.ValidationError as error:
        raise _refusal(error, "The body") from None
    except msgspec.DecodeError as error:
        raise InvalidParameter(f"The body is not valid JSON: {explain_malformed(str(error))}.") from None


def convert(value: Any, kind: type[Body]) -> Body:
    """Validate a part of a body that was decoded already, in an object as it stood in. Raise InvalidParameter."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _refusal(error, "The body") from None


def decode_query(query: Mapping[str, str], kind: type[Body]) -> Body:
    # An empty field counts as absent.
    try:
        return msgspec.convert({name: value for name, value in query.items() if value}, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _refusal(error, "The query") from None


def _refusal(error: msgspec.ValidationError, whole: str) -> InvalidParameter:
    sentence, param = explain(str(error))
    return InvalidParameter(f"{param}: {sentence}" if param else sentence.replace("It", whole, 1), param=param)
