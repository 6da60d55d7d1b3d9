"""The bodies of OpenAI's older text completions: each stands for a chat completion with one message. Pure data."""

from typing import Any

import msgspec
from msgspec import Struct

from apikeys.api.bodies import decode
from apikeys.errors import InvalidParameter
from chat.completions.request import MAX_MESSAGES_BYTES, CompletionRequest, parse_request

# They mean the same as in a chat completion, whose parser checks them.
SHARED = (
    *("appId", "model", "max_tokens", "temperature", "top_p", "stop", "seed", "presence_penalty", "frequency_penalty"),
    *("user", "logit_bias", "stream", "stream_options"),
)


class TextCompletionRequest(Struct, frozen=True):
    """`POST v1/completions`. null means absent; unknown fields are ignored."""

    prompt: str | list[Any]
    suffix: str | None = None
    echo: bool | None = None
    n: int | None = None
    best_of: int | None = None
    logprobs: int | bool | None = None
    appId: Any = None
    model: Any = None
    max_tokens: Any = None
    temperature: Any = None
    top_p: Any = None
    stop: Any = None
    seed: Any = None
    presence_penalty: Any = None
    frequency_penalty: Any = None
    user: Any = None
    logit_bias: Any = None
    stream: Any = None
    stream_options: Any = None


_decoder = msgspec.json.Decoder(TextCompletionRequest)


def parse_text_request(raw: bytes) -> CompletionRequest:
    """Decode and check a request's body. Raise InvalidParameter."""
    body = decode(raw, _decoder)
    for name, is_asked in _unsupported(body).items():
        if is_asked:
            raise InvalidParameter(f"{name}: This is not supported.", param=name)
    prompt = _text_of(body.prompt)
    if len(prompt.encode()) > MAX_MESSAGES_BYTES:
        raise InvalidParameter(f"prompt: It holds more than {MAX_MESSAGES_BYTES} bytes.", param="prompt")
    chat = {name: getattr(body, name) for name in SHARED}
    chat["messages"] = [{"role": "user", "content": prompt}]
    return parse_request(msgspec.json.encode(chat))


def _unsupported(body: TextCompletionRequest) -> dict[str, bool]:
    """Return whether the body asks for these: other text than the answer to its prompt, or more than one."""
    return {
        "suffix": bool(body.suffix),
        "echo": bool(body.echo),
        "n": body.n not in (None, 1),
        "best_of": body.best_of not in (None, 1),
        # 0 asks for those of the text itself.
        "logprobs": body.logprobs is not None and body.logprobs is not False,
    }


def _text_of(prompt: str | list[Any]) -> str:
    if isinstance(prompt, str):
        return prompt
    if any(not isinstance(part, str) for part in prompt):
        raise InvalidParameter("prompt: Token ids are not supported. Send text.", param="prompt")
    if len(prompt) != 1:
        raise InvalidParameter("prompt: Send one prompt in each request.", param="prompt")
    text: str = prompt[0]
    return text
