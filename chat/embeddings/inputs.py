"""What a caller wants vectors of: texts, or lists of token ids. Pure data.

A request may have megabytes of token ids. As numbers of Python they would take ten times as much, and all at once they
would hold up the event loop: they are checked list by list, and kept and passed on as the JSON they came in.
"""

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from apikeys.errors import InvalidParameter
from apikeys.storable_text import storable

MAX_INPUTS = 2_048
# Each has at most so many bytes of JSON. No model takes as much.
MAX_INPUT_BYTES = 1024 * 1024
# After so many bytes others have their turn.
TURN_BYTES = 1024 * 1024
IDS_ALONE = re.compile(rb"\[\s*+-?\d")
EMPTY = re.compile(rb"\[\s*+\]")
# An item of a list and what ends it: a string, a list that holds no others, or anything else.
ITEM = re.compile(rb'\s*+("[^"\\]*+(?:\\.[^"\\]*+)*+"|\[[^\[\]"]*+\]|[^,\]]*+)\s*+([,\]])', re.DOTALL)


@dataclass(frozen=True, slots=True)
class TokenIds:
    """A text as the ids of a model's own tokens: so many of them, as JSON."""

    json: msgspec.Raw
    count: int


Input = str | TokenIds


@dataclass(frozen=True, slots=True)
class Inputs:
    """The inputs of one request, and whether they came in a list."""

    items: list[Input]
    is_list: bool

    def param(self, number: int) -> str:
        return f"input[{number}]" if self.is_list else "input"


_text_decoder = msgspec.json.Decoder(str)
_ids_decoder = msgspec.json.Decoder(list[Annotated[int, Meta(ge=0, lt=2**31)]])


async def read_inputs(json: msgspec.Raw) -> Inputs:
    """Check what a body has as `input`. Raise InvalidParameter."""
    raw = bytes(json).strip()
    is_list = raw.startswith(b"[") and not IDS_ALONE.match(raw)
    inputs, read = Inputs([], is_list), 0
    for item in _items(raw) if is_list else [raw]:
        number = len(inputs.items)
        if number == MAX_INPUTS:
            raise InvalidParameter(f"input: It has more than {MAX_INPUTS:,} texts.", param="input")
        inputs.items.append(_input_of(item, inputs.param(number)))
        read += len(item)
        if read > TURN_BYTES:
            read = 0
            await asyncio.sleep(0)
    if not inputs.items:
        raise InvalidParameter("input: It is empty.", param="input")
    return inputs


def _items(raw: bytes) -> Iterator[bytes]:
    """Yield the JSON of each item of a list, one by one: there may be millions. What fits in nowhere comes as it is."""
    item = None if EMPTY.match(raw) else ITEM.match(raw, 1)
    while item is not None:
        yield item[1]
        item = None if item[2] == b"]" else ITEM.match(raw, item.end())


def _input_of(raw: bytes, param: str) -> Input:
    if len(raw) > MAX_INPUT_BYTES:
        raise InvalidParameter(f"{param}: It holds more than {MAX_INPUT_BYTES:,} bytes.", param=param)
    try:
        text = storable(_text_decoder.decode(raw)) if raw.startswith(b'"') else None
        count = len(_ids_decoder.decode(raw)) if text is None else len(text)
    except msgspec.DecodeError:
        raise InvalidParameter(f"{param}: It is neither a text nor a list of token ids.", param=param) from None
    if not count:
        raise InvalidParameter(f"{param}: It is empty.", param=param)
    return TokenIds(msgspec.Raw(raw), count) if text is None else text
