"""Messages as providers take them. Pure data."""

import re
from typing import Any

import msgspec

from chat.completions.request import ChatMessage, Content, FilePart, ImagePart, TextPart, _link, text_of


def message_for_provider(message: ChatMessage) -> dict[str, Any]:
    """Return a message of the caller's as providers take it."""
    if message.content is None:
        # Some providers refuse null, and some an empty text.
        return {"role": message.role, "content": None if message.extras else "", **message.extras}
    return for_provider(message.role, message.content) | message.extras


def for_provider(role: str, content: Content) -> dict[str, Any]:
    role = "system" if role == "developer" else role
    if isinstance(content, str):
        return {"role": role, "content": content}
    parts: list[TextPart | ImagePart] = [
        TextPart(_link(part)) if isinstance(part, FilePart) else part for part in content
    ]
    if all(isinstance(part, TextPart) for part in parts):
        # Many providers know no parts.
        return {"role": role, "content": text_of(content)}
    return {"role": role, "content": parts}


_VARIABLE = re.compile(r"\{\{\s*([^{}\s]+)\s*\}\}")


def fill_variables(prompt: str, variables: dict[str, Any]) -> str:
    # Unknown variables stay as they are.
    def value(match: re.Match[str]) -> str:
        if match[1] not in variables:
            return match[0]
        found = variables[match[1]]
        return found if isinstance(found, str) else msgspec.json.encode(found).decode()

    return _VARIABLE.sub(value, prompt)


# Constants of the upper bound: what a chat template adds to a message, and what an image may cost.
MESSAGE_OVERHEAD_TOKENS = 16
IMAGE_TOKENS = 2_000


def token_bound(messages: list[dict[str, Any]]) -> int:
    # A token of a byte-level vocabulary is at least one byte of UTF-8.
    bound = 0
    for message in messages:
        content = message["content"]
        bound += MESSAGE_OVERHEAD_TOKENS
        if len(message) > len(("role", "content")):
            extras = {name: value for name, value in message.items() if name not in ("role", "content")}
            bound += len(msgspec.json.encode(extras))
        if content is None:
            continue
        if isinstance(content, str):
            bound += len(content.encode("utf-8", "replace"))
        else:
            bound += sum(
                len(part.text.encode("utf-8", "replace")) if isinstance(part, TextPart) else IMAGE_TOKENS
                for part in content
            )
    return bound


def count_images(messages: list[dict[str, Any]]) -> int:
    contents = (message["content"] for message in messages)
    return sum(isinstance(part, ImagePart) for content in contents if isinstance(content, list) for part in content)
