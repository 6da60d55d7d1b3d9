import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.completions import sse


def test_it_works() -> None:
    decoder = sse.Decoder()
    assert decoder.feed(sse.encode(b"one") + sse.encode(b"two", "answer")) == [b"one", b"two"]


def test_what_is_not_data_is_left_out() -> None:
    raw = b": comment\n\nid: 7\nretry: 10\nevent: x\ndata:tight\n\ndata\n\nevent: only\n\n"
    assert sse.Decoder().feed(raw) == [b"tight"]


@pytest.mark.parametrize("raw", [b"data:\n\n", b"data: \n\n", b"data:  \r\n\r\n", b"data:\ndata:\n\n"])
def test_an_event_without_data_is_none(raw: bytes) -> None:
    assert sse.Decoder().feed(raw + b"data: a\n\n") == [b"a"]
    decoder = sse.Decoder()
    assert decoder.feed(b"data: a\n\n") == [b"a"]
    assert decoder.feed(raw) == []
    assert decoder.feed(b"data: b\n\n") == [b"b"]


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    raw = b"\xef\xbb\xbfdata: a\n\n"
    assert sse.Decoder().feed(raw) == [b"a"]
    decoder = sse.Decoder()
    assert [event for byte in raw for event in decoder.feed(bytes([byte]))] == [b"a"]
    # One within the stream is text.
    assert decoder.feed(b"data: \xef\xbb\xbf\n\n") == [b"\xef\xbb\xbf"]


def test_data_of_several_lines_is_one() -> None:
    assert sse.Decoder().feed(b"data: a\ndata: b\n\n") == [b"a\nb"]


def test_half_an_event_waits() -> None:
    decoder = sse.Decoder()
    assert decoder.feed(b"data: a\n") == []
    assert decoder.feed(b"\n") == [b"a"]


@given(
    st.lists(
        st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1).filter(
            lambda text: not text.encode().isspace()
        ),
        max_size=5,
    ),
    st.sampled_from([b"\n", b"\r\n"]),
    st.data(),
)
def test_the_pieces_do_not_matter(texts: list[str], line_end: bytes, data: st.DataObject) -> None:
    raw = b"".join(sse.encode(text.encode()) for text in texts).replace(b"\n", line_end)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    decoder = sse.Decoder()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        found += decoder.feed(raw[start:end])
    assert found == [text.encode() for text in texts]


def test_an_event_without_end_is_refused() -> None:
    decoder = sse.Decoder()
    assert decoder.feed(b"x" * sse.MAX_EVENT_BYTES) == []
    with pytest.raises(sse.EventTooLong):
        decoder.feed(b"x")


def test_data_lines_without_end_are_refused() -> None:
    decoder = sse.Decoder()
    line = b"data: " + b"x" * (sse.MAX_EVENT_BYTES // 2) + b"\n"
    assert decoder.feed(line) == []
    with pytest.raises(sse.EventTooLong):
        decoder.feed(line)
