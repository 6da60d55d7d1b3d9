"""The steps of a completion as FastGPT shows them: their names while it runs, and what each did once it has ended."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from apikeys.accounting.ledger import Outcome
from apikeys.accounting.units import MICROPOINTS
from chat.completions.request import text_of
from chat.completions.tool_calls import calls_in

if TYPE_CHECKING:
    from chat.completions.completion import Completion
    from chat.completions.knowledge import Search

PREVIEW_LENGTH = 100
OBJECTS = {"system": "System", "user": "Human", "assistant": "AI", "tool": "Tool", "function": "Tool"}


class Step(StrEnum):
    """Values are the `moduleName` of each."""

    SEARCH = "Dataset Search"
    CHAT = "AI Chat"


def response_data(completion: Completion) -> list[dict[str, Any]]:
    """Return what each step did, as `detail` shows it and as it is stored with the answer."""
    steps = []
    if completion.search is not None:
        steps.append(_search_step(completion.search))
    if completion.is_asked:
        steps.append(_chat_step(completion))
    return steps


def _search_step(search: Search) -> dict[str, Any]:
    return {
        "moduleName": Step.SEARCH,
        "moduleType": "datasetSearchNode",
        "runningTime": round(search.seconds, 2),
        "totalPoints": 0,
        "query": search.query.text,
        "inputTokens": search.embedding_tokens,
        "quoteList": [quote.json() for quote in search.quotes],
        "similarity": search.query.similarity,
        "limit": search.query.limit,
        "searchMode": search.query.mode.value,
        "searchUsingReRank": search.has_reranked,
    }


def _chat_step(completion: Completion) -> dict[str, Any]:
    app, usage = completion.app, completion.usage
    prompt_tokens, completion_tokens = usage["prompt_tokens"], usage["completion_tokens"]
    cost = completion.compute_charge(Outcome.COMPLETE).micropoints
    seconds = time.monotonic() - completion.started - (completion.search.seconds if completion.search else 0)
    answer = {"role": "assistant", "content": completion.content, **completion.answer_extras}
    step: dict[str, Any] = {
        "moduleName": Step.CHAT,
        "moduleType": "chatNode",
        "runningTime": round(seconds, 2),
        "totalPoints": cost / MICROPOINTS,
        "model": app.model,
        "inputTokens": prompt_tokens,
        "outputTokens": completion_tokens,
        "query": text_of(completion.question),
        "historyPreview": [
            {"obj": OBJECTS[message["role"]], "value": _preview(message)} for message in (*completion.messages, answer)
        ],
    }
    calls = calls_in(answer)
    if calls:
        step["toolCalls"] = [
            {"id": call.id, "functionName": call.name, "params": _cut(call.arguments)} for call in calls
        ]
    return step


def _preview(message: dict[str, Any]) -> str:
    # This is enough to recognize a message by: whole ones are in the conversation.
    content = message["content"]
    text = content if isinstance(content, str) else text_of(content or [])
    if len(message) > len(("role", "content")):
        calls = [call.text for call in calls_in(message)]
        text = "\n".join([text, *calls] if text else calls)
    return _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= PREVIEW_LENGTH else text[: PREVIEW_LENGTH - 1] + "\u2026"
