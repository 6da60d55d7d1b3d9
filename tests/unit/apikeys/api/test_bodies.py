"""What a body or a query that is wrong is told: a plain sentence, and the field in `param`."""

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest
from msgspec import Meta, Struct

from apikeys.api.bodies import decode, decode_query
from apikeys.api.validation_errors import explain
from apikeys.errors import InvalidParameter


class Circle(Struct, tag_field="type", tag="circle"):
    radius: int


class Square(Struct, tag_field="type", tag="square"):
    side: int


class Strict(Struct, forbid_unknown_fields=True):
    a: int = 0


class Form(Struct):
    """One field of each kind."""

    id: int
    count: Annotated[int, Meta(ge=1, lt=2**31)] | None = None
    even: Annotated[int, Meta(multiple_of=2)] | None = None
    heat: Annotated[float, Meta(ge=-2, le=2)] | None = None
    share: Annotated[float, Meta(gt=0, lt=1)] | None = None
    name: Annotated[str, Meta(min_length=2, max_length=5)] | None = None
    letter: Annotated[str, Meta(min_length=1, max_length=1)] | None = None
    word: Annotated[str, Meta(pattern="^a+$")] | None = None
    items: Annotated[list[int], Meta(min_length=1, max_length=2)] | None = None
    pair: tuple[int, int] | None = None
    fields: Annotated[dict[str, int], Meta(min_length=1, max_length=2)] | None = None
    by_number: dict[int, int] | None = None
    by_color: dict[Literal["red"], int] | None = None
    flag: bool | None = None
    stop: str | list[str] | None = None
    color: Literal["red", "green"] | None = None
    size: Literal[1, 2] | None = None
    shapes: list[Circle | Square] | None = None
    strict: Strict | None = None
    raw: bytes | None = None
    moment: datetime | None = None
    zoned: Annotated[datetime, Meta(tz=True)] | None = None
    local: Annotated[datetime, Meta(tz=False)] | None = None
    day: date | None = None
    hour: time | None = None
    span: timedelta | None = None
    uuid: UUID | None = None
    price: Decimal | None = None


DECODER = msgspec.json.Decoder(Form)
COMPLAINTS: list[tuple[dict[str, Any], str]] = [
    ({"id": None}, "id: It must be an integer."),
    ({"id": "1"}, "id: It must be an integer."),
    ({"count": 1.5}, "count: It must be an integer."),
    ({"count": 0}, "count: It must be at least 1."),
    ({"count": 2**31}, "count: It must be at most 2147483647."),
    ({"count": 10**30}, "count: It must be at most 2147483647."),
    ({"even": 3}, "even: It must be a multiple of 2."),
    ({"heat": "hot"}, "heat: It must be a number."),
    ({"heat": 3}, "heat: It must be at most 2."),
    ({"heat": -2.5}, "heat: It must be at least -2."),
    ({"share": 0}, "share: It must be more than 0."),
    ({"share": 1}, "share: It must be less than 1."),
    ({"name": 7}, "name: It must be a string."),
    ({"name": "a"}, "name: It must have at least 2 characters."),
    ({"name": "abcdef"}, "name: It must have at most 5 characters."),
    ({"letter": ""}, "letter: It must not be empty."),
    ({"letter": "ab"}, "letter: It must have at most 1 character."),
    ({"word": "b"}, "word: It does not have the required form."),
    ({"items": {}}, "items: It must be a list."),
    ({"items": []}, "items: It must not be empty."),
    ({"items": [1, 2, 3]}, "items: It must have at most 2 items."),
    ({"items": [1, "2"]}, "items[1]: It must be an integer."),
    ({"pair": [1]}, "pair: It must have 2 items."),
    ({"fields": []}, "fields: It must be an object."),
    ({"fields": {}}, "fields: It must not be empty."),
    ({"fields": {"a": 1, "b": 2, "c": 3}}, "fields: It must have at most 2 fields."),
    ({"fields": {"a": "x"}}, "fields[...]: It must be an integer."),
    ({"by_number": {"a": 1}}, "by_number: A key of it must be an integer."),
    ({"by_color": {"blue": 1}}, 'by_color: A key of it cannot be "blue".'),
    ({"flag": "yes"}, "flag: It must be true or false."),
    ({"stop": 7}, "stop: It must be a string or a list."),
    ({"stop": [7]}, "stop[0]: It must be a string."),
    ({"color": "blue"}, 'color: It cannot be "blue".'),
    ({"color": 7}, "color: It must be a string."),
    ({"color": "a'b - at `$.id`"}, 'color: It cannot be "a\'b - at `$.id`".'),
    ({"color": "x" * 1000}, f'color: It cannot be "{"x" * 64}\u2026".'),
    ({"size": 3}, 'size: It cannot be "3".'),
    ({"shapes": [7]}, "shapes[0]: It must be an object."),
    ({"shapes": [{}]}, "shapes[0].type: It is missing."),
    ({"shapes": [{"type": 7}]}, "shapes[0].type: It must be a string."),
    ({"shapes": [{"type": "line"}]}, 'shapes[0].type: It cannot be "line".'),
    ({"shapes": [{"type": "circle"}]}, "shapes[0].radius: It is missing."),
    ({"strict": {"b": 1}}, "strict.b: It is not a known field."),
    ({"raw": "*"}, "raw: It must be a string of base64."),
    ({"moment": "noon"}, "moment: It must be a date and time, such as 2026-01-31T12:00:00Z."),
    ({"moment": []}, "moment: It must be a date and time."),
    ({"zoned": "2026-01-31T12:00:00"}, "zoned: It must name its time zone."),
    ({"local": "2026-01-31T12:00:00Z"}, "local: It must not name a time zone."),
    ({"day": "noon"}, "day: It must be a date, such as 2026-01-31."),
    ({"hour": "noon"}, "hour: It must be a time, such as 12:00:00."),
    ({"span": "noon"}, "span: It must be a duration, such as PT5M."),
    ({"uuid": "x"}, "uuid: It must be a UUID."),
    ({"price": "x"}, "price: It must be a decimal number."),
]
MALFORMED: list[tuple[bytes, str]] = [
    (b"", "The body is not valid JSON: it ends too early, or has half of a surrogate pair in it."),
    (b'{"id": ', "The body is not valid JSON: it ends too early, or has half of a surrogate pair in it."),
    (b'{"id" 1}', "The body is not valid JSON: expected ':' at byte 6."),
    (b'{"id": 1}}', "The body is not valid JSON: trailing characters at byte 10."),
    (b"a=1", "The body is not valid JSON: invalid character at byte 0."),
    (b'{"id": "\xff"}', "The body is not valid UTF-8."),
    (b"[" * 10_000, "The body must be an object."),
    (b'{"id": 1, "x": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "The body's JSON is nested too deeply."),
    (b"[]", "The body must be an object."),
    (b'"id"', "The body must be an object."),
    (b"{}", "id: It is missing."),
    (b'{"id": 1, "heat": 1e999}', "heat: It is out of range."),
]


def test_it_works() -> None:
    assert decode(b'{"id": 7, "unknown": 1, "name": null}', DECODER) == Form(7)
    assert decode_query({"id": "7", "count": ""}, Form) == Form(7)


@pytest.mark.parametrize(("fields", "message"), COMPLAINTS, ids=[str(fields)[:40] for fields, _ in COMPLAINTS])
def test_wrong_field(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        decode(msgspec.json.encode({"id": 1, **fields}), DECODER)
    assert (caught.value.message, caught.value.param) == (message, message.partition(":")[0])


@pytest.mark.parametrize(("raw", "message"), MALFORMED, ids=[str(raw)[:40] for raw, _ in MALFORMED])
def test_wrong_body(raw: bytes, message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        decode(raw, DECODER)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "id: It is missing."),
        ({"id": "x"}, "id: It must be an integer."),
        ({"id": "1", "count": "0"}, "count: It must be at least 1."),
        ({"id": "1", "color": "blue"}, 'color: It cannot be "blue".'),
        ({"id": "1", "flag": "maybe"}, "flag: It must be true or false."),
    ],
)
def test_wrong_query(fields: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        decode_query(fields, Form)
    assert (caught.value.message, caught.value.param) == (message, message.partition(":")[0])


def test_what_is_not_foreseen_is_told_all_the_same() -> None:
    assert explain("Strange `thing` - at `$.a[0].b`") == ("It is wrong: Strange thing.", "a[0].b")
