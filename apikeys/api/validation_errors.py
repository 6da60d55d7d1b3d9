"""What msgspec finds wrong with a value, in plain words."""

import re
from collections.abc import Callable

# Of a value that somebody sent, no more than this is repeated to them.
LONGEST_QUOTE = 64
KINDS = {
    "int": "an integer",
    "float": "a number",
    "decimal": "a decimal number",
    "str": "a string",
    "bytes": "a string of base64",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "datetime": "a date and time",
    "date": "a date",
    "time": "a time",
    "duration": "a duration",
    "uuid": "a UUID",
}
COMPARISONS = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than", None: ""}
UNITS = {"str": "character", "bytes": "byte", "array": "item", "object": "field"}
FORMS = {
    "RFC3339 encoded datetime": "a date and time, such as 2026-01-31T12:00:00Z",
    "RFC3339 encoded date": "a date, such as 2026-01-31",
    "RFC3339 encoded time": "a time, such as 12:00:00",
    "ISO8601 duration": "a duration, such as PT5M",
    "UUID": "a UUID",
    "decimal string": "a decimal number",
    "base64 encoded string": "a string of base64",
}
MALFORMED = re.compile(r"JSON is malformed: (?P<what>.+) \(byte (?P<byte>\d+)\)")
PATH = re.compile(r" - at (?P<key>`key` in )?`\$\.?(?P<path>[^`]*)`\Z")


def explain(text: str) -> tuple[str, str | None]:
    """Return what is wrong, as a sentence of which "It" is the subject, and the path of the field, if it is one."""
    place = PATH.search(text)
    path, is_key = (place["path"], bool(place["key"])) if place else ("", False)
    what = text[: place.start()] if place else text
    for pattern, describe in SENTENCES:
        found = pattern.fullmatch(what)
        if found is not None:
            sentence = describe(found)
            break
    else:
        sentence = f"It is wrong: {what.replace('`', '')}."
    if is_key:
        sentence = re.sub(r"\AIt\b", "A key of it", sentence)
    field = FIELD.search(what)
    return sentence, ".".join(filter(None, [path, field and field[1]])) or None


def explain_malformed(text: str) -> str:
    """Return why something is no JSON at all, as a part of a sentence."""
    found = MALFORMED.fullmatch(text)
    if found is None:
        return "it ends too early, or has half of a surrogate pair in it"
    return f"{found['what']} at byte {found['byte']}"


def _kinds(found: re.Match[str]) -> str:
    # null means absent, where it is allowed.
    names = [KINDS.get(name, name) for name in found["kinds"].split(" | ") if name != "null"]
    return f"It must be {' or '.join(names) or 'null'}."


def _bound(found: re.Match[str]) -> str:
    return f"It must be {COMPARISONS[found['sign']]} {found['bound'].removesuffix('.0')}."


def _length(found: re.Match[str]) -> str:
    length, sign = int(found["length"]), ">=" if found["least"] else found["sign"]
    if (sign, length) == (">=", 1):
        return "It must not be empty."
    unit = UNITS.get(found["kind"], "item") + ("" if length == 1 else "s")
    return f"It must have {f'{COMPARISONS[sign]} {length}'.strip()} {unit}."


def _value(found: re.Match[str]) -> str:
    value = found["value"].strip("'\"")
    if len(value) > LONGEST_QUOTE:
        value = value[:LONGEST_QUOTE] + "\u2026"
    return f'It cannot be "{value}".'


def _form(found: re.Match[str]) -> str:
    return f"It must be {FORMS.get(found['form'], 'a valid ' + found['form'])}."


def _always(sentence: str) -> Callable[[re.Match[str]], str]:
    return lambda found: sentence


FIELD = re.compile(r"Object (?:missing required|contains unknown) field `([^`]+)`")
LENGTH = r"Expected `(?P<kind>\w+)` of (?P<least>at least )?length (?:(?P<sign>[<>]=) )?(?P<length>\d+)(?:, got \d+)?"
SENTENCES: list[tuple[re.Pattern[str], Callable[[re.Match[str]], str]]] = [
    (re.compile(pattern, re.DOTALL), describe)
    for pattern, describe in (
        (r"Object missing required field `[^`]+`", _always("It is missing.")),
        (r"Object contains unknown field `[^`]+`", _always("It is not a known field.")),
        (r"Expected `(?P<kinds>[^`]+)`(?:, got `[^`]+`)?", _kinds),
        (r"Expected `\w+` (?P<sign>[<>]=?) (?P<bound>\S+)", _bound),
        (LENGTH, _length),
        (r"Expected `\w+` that's a (?P<form>multiple of \S+)", lambda found: f"It must be a {found['form']}."),
        (r"Expected `\w+` matching regex .*", _always("It does not have the required form.")),
        (r"Expected `\w+` with a timezone component", _always("It must name its time zone.")),
        (r"Expected `\w+` with no timezone component", _always("It must not name a time zone.")),
        (r"(?:Integer value|Number|Timestamp|Duration)(?: is)? out of range ?", _always("It is out of range.")),
        (r"Invalid (?:enum )?value (?P<value>.*)", _value),
        (r"Invalid (?P<form>.+)", _form),
    )
]
