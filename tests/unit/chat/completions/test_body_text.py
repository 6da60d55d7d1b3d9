import json

import pytest

from apikeys.errors import BodyTooLarge
from chat.completions import attachments
from chat.completions.body_text import MAX_TEXT_BYTES, check_text, text_size
from chat.completions.request import FilePart, ImagePart, ImageUrl, TextPart

LONG = "A" * 10_000
URL = f"data:image/png;base64,{LONG}"


@pytest.mark.parametrize(
    ("value", "is_text"),
    [
        ({"url": URL}, False),
        ({"data": LONG}, False),
        ({"data": LONG, "format": "wav"}, False),
        ({"file_data": LONG}, False),
        ({"text": LONG}, True),
        ({"text": f"see {URL}"}, True),
        # What is short, is no ASCII, or only looks like a field is text.
        ({"url": URL[:1_000]}, True),
        ({"url": f"{URL}\u00e9"}, True),
        ({"x": f'"data": {LONG}'}, True),
        ([[[]] * 5_000], True),
        ({"data": [[]] * 5_000}, True),
    ],
)
def test_what_is_text(value: object, is_text: bool) -> None:
    for raw in (json.dumps(value, ensure_ascii=False).encode(), json.dumps(value, indent=1).encode()):
        size = text_size(raw, MAX_TEXT_BYTES)
        if is_text and raw.isascii() == json.dumps(value, ensure_ascii=False).isascii():
            assert size >= len(raw) - 1
        elif not is_text:
            assert size < 200


def test_it_counts_no_further_than_it_has_to() -> None:
    assert text_size(b'""' * 1_000_000, 1_000) < 1_010


def test_bodies_that_are_no_json() -> None:
    for raw in (b"", b'"', b"data:" + LONG.encode(), b'"data:' + LONG.encode(), b"\xff" * 10_000):
        assert text_size(raw, MAX_TEXT_BYTES) == len(raw)


def test_a_body_with_too_much_text() -> None:
    check_text(json.dumps([URL * 1_000]).encode())
    check_text(b"x" * MAX_TEXT_BYTES)
    with pytest.raises(BodyTooLarge):
        check_text(b"x" * (MAX_TEXT_BYTES + 1))


def test_what_of_a_question_is_stored() -> None:
    half = ImagePart(ImageUrl(f"data:image/png;base64,{'A' * (attachments.MAX_STORED_BYTES // 2)}"))
    link, text = ImagePart(ImageUrl("https://x.example/a.png")), TextPart("look")
    file = FilePart("https://x.example/b.pdf", "b.pdf")
    assert attachments.for_storage("look") == "look"
    assert attachments.for_storage([text, half, link, file]) == [text, half, link, file]
    assert attachments.for_storage([half, half, text]) == [half, TextPart("![image]"), text]
