"""The body of `POST v1/responses`, and the chat completion that it comes to. Pure data."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from apikeys.api.bodies import convert, decode
from apikeys.errors import InvalidParameter
from chat.completions.body_text import check_text
from chat.completions.request import (
    MAX_MESSAGES_BYTES,
    MAX_OBJECT_BYTES,
    ChatMessage,
    CompletionRequest,
    Tokens,
    encoded_size,
    text_size,
    without_nuls,
)
from chat.responses.input_items import Input, Item, ItemReference, MessageItem, complete_item, messages_of

LOGPROBS = "message.output_text.logprobs"


class FunctionTool(Struct, tag="function", frozen=True):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class TextFormat(Struct, frozen=True):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class TextOptions(Struct, frozen=True):
    format: TextFormat | None = None
    verbosity: str | None = None


class ChosenFunction(Struct, tag="function", frozen=True):
    name: str


class AllowedTools(Struct, tag="allowed_tools", frozen=True):
    mode: Literal["auto", "required"]
    tools: list[ChosenFunction]


ToolChoice = Literal["none", "auto", "required"] | ChosenFunction | AllowedTools


class ReasoningOptions(Struct, frozen=True):
    effort: str | None = None


Label = Annotated[str, Meta(max_length=64)]


class ResponseRequest(Struct, frozen=True):
    """null means absent; unknown fields are ignored."""

    input: str | Annotated[list[dict[str, Any]], Meta(min_length=1)]
    previous_response_id: str | None = None
    instructions: str | None = None
    model: str | None = None
    # It is ours: see the same field of completions.
    appId: str | None = None
    variables: dict[str, Any] | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    max_output_tokens: Tokens | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    service_tier: str | None = None
    user: str | None = None
    metadata: Annotated[dict[Label, Annotated[str, Meta(max_length=512)]], Meta(max_length=16)] | None = None
    stream: bool | None = None
    store: bool | None = None
    include: list[str] | None = None
    # These ask for what is not there.
    background: bool | None = None
    conversation: Any = None
    prompt: Any = None
    context_management: Any = None
    moderation: Any = None
    top_logprobs: int | None = None


class TranslatedRequest(CompletionRequest, frozen=True, kw_only=True):
    """The chat completion that a request for a response comes to, and that request."""

    response: ResponseRequest
    items: list[Item]

    @property
    def has_references(self) -> bool:
        return any(isinstance(item, ItemReference) for item in self.items)

    @property
    def said(self) -> list[ChatMessage]:
        """Return the messages of the input."""
        return self.messages if self.response.instructions is None else self.messages[1:]


_decoder = msgspec.json.Decoder(ResponseRequest)


def parse_request(raw: bytes) -> TranslatedRequest:
    """Decode, check and translate a request's body. Raise InvalidParameter or BodyTooLarge."""
    check_text(raw)
    try:
        request = decode(raw, _decoder)
        if b"\\" in raw and b"\\u0000" in raw:
            request = without_nuls(request)
        check_request(request)
        items = input_items(request)
        return translate(request, items)
    except RecursionError:
        raise InvalidParameter("The body's JSON is nested too deeply.") from None
    except InvalidParameter as error:
        if (error.param or "").endswith(".type"):
            raise InvalidParameter(f"{error.message} This type is not supported.", param=error.param) from None
        raise


def check_request(request: ResponseRequest) -> None:
    """Raise InvalidParameter for what is not there or too large, and RecursionError for what is too deep."""
    asked = {
        "background": bool(request.background),
        "conversation": _is_asked(request.conversation),
        "prompt": _is_asked(request.prompt),
        "context_management": _is_asked(request.context_management),
        "moderation": _is_asked(request.moderation),
        "top_logprobs": bool(request.top_logprobs),
        "include": LOGPROBS in (request.include or ()),
    }
    for name, is_asked in asked.items():
        if is_asked:
            raise InvalidParameter(f"{name}: This is not supported.", param=name)
    sizes = {
        "instructions": MAX_MESSAGES_BYTES,
        "tools": MAX_MESSAGES_BYTES,
        "text": MAX_MESSAGES_BYTES,
        "variables": MAX_OBJECT_BYTES,
    }
    for name, limit in sizes.items():
        value = getattr(request, name)
        if value is not None and encoded_size(value) > limit:
            raise InvalidParameter(f"{name}: It holds more than {limit} bytes.", param=name)


def input_items(request: ResponseRequest) -> list[Item]:
    if isinstance(request.input, str):
        return [MessageItem("user", request.input)]
    return convert({"input": [complete_item(item) for item in request.input]}, Input).input


def input_messages(request: ResponseRequest, items: list[Item]) -> list[ChatMessage]:
    """Return the messages of the input, behind the instructions. Raise InvalidParameter where there is no question."""
    follows = request.previous_response_id is not None
    messages = messages_of(items, follows=follows)
    if not any(message.role == "user" for message in messages) and not (
        follows and messages and messages[0].role == "tool"
    ):
        raise InvalidParameter("input: There is no message of the user.", param="input")
    if sum(map(text_size, messages)) > MAX_MESSAGES_BYTES:
        raise InvalidParameter(f"input: It holds more than {MAX_MESSAGES_BYTES} bytes.", param="input")
    return messages if request.instructions is None else [ChatMessage("system", request.instructions), *messages]


def translate(request: ResponseRequest, items: list[Item]) -> TranslatedRequest:
    tools, text = translate_tools(request), request.text
    choice = translate_choice(request)
    return TranslatedRequest(
        response=request,
        items=items,
        messages=input_messages(request, items),
        appId=request.appId,
        model=request.model,
        variables=request.variables,
        metadata=request.metadata,
        stream=request.stream,
        max_completion_tokens=request.max_output_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        service_tier=request.service_tier,
        user=request.user,
        reasoning_effort=request.reasoning.effort if request.reasoning is not None else None,
        tools=tools,
        # Without tools these change nothing, and some providers refuse them.
        tool_choice=choice if tools or choice not in ("none", "auto") else None,
        parallel_tool_calls=request.parallel_tool_calls if tools else None,
        verbosity=text.verbosity if text is not None else None,
        response_format=translate_format(text.format if text is not None else None),
    )


def translate_tools(request: ResponseRequest) -> list[dict[str, Any]] | None:
    """Return the functions that may be called, in the nested form of chat completions; None without any."""
    tools, choice = request.tools or [], request.tool_choice
    if isinstance(choice, AllowedTools):
        allowed = {tool.name for tool in choice.tools}
        missing = allowed - {tool.name for tool in tools}
        if missing:
            raise InvalidParameter("tool_choice.tools: Not all of them are in tools.", param="tool_choice.tools")
        tools = [tool for tool in tools if tool.name in allowed]
    return [{"type": "function", "function": _without_nulls(tool)} for tool in tools] or None


def translate_choice(request: ResponseRequest) -> str | dict[str, Any] | None:
    match request.tool_choice:
        case AllowedTools(mode=mode):
            # The tools are no more than those that are allowed.
            return mode
        case ChosenFunction(name=name):
            return {"type": "function", "function": {"name": name}}
        case choice:
            return choice


def translate_format(asked: TextFormat | None) -> dict[str, Any] | None:
    if asked is None or asked.type == "text":
        return None
    if asked.type == "json_object":
        return {"type": "json_object"}
    for name in ("name", "schema"):
        if getattr(asked, name) is None:
            raise InvalidParameter(f"text.format.{name}: It is missing.", param=f"text.format.{name}")
    return {"type": "json_schema", "json_schema": {**_without_nulls(asked)}}


def _without_nulls(value: Struct) -> dict[str, Any]:
    """Return a struct's fields without its type and those that are null."""
    fields = msgspec.structs.asdict(value)
    return {name: field for name, field in fields.items() if field is not None and name != "type"}


def _is_asked(value: Any) -> bool:
    return value not in (None, [], {})
