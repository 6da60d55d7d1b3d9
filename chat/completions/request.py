"""The bodies of completions, as they come in, go to the provider, come back, and go out. Pure data."""

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from apikeys.api.bodies import decode
from apikeys.errors import InvalidParameter

MAX_MESSAGES_BYTES = 1024 * 1024
# `metadata` and `variables` may each be this large.
MAX_OBJECT_BYTES = 64 * 1024


class TextPart(Struct, tag_field="type", tag="text", frozen=True):
    text: str


class ImageUrl(Struct, frozen=True, omit_defaults=True):
    url: str
    detail: str | None = None


class ImagePart(Struct, tag_field="type", tag="image_url", frozen=True):
    """An image by its URL, which is passed on and never fetched by this server."""

    image_url: ImageUrl


class FilePart(Struct, tag_field="type", tag="file_url", frozen=True):
    """FastGPT's: a document by its URL. The model sees it as a link."""

    url: str
    name: str = ""


Content = str | list[TextPart | ImagePart | FilePart]


class ChatMessage(Struct, frozen=True):
    role: Literal["system", "developer", "user", "assistant"]
    content: Content


class StreamOptions(Struct, frozen=True):
    include_usage: bool | None = None


Tokens = Annotated[int, Meta(ge=1, lt=2**31)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]


class CompletionRequest(Struct, frozen=True):
    """`POST v1/chat/completions`. null means absent; unknown fields are ignored."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    chatId: Annotated[str, Meta(max_length=250)] | None = None
    stream: bool | None = None
    detail: bool | None = None
    variables: dict[str, Any] | None = None
    responseChatItemId: Annotated[str, Meta(max_length=250)] | None = None
    customUid: Annotated[str, Meta(max_length=1024)] | None = None
    metadata: dict[str, Any] | None = None
    appId: str | None = None
    model: str | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    stop: str | list[str] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    user: str | None = None
    stream_options: StreamOptions | None = None
    # These would change the form of the answer.
    tools: Any = None
    tool_choice: Any = None
    functions: Any = None
    function_call: Any = None
    n: int | None = None
    response_format: dict[str, Any] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    audio: Any = None
    modalities: list[str] | None = None


# A backslash before it may itself be escaped.
NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")
_request_decoder = msgspec.json.Decoder(CompletionRequest)


def parse_request(raw: bytes) -> CompletionRequest:
    """Decode and check a request's body. Raise InvalidParameter."""
    request = decode(raw, _request_decoder)
    for name in ("chatId", "responseChatItemId"):
        if "\0" in (getattr(request, name) or ""):
            raise InvalidParameter(f"{name}: It holds a NUL character.", param=name)
    if b"\\u0000" in raw:
        # No database column and few providers take a NUL; in text it carries nothing.
        request = decode(NUL.sub(rb"\1\\ufffd", raw), _request_decoder)
    for name in ("metadata", "variables"):
        value = getattr(request, name)
        if value is not None and len(msgspec.json.encode(value)) > MAX_OBJECT_BYTES:
            raise InvalidParameter(f"{name}: It holds more than {MAX_OBJECT_BYTES} bytes.", param=name)
    field = unsupported_field(request)
    if field is not None:
        raise InvalidParameter(f"{field}: This is not supported.", param=field)
    if sum(_size(message.content) for message in request.messages) > MAX_MESSAGES_BYTES:
        raise InvalidParameter(f"messages: They hold more than {MAX_MESSAGES_BYTES} bytes.", param="messages")
    if not any(message.role == "user" for message in request.messages):
        raise InvalidParameter("messages: There is no message of the user.", param="messages")
    return request


def _size(content: Content) -> int:
    if isinstance(content, str):
        return len(content.encode())
    return sum(len(msgspec.json.encode(part)) for part in content)


def unsupported_field(request: CompletionRequest) -> str | None:
    """Return the first field that asks for an answer in a form that is not supported; None if there is none."""
    asked = {
        # Tools that may not be used change nothing, nor does a choice among none.
        "tools": _is_asked(request.tools) and request.tool_choice != "none",
        "tool_choice": _is_asked(request.tool_choice) and request.tool_choice not in ("none", "auto"),
        "functions": _is_asked(request.functions) and request.function_call != "none",
        "function_call": _is_asked(request.function_call) and request.function_call not in ("none", "auto"),
        "n": request.n not in (None, 1),
        "response_format": request.response_format is not None and request.response_format.get("type") != "text",
        "logprobs": bool(request.logprobs),
        "top_logprobs": bool(request.top_logprobs),
        "audio": _is_asked(request.audio),
        "modalities": request.modalities not in (None, [], ["text"]),
    }
    return next((name for name, is_asked in asked.items() if is_asked), None)


def _is_asked(value: Any) -> bool:
    return value not in (None, [])


def text_of(content: Content) -> str:
    """Return the text that a person would read, with links for what is not text."""
    if isinstance(content, str):
        return content
    lines = []
    for part in content:
        if isinstance(part, TextPart):
            lines.append(part.text)
        elif isinstance(part, FilePart):
            lines.append(_link(part))
        else:
            lines.append(f"![]({part.image_url.url})" if not part.image_url.url.startswith("data:") else "![image]")
    return "\n".join(lines)


def _link(part: FilePart) -> str:
    return f"[{part.name or part.url}]({part.url})"
