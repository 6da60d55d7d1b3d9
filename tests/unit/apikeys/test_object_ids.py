"""Ids of 24 hexadecimal characters."""

import time

from apikeys.object_ids import is_object_id, new_object_id


def test_it_works():
    assert is_object_id(new_object_id())


def test_it_begins_with_the_time():
    before = int(time.time())
    seconds = int(new_object_id()[:8], 16)
    assert before <= seconds <= int(time.time())


def test_no_two_are_the_same():
    assert len({new_object_id() for _ in range(1000)}) == 1000


def test_what_is_none():
    for text in ("", "a" * 23, "a" * 25, "A" * 24, "g" * 24, "a" * 24 + "\n", "٣" * 24):
        assert not is_object_id(text)
