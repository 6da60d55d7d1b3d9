"""References to items of earlier responses, and the items that they stand for. Pure data."""

from collections.abc import Iterable, Mapping, Sequence

from apikeys.errors import InvalidParameter
from chat.completions.request import MAX_MESSAGES_BYTES
from chat.completions.tool_calls import calls_in
from chat.completions.turns import StoredMessage
from chat.responses import ids
from chat.responses.input_items import IGNORED, FunctionCall, Item, ItemReference, MessageItem

# More answers are not looked up for one request.
MAX_ANSWERS = 500
# Reasoning is left out, however it comes.
REASONING_PREFIX = "rs_"


def places_in(items: Sequence[Item]) -> list[ids.Place]:
    """Return where the answers are stored that are referred to. Raise InvalidParameter for what is no id of an item."""
    places: dict[ids.Place, None] = {}
    for number, item in enumerate(items):
        if isinstance(item, ItemReference) and not item.id.startswith(REASONING_PREFIX):
            found = ids.find_item(item.id)
            if found is None:
                raise _not_found(number)
            places[found.place] = None
    if len(places) > MAX_ANSWERS:
        raise InvalidParameter(f"input: It refers to more than {MAX_ANSWERS} responses.", param="input")
    return list(places)


def check_size(lengths: Iterable[int]) -> None:
    """Raise InvalidParameter where texts of such lengths are more than a request may hold."""
    if sum(lengths) > MAX_MESSAGES_BYTES:
        raise InvalidParameter(f"input: What it refers to holds more than {MAX_MESSAGES_BYTES} bytes.", param="input")


def resolve(items: Sequence[Item], answers: Mapping[ids.Place, StoredMessage | None]) -> list[Item]:
    """Return as many items, with those that are referred to in their place. Raise InvalidParameter if one is absent."""
    found = {
        number: _resolve(item, number, answers) for number, item in enumerate(items) if isinstance(item, ItemReference)
    }
    # One answer may be referred to thousands of times.
    check_size(map(_length, found.values()))
    return [found.get(number, item) for number, item in enumerate(items)]


def _resolve(reference: ItemReference, number: int, answers: Mapping[ids.Place, StoredMessage | None]) -> Item:
    found = ids.find_item(reference.id)
    if found is None:
        return IGNORED
    answer = answers.get(found.place)
    if answer is None:
        raise _not_found(number)
    extras = answer.extras or {}
    if found.prefix == "msg":
        # An answer is stored as one text, which stands where its first message is.
        return IGNORED if found.number else MessageItem("assistant", answer.content or extras.get("refusal") or "")
    calls = calls_in(extras)
    if found.number >= len(calls):
        raise _not_found(number)
    call = calls[found.number]
    return FunctionCall(call.id, call.name, call.arguments)


def _length(item: Item) -> int:
    if isinstance(item, MessageItem):
        return len(item.content)
    return len(item.arguments) if isinstance(item, FunctionCall) else 0


def _not_found(number: int) -> InvalidParameter:
    place = f"input[{number}].id"
    return InvalidParameter(f"{place}: There is no such item, or it was not stored.", param=place)
