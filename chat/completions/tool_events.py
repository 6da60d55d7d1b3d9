"""FastGPT's events about tools, in a detailed stream: calls as they come, and the results that a request brings."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from chat.completions import sse
from chat.completions.request import text_of
from chat.completions.tool_calls import ToolCall, place_of, read_call
from chat.completions.turns import StoredMessage, call_of

# The caller has the whole of a result, so its event shows as much as FastGPT's does.
RESPONSE_CHARACTERS = 10_000


class ToolEvents:
    """The events of one streamed answer."""

    def __init__(self) -> None:
        # By its place in the answer, the id of each call that has begun.
        self._ids: dict[Any, str] = {}

    def calls(self, delta: dict[str, Any]) -> bytes:
        """Return the events of the calls that a delta begins or goes on with."""
        events: list[bytes] = []
        for call in delta.get("tool_calls", ()):
            events += self._events(place_of(call, len(self._ids)), read_call(call))
        if "function_call" in delta:
            events += self._events("function", read_call({"function": delta["function_call"]}))
        return b"".join(events)

    def _events(self, place: Any, call: ToolCall) -> Iterator[bytes]:
        if place not in self._ids:
            self._ids[place] = call.id or call.name
            yield _event("toolCall", self._ids[place], toolName=call.name, functionName=call.name)
        if call.arguments:
            yield _event("toolParams", self._ids[place], params=call.arguments)


def result_events(results: Sequence[StoredMessage]) -> bytes:
    return b"".join(
        _event("toolResponse", call_of(result)[1], response=text_of(result.content)[:RESPONSE_CHARACTERS])
        for result in results
    )


def _event(name: str, id: str, **fields: str) -> bytes:
    tool = {"id": id, "toolName": "", "toolAvatar": "", "params": "", "response": "", **fields}
    return sse.encode(msgspec.json.encode({"tool": tool}), name)
