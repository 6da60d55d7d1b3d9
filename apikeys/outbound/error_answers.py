"""What a provider said when it did not answer: for operators as a record, for the caller as one of a few errors."""

from __future__ import annotations

import asyncio
import email.utils
import re
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import msgspec

from apikeys.errors import ApiError, RefusedByProvider, UpstreamBusy, UpstreamError, UpstreamTimeout
from apikeys.outbound.connections import Response
from apikeys.outbound.json_bodies import load
from apikeys.storable_text import storable

# What a response that is no answer says is read so far, and waited for so long.
MAX_REFUSAL_BYTES = 64 * 1024
REFUSAL_SECONDS = 5.0
# So much is kept of a provider's text.
MAX_MESSAGE = 500
# The caller's own fault, as providers say it: too long, filtered, an image or a parameter that is not understood. A 404
# is one only where the provider's body says what is not found; without one, the base URL is wrong.
OF_THE_REQUEST = frozenset({400, 404, 413, 415, 422})
BUSY = frozenset({429, 503, 529})
MAX_RETRY_SECONDS = 600
_ADDRESS = re.compile(
    # A URL, an address with or without a port, and a host with one.
    r"\b[a-z][a-z0-9+.-]*://\S+|\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b|\[[0-9a-f:.]*:[0-9a-f:.]*\](?::\d+)?"
    r"|\b(?=[\w.-]*[a-z])[\w-]+(?:\.[\w-]+)+:\d{2,5}\b",
    re.IGNORECASE,
)
_SECRET = re.compile(
    # Names of models are as long as 30 characters, with digits in them.
    r"\bBearer\s+\S+|\b(?:sk|org|proj|hf|gsk|xai|ghp|fastgpt)[-_](?=[\w*.-]*[\d*])[\w*.-]{6,}"
    r"|\bA(?:KIA|Iza)[\w-]{12,}|\b(?=[\w-]*\d)(?=[\w-]*[a-z])[\w-]{32,}",
    re.IGNORECASE,
)
_CODE = re.compile(r"[A-Za-z0-9_.:-]{1,100}")


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a provider did not answer, or not to its end. It names no address and no secret."""

    what: str
    # Those of its response, where there was one.
    status: int | None = None
    code: str = ""
    message: str = ""

    def __str__(self) -> str:
        parts = [self.what, self.code, self.message]
        return ": ".join(part for part in parts if part)


async def read_refusal(response: Response, deadline: float) -> bytes:
    """Return what a response says that is no answer, as far as it comes soon, and release it."""
    deadline = min(deadline, asyncio.get_running_loop().time() + REFUSAL_SECONDS)
    said = b""
    try:
        while len(said) < MAX_REFUSAL_BYTES and (piece := await response.read(MAX_REFUSAL_BYTES, deadline)):
            said += piece
    except (TimeoutError, OSError):
        # Its status is enough.
        pass
    finally:
        response.release()
    return said


def failure_of(status: int, body: bytes, *, hidden: Iterable[str], base_url: str) -> Failure:
    """Describe a response that is no answer, by what its body says in one of the usual forms.

    Texts in `hidden`, such as the provider's secret, and the host of the URL are left out of it.
    """
    code, message = _read(body)
    return _failure(f"HTTP {status}", status, code, message, hidden, base_url)


def failure_in(error: Any, *, hidden: Iterable[str], base_url: str) -> Failure:
    """Describe an error that came with the status of an answer. Some say there which status it should have been."""
    code, message = _read_error(error) if isinstance(error, dict | str) else ("", "")
    number = error.get("code") if isinstance(error, dict) else None
    status = number if isinstance(number, int) and 400 <= number < 600 else None
    return _failure("an error in its answer", status, code, message, hidden, base_url)


def error_of(failure: Failure, retry_after: str = "") -> ApiError:
    """Return what the caller gets for it: its own fault as a 400, a busy provider as a 503, all else as a 502."""
    error: ApiError
    if failure.status in BUSY:
        error = UpstreamBusy(_seconds(retry_after))
    elif failure.status in OF_THE_REQUEST and failure.message and (failure.status != 404 or failure.code):
        error = RefusedByProvider(failure.message, failure.code)
    elif failure.status in (408, 504):
        error = UpstreamTimeout()
    else:
        error = UpstreamError()
    error.failure = failure
    return error


def clean(text: str, *hidden: str) -> str:
    """Return a provider's text in one line, cut at MAX_MESSAGE, without addresses and what may be a secret."""
    for word in hidden:
        text = text.replace(word, "...")
    text = _SECRET.sub("...", _ADDRESS.sub("...", text))
    text = " ".join(storable(text).split())
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "\u2026"


def _read(body: bytes) -> tuple[str, str]:
    """Return the code and the message of an error, in the forms of OpenAI, FastAPI, Azure, Google and Ollama."""
    try:
        value = load(body)
    except (ValueError, RecursionError):
        return "", ""
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, dict):
        return "", ""
    error = value.get("error") or value
    return (_text_of(value.get("code")), error) if isinstance(error, str) else _read_error(error)


def _read_error(error: Any) -> tuple[str, str]:
    if isinstance(error, str):
        return "", error
    if not isinstance(error, dict):
        return "", ""
    code = next((text for name in ("code", "type", "status") if (text := _text_of(error.get(name)))), "")
    message = next((error[name] for name in ("message", "detail", "msg") if error.get(name)), "")
    if not isinstance(message, str):
        # FastAPI lists what is wrong with each field.
        message = msgspec.json.encode(message).decode()
    return code, message


def _failure(what: str, status: int | None, code: str, message: str, hidden: Iterable[str], base_url: str) -> Failure:
    host = urlsplit(base_url).hostname
    message = clean(message, *hidden, *([host] if host else []))
    is_code = _CODE.fullmatch(code) and not _SECRET.search(code)
    return Failure(what, status, code if is_code else "", message)


def _text_of(code: Any) -> str:
    # A number is the HTTP status once more.
    return code if isinstance(code, str) else ""


def _seconds(retry_after: str) -> int:
    """Return a Retry-After header's seconds, be it a number or a date."""
    text = retry_after.strip()
    if text.isdecimal() and len(text) < 10:
        seconds = int(text)
    else:
        try:
            moment = email.utils.parsedate_tz(text)
            seconds = 1 if moment is None else round(email.utils.mktime_tz(moment) - time.time())
        except (ValueError, OverflowError):
            seconds = 1
    return min(max(seconds, 1), MAX_RETRY_SECONDS)
