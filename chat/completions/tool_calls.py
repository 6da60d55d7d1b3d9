"""Calls of tools that an answer asks for, whichever way its provider spells them. Pure data."""

from typing import Any, NamedTuple

import msgspec


class ToolCall(NamedTuple):
    """`arguments` are JSON, if the model got it right. Calls of OpenAI's older functions have no id."""

    id: str
    name: str
    arguments: str
    is_function: bool = False

    @property
    def text(self) -> str:
        """Return it as a person reads it."""
        return f"{self.name}({self.arguments})"


def calls_in(extras: dict[str, Any] | None) -> list[ToolCall]:
    """Return the calls in what a message has besides its role and content."""
    if not extras:
        return []
    calls = [read_call(call) for call in extras.get("tool_calls") or ()]
    if extras.get("function_call"):
        calls.append(read_call({"function": extras["function_call"]})._replace(is_function=True))
    return calls


def read_call(call: dict[str, Any]) -> ToolCall:
    """Read a call, or what a chunk adds to one; what is left out or of another type is empty."""
    function = call.get("function")
    if not isinstance(function, dict):
        function = {}
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        arguments = msgspec.json.encode(arguments).decode() if arguments else ""
    return ToolCall(_text(call.get("id")), _text(function.get("name")), arguments)


def place_of(call: dict[str, Any], count: int) -> Any:
    """Return where a call, or a chunk of one, belongs among the `count` calls of its answer that have begun."""
    index = call.get("index")
    # One without an index is whole, and one of its own.
    return index if isinstance(index, int) else f"whole {count}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
