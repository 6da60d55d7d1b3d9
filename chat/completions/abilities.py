"""Whether a model takes what a request has for it, as its entry in the catalog says."""

from __future__ import annotations

from apikeys.errors import InvalidParameter, ModelNotAllowed
from chat.completions.request import CompletionRequest, ImagePart
from chat.routing.entries import CatalogEntry


def check(entry: CatalogEntry, request: CompletionRequest, tool_field: str | None) -> None:
    """Raise ModelNotAllowed for an archived model, InvalidParameter for what the model does not take.

    `tool_field` is the field that asks for tools or for an answer of a format, if there is one.
    """
    if entry.is_archived:
        raise ModelNotAllowed(f"The model {entry.name} is archived.")
    if tool_field is not None and tool_field != "response_format" and not entry.takes_tools:
        raise InvalidParameter(f"{tool_field}: The model {entry.name} takes no tools.", param=tool_field)
    response_format = request.response_format or {}
    if response_format.get("type") == "json_schema" and not entry.takes_json_schema:
        raise InvalidParameter(
            f"response_format: The model {entry.name} takes no JSON schema.", param="response_format"
        )
    if not entry.takes_images:
        _check_images(entry, request)


def _check_images(entry: CatalogEntry, request: CompletionRequest) -> None:
    for number, message in enumerate(request.messages):
        if isinstance(message.content, list) and any(isinstance(part, ImagePart) for part in message.content):
            param = f"messages[{number}].content"
            raise InvalidParameter(f"{param}: The model {entry.name} takes no images.", param=param)
