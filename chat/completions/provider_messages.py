"""Messages as providers take them. Pure data."""

import re
from typing import Any

import msgspec

from chat.completions.request import (
    RESULT_ROLES,
    AudioPart,
    ChatMessage,
    Content,
    DocumentPart,
    FilePart,
    ImagePart,
    Part,
    TextPart,
    _link,
    read_content,
    text_of,
)
from chat.completions.turns import StoredMessage


def message_for_provider(message: ChatMessage) -> dict[str, Any]:
    """Return a message of the caller's as providers take it."""
    if message.content is None:
        # Some providers refuse null, and some an empty text.
        says_otherwise = message.is_of_tools or message.refusal is not None
        return {"role": message.role, "content": None if says_otherwise else "", **message.extras}
    return for_provider(message.role, message.content) | message.extras


def replay_message(message: StoredMessage) -> dict[str, Any]:
    """Return a message of a conversation as providers take it."""
    role, content, extras = message.role, read_content(message.content), message.extras
    if extras is None:
        return for_provider(role, content)
    # Few providers know a field for refusals.
    calls = {name: value for name, value in extras.items() if name != "refusal"}
    said: Content = content or extras.get("refusal") or ""
    if not said and role not in RESULT_ROLES:
        return {"role": role, "content": None, **calls}
    return for_provider(role, said) | calls


def for_provider(role: str, content: Content) -> dict[str, Any]:
    role = "system" if role == "developer" else role
    if isinstance(content, str):
        return {"role": role, "content": content}
    parts = [TextPart(_link(part)) if isinstance(part, FilePart) else part for part in content]
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
# Models take 10 to 32 tokens for a second of sound, of which there are at least 8 KB without compression and 1 KB with
# it. Base64 makes a third more of that.
BYTES_A_TOKEN_OF_WAV = 300
BYTES_A_TOKEN_OF_AUDIO = 40
# Of a document, models see the text and an image of each page.
BYTES_A_TOKEN_OF_FILE = 4


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
            bound += sum(map(_part_bound, content))
    return bound


def _part_bound(part: Part) -> int:
    match part:
        case TextPart():
            return len(part.text.encode("utf-8", "replace"))
        case AudioPart():
            bytes_a_token = BYTES_A_TOKEN_OF_WAV if part.input_audio.format == "wav" else BYTES_A_TOKEN_OF_AUDIO
            return MESSAGE_OVERHEAD_TOKENS + len(part.data) // bytes_a_token
        case DocumentPart():
            return max(IMAGE_TOKENS, len(part.data) // BYTES_A_TOKEN_OF_FILE)
        case ImagePart():
            return IMAGE_TOKENS
    return part.text_size


def count_images(messages: list[dict[str, Any]]) -> int:
    contents = (message["content"] for message in messages)
    return sum(isinstance(part, ImagePart) for content in contents if isinstance(content, list) for part in content)
