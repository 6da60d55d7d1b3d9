"""Messages as providers take them, and responses as they give them. Pure data."""

import json
import re
from typing import Any

import msgspec
from msgspec import Struct

from chat.completions.request import Content, FilePart, ImagePart, TextPart, _link, text_of


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
        if isinstance(content, str):
            bound += len(content.encode("utf-8", "replace"))
        else:
            bound += sum(
                len(part.text.encode("utf-8", "replace")) if isinstance(part, TextPart) else IMAGE_TOKENS
                for part in content
            )
    return bound


class ProviderDelta(Struct, frozen=True):
    content: str | None = None


class ProviderChoice(Struct, frozen=True):
    delta: ProviderDelta | None = None
    message: ProviderDelta | None = None
    finish_reason: str | None = None


class ProviderAnswer(Struct, frozen=True):
    """A whole answer, or one chunk of a streamed one; only what is read of it."""

    choices: list[ProviderChoice] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


_answer_decoder = msgspec.json.Decoder(ProviderAnswer)


def decode_answer(raw: bytes) -> ProviderAnswer:
    """Decode a provider's answer. Raise ValueError when it is not such JSON."""
    try:
        return _answer_decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    except msgspec.DecodeError:
        # Half a surrogate pair is legal JSON to some: the standard library reads it, and then it is mended.
        return msgspec.convert(json.loads(raw, parse_constant=_refuse_constant), ProviderAnswer)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def reported_tokens(usage: dict[str, Any] | None, name: str) -> int | None:
    # A count that could not be true is as good as none.
    count = (usage or {}).get(name)
    return count if isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 2**31 else None


def finish_reason_of(reason: str | None) -> str:
    # OpenAI's reasons stay as they are; whatever else a provider says means that it stopped.
    return reason if reason in ("stop", "length", "content_filter") else "stop"
