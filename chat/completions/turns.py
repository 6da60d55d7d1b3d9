"""Turns of a conversation: a question, and all that follows until the next one. Pure data.

With tools, a turn takes several requests: an answer asks for calls, the next request brings their results, and so on.
Providers refuse a history in which a call has no result, or a result has no call before it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import Struct

from apikeys.errors import InvalidParameter
from chat.completions.request import RESULT_ROLES, ChatMessage
from chat.completions.tool_calls import calls_in

UNASKED = "The chat's latest answer waits for no result of such a call."
NOT_THERE = "The chat has no answer yet, or its latest one is too long to go on with."
# An error names so much of what is missing.
NAMED_CHARACTERS = 200

# The role of a call's result, and the id of the call or the name of the function.
Reference = tuple[str, str]


class StoredMessage(Struct, frozen=True):
    """A message as a conversation keeps it. `extras` are its tool calls, its refusal, or which call it answers."""

    role: str
    content: Any
    extras: dict[str, Any] | None = None


def whole_turns(messages: list[StoredMessage]) -> list[StoredMessage]:
    """Return the turns whose question is there and whose calls all have their results."""
    if messages[0].role == "user" and not any(message.extras for message in messages):
        return messages
    return [message for turn in _split(messages) if _is_answered(turn) for message in turn]


def store_result(message: ChatMessage) -> StoredMessage:
    extras = {name: value for name in ("tool_call_id", "name") if (value := getattr(message, name)) is not None}
    return StoredMessage(message.role, message.content or "", extras)


def waits_for(messages: Sequence[StoredMessage], result: StoredMessage) -> bool:
    """Return whether the latest of a chat's messages asks for the call of this result."""
    return bool(messages) and call_of(result) in _references(messages[-1])


def check_results(messages: Sequence[StoredMessage], results: Sequence[StoredMessage], start: int) -> None:
    """Raise InvalidParameter unless they are the results of all calls that the latest of a chat's messages asks for.

    The first of them is `messages[start]` of the request.
    """
    open_calls = _references(messages[-1]) if messages else Counter()
    for number, result in enumerate(results, start):
        reference = call_of(result)
        if not open_calls[reference]:
            param = f"messages[{number}].{'tool_call_id' if result.role == 'tool' else 'name'}"
            raise InvalidParameter(f"{param}: {UNASKED if messages else NOT_THERE}", param=param)
        open_calls[reference] -= 1
    if open_calls.total():
        missing = ", ".join(name for _, name in open_calls.elements())[:NAMED_CHARACTERS]
        raise InvalidParameter(
            f"messages: Results are missing, of the calls {missing}. Send the results of all calls at once.",
            param="messages",
        )


def _split(messages: Sequence[StoredMessage]) -> Iterator[list[StoredMessage]]:
    turn: list[StoredMessage] = []
    for message in messages:
        if message.role == "user":
            if turn:
                yield turn
            turn = [message]
        elif turn:
            turn.append(message)
    if turn:
        yield turn


def _is_answered(turn: Sequence[StoredMessage]) -> bool:
    open_calls: Counter[Reference] = Counter()
    for message in turn:
        if message.role in RESULT_ROLES:
            reference = call_of(message)
            if not open_calls[reference]:
                return False
            open_calls[reference] -= 1
        elif open_calls.total():
            return False
        else:
            open_calls = _references(message)
    return not open_calls.total()


def _references(message: StoredMessage) -> Counter[Reference]:
    """Return how the results will name the calls that a message asks for."""
    calls = calls_in(message.extras)
    return Counter(("function", call.name) if call.is_function else ("tool", call.id) for call in calls)


def call_of(result: StoredMessage) -> Reference:
    """Return how a result names its call."""
    name = "tool_call_id" if result.role == "tool" else "name"
    return result.role, (result.extras or {}).get(name) or ""
