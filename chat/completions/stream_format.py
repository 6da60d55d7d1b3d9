"""A streamed completion as bytes: OpenAI's chunks, or FastGPT's named events in one of two dialects."""

from collections.abc import Sequence
from typing import Any

import msgspec

from apikeys.errors import ApiError
from chat.completions import openai_objects, sse
from chat.completions.choices import ChoicePiece, Piece
from chat.completions.completion import Completion
from chat.completions.fastgpt_steps import response_data
from chat.completions.tool_events import ToolEvents, result_events

DONE = b"[DONE]"
_encode = msgspec.json.Encoder().encode


class StreamFormat:
    """The events of one streamed completion, as bytes."""

    def __init__(self, completion: Completion) -> None:
        request = completion.request
        self.completion = completion
        self.is_detailed = bool(request.detail)
        self.shows_usage = bool(request.stream_options and request.stream_options.include_usage)
        self.identity: dict[str, Any] = {
            "id": completion.id,
            "created": completion.created,
            "model": completion.app.model,
        }
        self._shown = 0
        self._tools = ToolEvents() if self.is_detailed else None
        # The bytes around the text of a chunk are the same in all of them.
        sample = self._chunk({"content": ""})
        self._before, _, self._after = sample.rpartition(b'{"content":""}')

    def _answer(self, data: dict[str, Any] | bytes) -> bytes:
        raw = data if isinstance(data, bytes) else msgspec.json.encode(data)
        return sse.encode(raw, "answer" if self.is_detailed else None)

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
        chunk = openai_objects.chunk(**self.identity, delta=delta, finish_reason=finish_reason, **more)
        # OpenAI has it on every chunk where it was asked for, and null on all but the last.
        return self._answer(chunk | {"usage": None} if self.shows_usage else chunk)

    def opening(self) -> bytes:
        results = result_events(self.completion.results) if self.is_detailed else b""
        return self.steps() + results + self._chunk({"role": "assistant", "content": ""})

    def steps(self) -> bytes:
        """Return the events of those that have begun since the last time."""
        begun = self.completion.steps[self._shown :] if self.is_detailed else []
        self._shown += len(begun)
        event = "moduleStatus" if self.completion.app.is_classic else "flowNodeStatus"
        return b"".join(sse.encode(msgspec.json.encode({"status": "running", "name": name}), event) for name in begun)

    def pieces(self, pieces: Sequence[Piece | ChoicePiece]) -> bytes:
        before, after = self._before, self._after
        return b"".join(
            [
                b'%b{"content":%b}%b' % (before, _encode(piece), after)
                if isinstance(piece, str)
                else self._delta(piece)
                for piece in pieces
            ]
        )

    def _delta(self, piece: dict[str, Any] | ChoicePiece) -> bytes:
        if isinstance(piece, ChoicePiece):
            return self._chunk(piece.delta, index=piece.index, logprobs=piece.logprobs)
        events = self._tools.calls(piece) if self._tools is not None else b""
        return b"%b%b%b%b" % (events, self._before, _encode(piece), self._after)

    def end(self) -> bytes:
        completion = self.completion
        events = [self._chunk({}, completion.finish_reason)]
        if completion.choices is not None:
            ends = completion.choices.finish_reasons()
            events = [self._chunk({}, reason, index=index, logprobs=None) for index, reason in ends]
        if self.shows_usage:
            events.append(self._answer(openai_objects.usage_chunk(**self.identity, usage=completion.usage)))
        done = self._answer(DONE)
        if not self.is_detailed:
            return b"".join([*events, done])
        steps = msgspec.json.encode(response_data(completion))
        if completion.app.is_classic:
            return b"".join([*events, done, sse.encode(steps, "appStreamResponse")])
        return b"".join([*events, sse.encode(steps, "flowResponses"), done])

    @staticmethod
    def error(error: ApiError) -> bytes:
        return sse.encode(error.json(), "error")
