import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apikeys.storable_text import storable
from chat.completions import provider_answers
from chat.completions.provider_answers import Characters, Reported, decode_answer, merge_extras


@pytest.mark.parametrize("raw", [b"", b"<html>", b"[]", b'"x"', b"7", b"null", b"\xff", b'{"choices": ', b"[7]"])
def test_what_is_no_answer_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each of its kinds will do
        decode_answer(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"choices": 7}',
        b'{"choices": [NaN]}',
        b'{"choices": [7, null, []]}',
        b'{"choices": [{"delta": "x", "message": 7, "finish_reason": {}}], "usage": "x"}',
        b'{"choices": [{"delta": {"content": 7, "tool_calls": [7], "refusal": []}}]}',
    ],
)
def test_what_is_of_another_type_is_as_good_as_absent(raw: bytes) -> None:
    answer = decode_answer(raw)
    assert not answer.has_failed
    assert not answer.is_finished
    for choice in answer.choices or []:
        for message in (choice.delta, choice.message):
            assert message is None or (message.content, message.thoughts, message.extras) == (None, "", {})


def test_parts_are_text_or_reasoning() -> None:
    parts = [
        {"type": "thinking", "thinking": "a"},
        {"type": "text", "text": "b"},
        "c",
        {"type": "output_text", "text": "d"},
        {"type": "reasoning", "reasoning": "e"},
        {"type": "image_url", "image_url": {"url": "x"}},
        7,
    ]
    (choice,) = decode_answer(json.dumps({"choices": [{"message": {"content": parts}}]}).encode()).choices or []
    assert choice.message is not None
    assert (choice.message.content, choice.message.thoughts) == ("bcd", "ae")


@pytest.mark.parametrize("reason", ["stop", "length", "content_filter", "tool_calls", "function_call"])
def test_finish_reasons_of_openai_stay(reason: str) -> None:
    assert provider_answers.finish_reason_of(reason) == reason


def test_other_finish_reasons_are_a_stop() -> None:
    assert provider_answers.finish_reason_of("eos") == "stop"


@given(st.text(), st.data(), st.booleans())
def test_characters_may_be_cut_anywhere(text: str, data: st.DataObject, as_bytes: bool) -> None:
    """Into pieces of UTF-8, or of UTF-16 as escapes in JSON have it."""
    width, codec, errors = (1, "utf-8", "surrogateescape") if as_bytes else (2, "utf-16-le", "surrogatepass")
    raw = text.encode(codec)
    cuts = sorted({cut * width for cut in data.draw(st.lists(st.integers(0, len(raw) // width), max_size=6))})
    characters, found = Characters(), ""
    for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        found += characters.feed(raw[start:end].decode(codec, errors))
    # No database takes a NUL.
    assert found + characters.end() == text.replace("\0", "\ufffd")


@given(st.lists(st.text(st.characters(), max_size=4), max_size=6))
def test_what_comes_out_can_be_stored(pieces: list[str]) -> None:
    """Whatever halves go in, and nothing whole is lost."""
    characters = Characters()
    found = "".join(characters.feed(piece) for piece in pieces) + characters.end()
    found.encode()
    whole = [character for piece in pieces for character in piece if storable(character) == character]
    assert [character for character in found if character in whole][: len(whole)] == whole or "\ufffd" in found


def test_reports_are_merged_and_none_lowers_another() -> None:
    reported = Reported()
    for usage in ({"prompt_tokens": 5}, {"completion_tokens": 3}, {"prompt_tokens": 4, "completion_tokens": 0}, None):
        reported.add(usage)
    assert (reported.prompt_tokens, reported.completion_tokens) == (5, 3)


@pytest.mark.parametrize("count", [None, -1, 2**31, "7", True, 7.5, float("inf"), float("nan"), [7]])
def test_counts_that_cannot_be_true_are_not_believed(count: Any) -> None:
    reported = Reported()
    assert not reported.add({"prompt_tokens": count, "completion_tokens": count})
    assert (reported.prompt_tokens, reported.completion_tokens) == (None, None)


def test_tool_calls_of_chunks_are_joined_by_their_index() -> None:
    parts = [
        {"tool_calls": [{"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{"}}]},
        {"tool_calls": [{"index": 1, "id": "b", "function": {"name": "g", "arguments": "[1"}}], "refusal": "no"},
        {"tool_calls": [{"index": 0, "function": {"arguments": "}"}}, {"index": 1, "function": {"arguments": "]"}}]},
        {"refusal": "pe"},
    ]
    assert merge_extras(parts) == {
        "tool_calls": [
            {"id": "b", "type": "function", "function": {"name": "g", "arguments": "[1]"}},
            {"id": "a", "function": {"name": "f", "arguments": "{}"}},
        ],
        "refusal": "nope",
    }


def test_whole_tool_calls_stay_apart() -> None:
    calls = [{"id": name, "function": {"name": name, "arguments": "{}"}} for name in "ab"]
    assert merge_extras([{"tool_calls": calls}]) == {"tool_calls": calls}
