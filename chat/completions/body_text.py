"""How much of a completion's body is text, and how much images and files as base64. Pure data."""

import re

from apikeys.errors import BodyTooLarge

# So much a body may have besides its base64: to decode it takes many times the memory, and holds up the event loop.
MAX_TEXT_BYTES = 2 * 1024 * 1024
# A shorter string counts as text, whatever it is.
SHORT_BYTES = 4 * 1024
# Fields that hold base64 without saying so.
FIELD = re.compile(rb'"(?:data|file_data)"\s*:\s*"\Z')
LONGEST_FIELD = 64


def check_text(raw: bytes) -> None:
    """Raise BodyTooLarge, before anything is decoded."""
    if len(raw) > MAX_TEXT_BYTES and text_size(raw, MAX_TEXT_BYTES) > MAX_TEXT_BYTES:
        raise BodyTooLarge(
            f"Besides the base64 of its images and files, the body is larger than {MAX_TEXT_BYTES} bytes."
        )


def text_size(raw: bytes, most: int) -> int:
    """Return how many bytes of a body of JSON are no base64. It counts on until they are more than `most`.

    A long string of ASCII is taken for base64 that begins with `data:`, or is the value of a field that holds it. What
    is taken for one is one in any case: in JSON, a quote before these either begins a string or is in one.
    """
    is_ascii = raw.isascii()
    size = start = 0
    while size <= most:
        end = raw.find(b'"', start)
        if end < 0:
            return size + len(raw) - start
        if end - start < SHORT_BYTES or not (_begins_base64(raw, start) and (is_ascii or raw[start:end].isascii())):
            size += end + 1 - start
        start = end + 1
    return size


def _begins_base64(raw: bytes, start: int) -> bool:
    """Return whether base64 stands here, behind a quote."""
    if not start:
        return False
    return raw.startswith(b"data:", start) or FIELD.search(raw, max(start - LONGEST_FIELD, 0), start) is not None
