"""Text that PostgreSQL and JSON can hold."""

from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from apikeys.storable_text import storable, storable_json

# This includes lone surrogates, which hypothesis leaves out by default.
ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=()))


def test_it_works():
    assert storable("a\0b") == "a\ufffdb"
    assert storable("a\ud800b") == "a\ufffdb"
    assert storable("a\udfffb") == "a\ufffdb"


def test_what_is_sound_stays():
    for text in ("", "plain", "客服", "😀", "line\nline\ttab\x1b", "\ufffd"):
        assert storable(text) == text


def test_two_halves_of_one_character_are_joined():
    assert storable("\ud83d\ude00") == "😀"
    assert storable("\ude00\ud83d") == "\ufffd\ufffd"


@given(ANY_TEXT)
def test_everything_can_be_encoded(text):
    result = storable(text)
    result.encode()
    assert "\0" not in result
    assert storable(result) == result


def test_the_database_takes_it():
    text = storable("\0 \ud800 😀")
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s::text, %s::jsonb ->> 0", [text, f'["{text}"]'])
        assert cursor.fetchone() == (text, text)


def test_json_keeps_its_shape():
    value = {"a\0": ["\ud800", {"b": "c\0"}, 1, 2.5, True, None], "plain": "text"}
    assert storable_json(value) == {"a\ufffd": ["\ufffd", {"b": "c\ufffd"}, 1, 2.5, True, None], "plain": "text"}
