"""Responses as OpenAI's clients read them. Pure data."""

import time
from typing import Any

import msgspec

from apikeys.errors import ApiError, InsufficientQuota, InvalidParameter, RateLimited
from chat.completions.choices import Piece
from chat.responses.completion import ResponseCompletion
from chat.responses.output_items import Output
from chat.responses.request import ResponseRequest, TextOptions

# Why an answer is not whole, by its finish_reason.
INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def build_body(completion: ResponseCompletion) -> dict[str, Any]:
    """Return the whole response, once the completion was answered."""
    output = Output(completion.tail)
    pieces: list[Piece] = [{"reasoning_content": "".join(completion.thoughts)}, completion.content, *completion.extras]
    for piece in pieces:
        for _ in output.add(piece):
            pass
    for _ in output.end(status_of(completion)):
        pass
    return ended(completion, output)


def status_of(completion: ResponseCompletion) -> str:
    return "incomplete" if completion.finish_reason in INCOMPLETE else "completed"


def ended(completion: ResponseCompletion, output: Output) -> dict[str, Any]:
    reason = INCOMPLETE.get(completion.finish_reason)
    return begun(completion, status_of(completion)) | {
        "completed_at": int(time.time()) if reason is None else None,
        "incomplete_details": None if reason is None else {"reason": reason},
        "output": output.json(),
        "usage": _usage(completion),
    }


def failed(completion: ResponseCompletion, output: Output, error: ApiError) -> dict[str, Any]:
    return begun(completion, "failed") | {
        "error": {"code": _error_code(error), "message": error.message},
        "output": output.json(),
    }


def begun(completion: ResponseCompletion, status: str = "in_progress") -> dict[str, Any]:
    """Return a response without output, and with what was asked for as it holds."""
    request = completion.request.response
    reasoning = request.reasoning
    return {
        "id": completion.id,
        "object": "response",
        "created_at": completion.created,
        "completed_at": None,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": completion.max_tokens,
        "max_tool_calls": None,
        "metadata": request.metadata or {},
        "model": completion.app.model,
        "output": [],
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": request.previous_response_id,
        "reasoning": {"effort": reasoning.effort if reasoning is not None else None, "summary": None},
        "service_tier": None,
        "store": request.store is not False,
        "temperature": _setting(completion, "temperature", completion.app.temperature),
        "text": _text(request),
        "tool_choice": request.tool_choice or "auto",
        "tools": request.tools or [],
        "top_logprobs": 0,
        "top_p": _setting(completion, "top_p", None),
        "truncation": "disabled",
        "usage": None,
        "user": request.user,
    }


def _setting(completion: ResponseCompletion, name: str, otherwise: float | None) -> float | None:
    asked: float | None = getattr(completion.request, name) if completion.app.can_override else None
    return otherwise if asked is None else asked


def _text(request: ResponseRequest) -> dict[str, Any]:
    asked = request.text or TextOptions()
    if asked.format is not None and asked.format.type == "json_schema":
        form = msgspec.structs.asdict(asked.format)
    else:
        form = {"type": asked.format.type if asked.format is not None else "text"}
    return {"format": form} | ({} if asked.verbosity is None else {"verbosity": asked.verbosity})


def _usage(completion: ResponseCompletion) -> dict[str, Any]:
    usage, reported = completion.usage, completion.reported
    prompt, produced = usage["prompt_tokens"], usage["completion_tokens"]
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": min(reported.cached_tokens or 0, prompt), "cache_write_tokens": 0},
        "output_tokens": produced,
        "output_tokens_details": {"reasoning_tokens": min(reported.reasoning_tokens or 0, produced)},
        "total_tokens": usage["total_tokens"],
    }


def _error_code(error: ApiError) -> str:
    # OpenAI's own codes are few, and its clients know no others.
    if isinstance(error, RateLimited | InsufficientQuota):
        return "rate_limit_exceeded"
    return "invalid_prompt" if isinstance(error, InvalidParameter) else "server_error"
