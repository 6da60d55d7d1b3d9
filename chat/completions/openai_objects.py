"""Completions and chunks as OpenAI's clients read them. Pure data."""

from typing import Any


def completion(
    *, id: str, created: int, model: str, message: dict[str, Any], finish_reason: str, usage: dict[str, Any]
) -> dict[str, Any]:
    return {
        "id": id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "usage": usage,
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
    }


def chunk(
    *, id: str, created: int, model: str, delta: dict[str, Any], finish_reason: str | None = None, **more: Any
) -> dict[str, Any]:
    """Return a chunk; `more` is more of its choice, such as another `index`."""
    return {
        "id": id,
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason, **more}],
    }


def usage_chunk(*, id: str, created: int, model: str, usage: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": id,
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
        "choices": [],
        "usage": usage,
    }
