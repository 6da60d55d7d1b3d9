"""The output of a response as it grows: its items, and the events that say what was added. Pure data.

An item holds one text, or one call of a function. A text ends where another begins; calls stay open until the end,
since the pieces of several may come in any order.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from chat.completions.tool_calls import read_call
from chat.responses import ids

Event = dict[str, Any]


class TextKind(NamedTuple):
    """How one kind of text is spelled, in its item and in its events."""

    prefix: str
    part: str
    text: str
    part_event: str
    text_event: str
    index_name: str


OUTPUT_TEXT = TextKind("msg", "output_text", "text", "response.content_part", "response.output_text", "content_index")
REFUSAL = TextKind("msg", "refusal", "refusal", "response.content_part", "response.refusal", "content_index")
# More clients show a summary of reasoning than the reasoning itself, which OpenAI keeps.
REASONING = TextKind(
    *("rs", "summary_text", "text"),
    *("response.reasoning_summary_part", "response.reasoning_summary_text", "summary_index"),
)


class TextItem:
    """One text of a model: what it says, refuses or thinks."""

    def __init__(self, kind: TextKind, item_id: str, output_index: int) -> None:
        self.kind = kind
        self.id = item_id
        self.output_index = output_index
        self.status = "in_progress"
        self._texts: list[str] = []
        self._delta = self._event(f"{kind.text_event}.delta") | self._logprobs

    @property
    def text(self) -> str:
        return "".join(self._texts)

    def json(self) -> dict[str, Any]:
        parts = [] if self.status == "in_progress" else [self._part(self.text)]
        if self.kind is REASONING:
            return {"type": "reasoning", "id": self.id, "summary": parts}
        return {"type": "message", "id": self.id, "status": self.status, "role": "assistant", "content": parts}

    def begin(self) -> Iterator[Event]:
        yield _added(self)
        yield self._event(f"{self.kind.part_event}.added") | {"part": self._part("")}

    def add(self, text: str) -> Event:
        self._texts.append(text)
        return {**self._delta, "delta": text}

    def end(self, status: str) -> Iterator[Event]:
        self.status, text = status, self.text
        yield self._event(f"{self.kind.text_event}.done") | {self.kind.text: text} | self._logprobs
        yield self._event(f"{self.kind.part_event}.done") | {"part": self._part(text)}
        yield _done(self)

    @property
    def _logprobs(self) -> dict[str, Any]:
        return {"logprobs": []} if self.kind is OUTPUT_TEXT else {}

    def _part(self, text: str) -> dict[str, Any]:
        annotations: dict[str, Any] = {"annotations": []} if self.kind is OUTPUT_TEXT else {}
        return {"type": self.kind.part, self.kind.text: text} | annotations | self._logprobs

    def _event(self, name: str) -> Event:
        return {"type": name, "item_id": self.id, "output_index": self.output_index, self.kind.index_name: 0}


class CallItem:
    """One call of a function. It begins when the function's name is known."""

    def __init__(self, item_id: str, output_index: int, spare_call_id: str) -> None:
        self.id = item_id
        self.output_index = output_index
        self.call_id = ""
        self._spare_call_id = spare_call_id
        self.name = ""
        self.status = "in_progress"
        self._has_begun = False
        self._arguments: list[str] = []

    def json(self) -> dict[str, Any]:
        return {
            "type": "function_call",
            "id": self.id,
            "status": self.status,
            "call_id": self.call_id,
            "name": self.name,
            "arguments": "" if self.status == "in_progress" else "".join(self._arguments),
        }

    def add(self, call: dict[str, Any]) -> Iterator[Event]:
        """Take a provider's call, or a piece of one."""
        more = read_call(call)
        self.call_id = self.call_id or more.id
        self.name = self.name or more.name
        if more.arguments:
            self._arguments.append(more.arguments)
        if self._has_begun:
            yield from self._delta(more.arguments)
        elif self.name:
            yield from self._begin()

    def end(self, status: str) -> Iterator[Event]:
        if not self._has_begun:
            yield from self._begin()
        self.status = status
        yield self._event("done") | {"arguments": "".join(self._arguments)}
        yield _done(self)

    def _begin(self) -> Iterator[Event]:
        self._has_begun = True
        self.call_id = self.call_id or self._spare_call_id
        yield _added(self)
        yield from self._delta("".join(self._arguments))

    def _delta(self, arguments: str) -> Iterator[Event]:
        if arguments:
            yield self._event("delta") | {"delta": arguments}

    def _event(self, name: str) -> Event:
        return {
            "type": f"response.function_call_arguments.{name}",
            "item_id": self.id,
            "output_index": self.output_index,
        }


class Output:
    """All items of one response. Events are made only as they are asked for, and with them the items."""

    def __init__(self, tail: str) -> None:
        self.items: list[TextItem | CallItem] = []
        # Ids of items end in the response's own and their number among those of their kind.
        self._tail = tail
        self._counts: Counter[str] = Counter()
        self._text: TextItem | None = None
        self._calls: dict[Any, CallItem] = {}

    def json(self) -> list[dict[str, Any]]:
        return [item.json() for item in self.items]

    def add(self, piece: str | dict[str, Any]) -> Iterator[Event]:
        """Take a piece of a completion: text, or a delta of OpenAI's."""
        if isinstance(piece, str):
            if piece:
                yield from self._add_text(OUTPUT_TEXT, piece)
            return
        if thoughts := piece.get("reasoning_content"):
            yield from self._add_text(REASONING, thoughts)
        if refusal := piece.get("refusal"):
            yield from self._add_text(REFUSAL, refusal)
        for call in piece.get("tool_calls", ()):
            index = call.get("index")
            # One without an index is whole, and one of its own.
            yield from self._add_call(index if isinstance(index, int) else f"whole {len(self._calls)}", call)
        if function := piece.get("function_call"):
            yield from self._add_call("function_call", {"function": function})

    def end(self, status: str = "completed") -> Iterator[Event]:
        """End what is open with this status. An answer without anything is an empty text."""
        if not self.items:
            yield from self._begin_text(OUTPUT_TEXT)
        for item in self.items:
            if item.status == "in_progress":
                yield from item.end(status)

    def _add_text(self, kind: TextKind, text: str) -> Iterator[Event]:
        item = self._text
        if item is None or item.kind is not kind:
            yield from self._end_text()
            yield from self._begin_text(kind)
            item = self._text
        assert item is not None  # noqa: S101 - it was begun just now
        yield item.add(text)

    def _begin_text(self, kind: TextKind) -> Iterator[Event]:
        self._text = item = TextItem(kind, self._new_id(kind.prefix), len(self.items))
        self.items.append(item)
        yield from item.begin()

    def _end_text(self) -> Iterator[Event]:
        item, self._text = self._text, None
        if item is not None:
            yield from item.end("completed")

    def _add_call(self, place: Any, piece: dict[str, Any]) -> Iterator[Event]:
        yield from self._end_text()
        call = self._calls.get(place)
        if call is None:
            spare = ids.call_id(self._tail, len(self._calls))
            call = self._calls[place] = CallItem(self._new_id("fc"), len(self.items), spare)
            self.items.append(call)
        yield from call.add(piece)

    def _new_id(self, prefix: str) -> str:
        number = self._counts[prefix]
        self._counts[prefix] += 1
        return ids.item_id(prefix, self._tail, number)


def _added(item: TextItem | CallItem) -> Event:
    return {"type": "response.output_item.added", "output_index": item.output_index, "item": item.json()}


def _done(item: TextItem | CallItem) -> Event:
    return {"type": "response.output_item.done", "output_index": item.output_index, "item": item.json()}
