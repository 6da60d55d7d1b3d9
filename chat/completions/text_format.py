"""A completion in the form of OpenAI's older text completions, whole and streamed. Reasoning is left out of it."""

from collections.abc import Sequence
from typing import Any

import msgspec

from apikeys.api.answers import EventStream
from apikeys.errors import ApiError
from chat.completions import sse
from chat.completions.choices import ChoicePiece, Piece
from chat.completions.completion import Completion
from chat.completions.stream_format import DONE

# They knew no others.
FINISH_REASONS = ("stop", "length", "content_filter")


def text_completion(completion: Completion) -> dict[str, Any]:
    body = _object(completion, completion.content, _finish_reason_of(completion))
    return body | {"usage": completion.usage}


def _object(completion: Completion, text: str, finish_reason: str | None) -> dict[str, Any]:
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}
    return {
        "id": completion.id,
        "object": "text_completion",
        "created": completion.created,
        "model": completion.app.model,
        "choices": [choice],
    }


def _finish_reason_of(completion: Completion) -> str:
    return completion.finish_reason if completion.finish_reason in FINISH_REASONS else "stop"


class TextStreamFormat:
    """The events of one streamed text completion, as bytes."""

    def __init__(self, completion: Completion) -> None:
        options = completion.request.stream_options
        self.completion = completion
        self.shows_usage = bool(options and options.include_usage)

    def _chunk(self, text: str, finish_reason: str | None = None) -> bytes:
        chunk = _object(self.completion, text, finish_reason)
        return sse.encode(msgspec.json.encode(chunk | {"usage": None} if self.shows_usage else chunk))

    def opening(self) -> bytes:
        return b""

    def steps(self) -> bytes:
        return b""

    def pieces(self, pieces: Sequence[Piece | ChoicePiece]) -> bytes:
        text = "".join([piece for piece in pieces if isinstance(piece, str)])
        return self._chunk(text) if text else EventStream.COMMENT

    def end(self) -> bytes:
        completion = self.completion
        events = [self._chunk("", _finish_reason_of(completion))]
        if self.shows_usage:
            last = _object(completion, "", None) | {"choices": [], "usage": completion.usage}
            events.append(sse.encode(msgspec.json.encode(last)))
        return b"".join([*events, sse.encode(DONE)])

    @staticmethod
    def error(error: ApiError) -> bytes:
        return sse.encode(error.json(), "error")
