"""Ids of responses and of their items, which say where they are stored. Pure data.

`resp_` is followed by the id of the request that began the conversation, and then, if it is another, by that of the
request itself. The conversation's chatId is the id of its first response. Ids of items have the same tail and a number.
"""

import re
from typing import NamedTuple

_TAIL = r"(?P<first>[0-9a-f]{24})(?P<own>(?!(?P=first))[0-9a-f]{24})?"
_RESPONSE = re.compile(f"resp_{_TAIL}")
_ITEM = re.compile(rf"(?P<prefix>msg|fc)_{_TAIL}_(?P<number>\d{{1,4}})")


class Place(NamedTuple):
    """Where an answer is stored in its app."""

    chat_id: str
    data_id: str


class ItemPlace(NamedTuple):
    """Of which answer an item is, its kind, and its number among the answer's items of that kind."""

    place: Place
    prefix: str
    number: int


def response_id(tail: str) -> str:
    return f"resp_{tail}"


def next_tail(previous_id: str | None, request_id: str) -> str:
    """Return the tail of a response's id, if it follows another or if it does not."""
    return request_id if previous_id is None else previous_id.removeprefix("resp_")[: len(request_id)] + request_id


def find_response(text: str) -> Place | None:
    """Return where the response with this id is, if it is an id."""
    found = _RESPONSE.fullmatch(text)
    return None if found is None else _place(found)


def item_id(prefix: str, tail: str, number: int) -> str:
    return f"{prefix}_{tail}_{number}"


def call_id(tail: str, number: int) -> str:
    """Return the id of a call to which the provider gave none."""
    return item_id("call", tail, number)


def find_item(text: str) -> ItemPlace | None:
    found = _ITEM.fullmatch(text)
    return None if found is None else ItemPlace(_place(found), found["prefix"], int(found["number"]))


def _place(found: re.Match[str]) -> Place:
    return Place(response_id(found["first"]), found["own"] or found["first"])
