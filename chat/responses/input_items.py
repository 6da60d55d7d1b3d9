"""The input of `POST v1/responses`: its items as they come in, and the chat messages that they say. Pure data."""

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct

from apikeys.errors import InvalidParameter
from chat.completions.request import ChatMessage, Content, FilePart, ImagePart, ImageUrl, TextPart


class InputText(Struct, tag="input_text", frozen=True):
    text: str


class OutputText(Struct, tag="output_text", frozen=True):
    text: str


class Refusal(Struct, tag="refusal", frozen=True):
    refusal: str


class InputImage(Struct, tag="input_image", frozen=True):
    image_url: str | None = None
    detail: str | None = None


class InputFile(Struct, tag="input_file", frozen=True):
    file_url: str | None = None
    filename: str | None = None


Part = InputText | OutputText | Refusal | InputImage | InputFile


class MessageItem(Struct, tag="message", frozen=True):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]


class FunctionCall(Struct, tag="function_call", frozen=True):
    call_id: str
    name: str
    arguments: str


class FunctionCallOutput(Struct, tag="function_call_output", frozen=True):
    call_id: str
    output: str | list[Part]


class ReasoningItem(Struct, tag="reasoning", frozen=True):
    """What a model thought is not asked of it again: providers take no reasoning in a request."""


class ItemReference(Struct, tag="item_reference", frozen=True):
    """An item of an earlier response, by its id."""

    id: str


Item = MessageItem | FunctionCall | FunctionCallOutput | ReasoningItem | ItemReference
IGNORED = ReasoningItem()


class Input(Struct, frozen=True):
    """The part of a body that has the items."""

    input: list[Item]


def complete_item(item: dict[str, Any]) -> dict[str, Any]:
    # A message may leave its type out, and so may a reference, which has nothing but an id.
    if item.get("type") is not None:
        return item
    return item | {"type": "message" if "role" in item or "content" in item else "item_reference"}


def messages_of(items: Sequence[Item], *, follows: bool) -> list[ChatMessage]:
    """Return the messages that these items say; calls of functions that follow each other are of one message.

    Outputs that come first may be of calls of a previous response, which these items follow. References say nothing
    before they are resolved. Raise InvalidParameter for other outputs that have no call before them.
    """
    messages: list[ChatMessage] = []
    called: set[str] = set()
    has_references = any(isinstance(item, ItemReference) for item in items)
    # These are the calls of the last message, where others may be added.
    calls: list[dict[str, Any]] | None = None
    for number, item in enumerate(items):
        place = f"input[{number}]"
        if isinstance(item, MessageItem):
            calls = [] if item.role == "assistant" else None
            messages.append(ChatMessage(item.role, _content(item.content, f"{place}.content")))
        elif isinstance(item, FunctionCall):
            called.add(item.call_id)
            if not calls:
                message = messages.pop() if calls is not None else ChatMessage("assistant")
                calls = []
                messages.append(ChatMessage("assistant", message.content, tool_calls=calls))
            function = {"name": item.name, "arguments": item.arguments}
            calls.append({"id": item.call_id, "type": "function", "function": function})
        elif isinstance(item, FunctionCallOutput):
            is_first = follows and (not messages or messages[-1].role == "tool") and not called
            if item.call_id not in called and not (is_first or has_references):
                raise InvalidParameter(
                    f"{place}.call_id: No function call before it has this call_id.", param=f"{place}.call_id"
                )
            calls = None
            messages.append(ChatMessage("tool", _content(item.output, f"{place}.output"), tool_call_id=item.call_id))
    return messages


def _content(content: str | list[Part], place: str) -> Content:
    if isinstance(content, str):
        return content
    return [_part(part, f"{place}[{number}]") for number, part in enumerate(content)]


def _part(part: Part, place: str) -> TextPart | ImagePart | FilePart:
    if isinstance(part, InputImage):
        if part.image_url is None:
            raise InvalidParameter(f"{place}.image_url: Give an image by its URL.", param=f"{place}.image_url")
        return ImagePart(ImageUrl(part.image_url, part.detail))
    if isinstance(part, InputFile):
        if part.file_url is None:
            raise InvalidParameter(f"{place}.file_url: Give a file by its URL.", param=f"{place}.file_url")
        return FilePart(part.file_url, part.filename or "")
    return TextPart(part.refusal if isinstance(part, Refusal) else part.text)
