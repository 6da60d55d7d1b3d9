"""The bodies of completions, as they come in, go to the provider, come back, and go out. Pure data."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta, Struct

from apikeys.api.bodies import Body, decode
from apikeys.errors import InvalidParameter
from apikeys.storable_text import storable_json
from chat.completions.body_text import check_text

# The base64 of images and files is not counted.
MAX_MESSAGES_BYTES = 1024 * 1024
# To decode and check more would hold up the event loop.
QUICK_BYTES = 128 * 1024
# What is decoded here is encoded again for the provider, stored, and shown by pages that are so many frames deeper in
# the stack at most. Each level of JSON takes as much of it as a frame. What has no more brackets is no deeper.
SPARE_FRAMES = 400
SHALLOW = 400
# A request may ask for so many answers.
MAX_CHOICES = 128
# Messages of these roles are results of tools; the second is that of OpenAI's older functions.
RESULT_ROLES = ("tool", "function")
# `metadata` and `variables` may each be this large.
MAX_OBJECT_BYTES = 64 * 1024


# What is longer is no name.
Label = Annotated[str, Meta(max_length=1024)]


class TextPart(Struct, tag_field="type", tag="text", frozen=True):
    text: str

    data: ClassVar[str] = ""

    @property
    def text_size(self) -> int:
        return len(self.text.encode())


class ImageUrl(Struct, frozen=True, omit_defaults=True):
    url: str
    detail: Label | None = None


class ImagePart(Struct, tag_field="type", tag="image_url", frozen=True):
    """An image by its URL, which is passed on and never fetched by this server."""

    image_url: ImageUrl

    @property
    def data(self) -> str:
        """The image itself, if its URL is made of it."""
        url = self.image_url.url
        return url if url.startswith("data:") else ""

    @property
    def text_size(self) -> int:
        return 0 if self.data else len(self.image_url.url.encode())


class FilePart(Struct, tag_field="type", tag="file_url", frozen=True):
    """FastGPT's: a document by its URL. The model sees it as a link."""

    url: str
    name: str = ""

    data: ClassVar[str] = ""

    @property
    def text_size(self) -> int:
        return len(self.url.encode()) + len(self.name.encode())


class InputAudio(Struct, frozen=True, omit_defaults=True):
    data: str
    format: Label | None = None


class AudioPart(Struct, tag_field="type", tag="input_audio", frozen=True):
    """A recording, as base64."""

    input_audio: InputAudio

    @property
    def data(self) -> str:
        return self.input_audio.data

    @property
    def text_size(self) -> int:
        return len((self.input_audio.format or "").encode())


class InputFile(Struct, frozen=True, omit_defaults=True):
    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class DocumentPart(Struct, tag_field="type", tag="file", frozen=True):
    """OpenAI's file: as base64, or by the id that the provider gave it."""

    file: InputFile

    @property
    def data(self) -> str:
        return self.file.file_data or ""

    @property
    def text_size(self) -> int:
        return sum(len(text.encode()) for text in (self.file.file_id, self.file.filename) if text)


class RefusalPart(Struct, tag_field="type", tag="refusal", frozen=True):
    """What an assistant said in place of an answer."""

    refusal: str

    data: ClassVar[str] = ""

    @property
    def text_size(self) -> int:
        return len(self.refusal.encode())


Part = TextPart | ImagePart | FilePart | AudioPart | DocumentPart | RefusalPart
# They are no text, and no part of what is searched for.
MEDIA = (ImagePart, AudioPart, DocumentPart)
Content = str | list[Part]


class ChatMessage(Struct, frozen=True):
    """OpenAI's. Only an assistant may say nothing, and it may ask for tools; a tool's result names the call."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Content | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    function_call: dict[str, Any] | None = None
    refusal: str | None = None

    @property
    def is_of_tools(self) -> bool:
        # No calls at all are an empty list with some clients.
        is_call = bool(self.tool_calls) or self.function_call is not None
        return is_call or self.tool_call_id is not None or self.role in RESULT_ROLES

    @property
    def extras(self) -> dict[str, Any]:
        """Return what it has besides its role and content."""
        if self.name is None and self.refusal is None and not self.is_of_tools:
            return {}
        names = ("name", "tool_calls", "tool_call_id", "function_call", "refusal")
        return {name: value for name in names if (value := getattr(self, name)) not in (None, [])}


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
    stop: Label | Annotated[list[Label], Meta(max_length=64)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    user: Label | None = None
    stream_options: StreamOptions | None = None
    logit_bias: dict[str, float] | None = None
    reasoning_effort: Label | None = None
    service_tier: Label | None = None
    verbosity: Label | None = None
    prediction: dict[str, Any] | None = None
    safety_identifier: Label | None = None
    prompt_cache_key: Label | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: Label | None = None
    # These go to the model where the app passes them on.
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    functions: list[dict[str, Any]] | None = None
    function_call: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    # These would change the form of the answer.
    audio: Any = None
    modalities: list[str] | None = None
    moderation: Any = None
    web_search_options: Any = None

    @property
    def has_large_options(self) -> bool:
        """Return whether it may have any of LARGE_OPTIONS."""
        return self.has_options_of_tools or self.prediction is not None or self.prompt_cache_options is not None

    @property
    def has_options_of_form(self) -> bool:
        """Return whether it sets any that would change the form of the answer."""
        return (
            self.audio is not None
            or self.modalities is not None
            or self.moderation is not None
            or self.web_search_options is not None
        )

    @property
    def question(self) -> Content:
        """Return the last message of the user, which only a request that ends in results may lack."""
        return next((message.content or "" for message in reversed(self.messages) if message.role == "user"), "")

    @property
    def ends_in_results(self) -> bool:
        return self.messages[-1].role in RESULT_ROLES

    @property
    def results(self) -> slice:
        """Return where the results of tools are that the messages end in, or that a last question follows."""
        messages = self.messages
        start = end = len(messages) - (messages[-1].role == "user")
        while start and messages[start - 1].role in RESULT_ROLES:
            start -= 1
        return slice(start, end)

    @property
    def has_options_of_tools(self) -> bool:
        """Return whether it sets any of these, as few requests do."""
        return (
            self.tools is not None
            or self.tool_choice is not None
            or self.parallel_tool_calls is not None
            or self.functions is not None
            or self.function_call is not None
            or self.response_format is not None
            or self.n is not None
            or self.logprobs is not None
            or self.top_logprobs is not None
        )


# Each of these may be as large as all messages.
LARGE_OPTIONS = ("tools", "functions", "response_format", "prediction", "prompt_cache_options")
_request_decoder = msgspec.json.Decoder(CompletionRequest)


def parse_request(raw: bytes) -> CompletionRequest:
    """Decode and check a request's body. Raise InvalidParameter or BodyTooLarge."""
    check_text(raw)
    request = decode(raw, _request_decoder)
    for name in ("chatId", "responseChatItemId"):
        if "\0" in (getattr(request, name) or ""):
            raise InvalidParameter(f"{name}: It holds a NUL character.", param=name)
    try:
        if b"\\" in raw and b"\\u0000" in raw:
            request = without_nuls(request)
        _check_sizes(request)
    except RecursionError:
        raise InvalidParameter("The body's JSON is nested too deeply.") from None
    field = unsupported_field(request)
    if field is not None:
        raise InvalidParameter(f"{field}: This is not supported.", param=field)
    if request.n is not None and request.n > 1 and request.chatId:
        raise InvalidParameter("n: It must be 1 with a chatId, which stores one answer.", param="n")
    check_messages(request)
    return request


def _check_sizes(request: CompletionRequest) -> None:
    """Raise InvalidParameter for what is too large, and RecursionError for what is too deep."""
    for name in ("metadata", "variables"):
        value = getattr(request, name)
        if value is not None and encoded_size(value) > MAX_OBJECT_BYTES:
            raise InvalidParameter(f"{name}: It holds more than {MAX_OBJECT_BYTES} bytes.", param=name)
    if sum(map(text_size, request.messages)) > MAX_MESSAGES_BYTES:
        raise InvalidParameter(f"messages: They hold more than {MAX_MESSAGES_BYTES} bytes.", param="messages")
    for name in LARGE_OPTIONS if request.has_large_options else ():
        value = getattr(request, name)
        if value and encoded_size(value) > MAX_MESSAGES_BYTES:
            raise InvalidParameter(f"{name}: It holds more than {MAX_MESSAGES_BYTES} bytes.", param=name)


def check_messages(request: CompletionRequest) -> None:
    """Raise InvalidParameter for a message that says nothing, a result that nobody called for, or no question."""
    messages = request.messages
    for number, message in enumerate(messages):
        if message.content is None and message.role != "assistant":
            raise InvalidParameter(f"messages[{number}].content: It is missing.", param=f"messages[{number}].content")
    if not request.chatId:
        _check_calls(messages)
    elif request.ends_in_results:
        # They go on with a turn of the chat, which alone knows what was called.
        return
    if not any(message.role == "user" for message in messages):
        raise InvalidParameter("messages: There is no message of the user.", param="messages")


def without_nuls(request: Body) -> Body:
    # No database column and few providers take a NUL; in text it carries nothing.
    try:
        return msgspec.convert(storable_json(msgspec.to_builtins(request)), type(request))
    except RecursionError:
        raise InvalidParameter("The body's JSON is nested too deeply.") from None


def text_size(message: ChatMessage) -> int:
    """Return how many bytes of text a message has."""
    content, extras = message.content, message.extras
    size = encoded_size(extras) if extras else 0
    if isinstance(content, str):
        return size + len(content.encode())
    return size + sum(part.text_size for part in content or ())


def encoded_size(value: Any) -> int:
    """Return the size of a value as JSON. Raise RecursionError if it is too deep for others to read or to write."""
    raw = msgspec.json.encode(value)
    if raw.count(b"[") + raw.count(b"{") > SHALLOW:
        _encode_below(value, SPARE_FRAMES)
    return len(raw)


def _encode_below(value: Any, frames: int) -> None:
    if frames:
        _encode_below(value, frames - 1)
    else:
        msgspec.json.encode(value)


def _check_calls(messages: Sequence[ChatMessage]) -> None:
    called: set[Any] = set()
    for number, message in enumerate(messages):
        if message.tool_calls:
            called.update(str(call["id"]) for call in message.tool_calls if call.get("id") is not None)
        if message.role == "tool" and message.tool_call_id not in called:
            raise InvalidParameter(
                f"messages[{number}].tool_call_id: No assistant message before it has a tool call with this id.",
                param=f"messages[{number}].tool_call_id",
            )


def unsupported_field(request: CompletionRequest) -> str | None:
    """Return the first field that asks for an answer in a form that is not supported; None if there is none."""
    if not request.has_options_of_form:
        return None
    asked = {
        "audio": _is_asked(request.audio),
        "modalities": request.modalities not in (None, [], ["text"]),
        "moderation": _is_asked(request.moderation),
        "web_search_options": request.web_search_options is not None,
    }
    return next((name for name, is_asked in asked.items() if is_asked), None)


def tool_field(request: CompletionRequest) -> str | None:
    """Return the first field that asks for tools, or for an answer of another format than text; None without any."""
    has_messages = any(message.is_of_tools for message in request.messages)
    if not (has_messages or request.has_options_of_tools):
        return None
    asked = {
        # Tools that may not be used change nothing, nor does a choice among none.
        "tools": _is_asked(request.tools) and request.tool_choice != "none",
        "tool_choice": _is_asked(request.tool_choice) and request.tool_choice not in ("none", "auto"),
        "functions": _is_asked(request.functions) and request.function_call != "none",
        "function_call": _is_asked(request.function_call) and request.function_call not in ("none", "auto"),
        "response_format": request.response_format is not None and request.response_format.get("type") != "text",
        "messages": has_messages,
    }
    return next((name for name, is_asked in asked.items() if is_asked), None)


def choices_field(request: CompletionRequest) -> str | None:
    """Return the first field that asks for several answers, or for the probabilities of tokens; None without any."""
    if not request.has_options_of_tools:
        return None
    asked = {"n": request.n not in (None, 1), "logprobs": request.logprobs, "top_logprobs": request.top_logprobs}
    return next((name for name, is_asked in asked.items() if is_asked), None)


def _is_asked(value: Any) -> bool:
    return value not in (None, [])


def read_content(value: Any) -> Content:
    """Return a content that was stored."""
    # Nearly all are plain text, which needs no conversion.
    return value if isinstance(value, str) else msgspec.convert(value, Content)


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
        elif isinstance(part, RefusalPart):
            lines.append(part.refusal)
        elif isinstance(part, AudioPart):
            lines.append("[audio]")
        elif isinstance(part, DocumentPart):
            lines.append(f"[{part.file.filename or 'file'}]")
        else:
            lines.append("![image]" if part.data else f"![]({part.image_url.url})")
    return "\n".join(lines)


def _link(part: FilePart) -> str:
    return f"[{part.name or part.url}]({part.url})"
