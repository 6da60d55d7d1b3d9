"""A streamed response as bytes: OpenAI's named events, each with its number."""

from typing import Any

import msgspec

from apikeys.errors import ApiError
from chat.completions import sse
from chat.completions.choices import Piece
from chat.responses import objects
from chat.responses.completion import ResponseCompletion
from chat.responses.output_items import Event, Output

_encode = msgspec.json.Encoder().encode


class ResponseEvents:
    """The events of one streamed response. They end with the one that has the whole response; there is no `[DONE]`."""

    def __init__(self, completion: ResponseCompletion) -> None:
        self.completion = completion
        self._output = Output(completion.tail)
        # So many events were sent.
        self._count = 0

    def steps(self) -> bytes:
        """Return the first events, unless they were sent: nothing else is known before the answer begins."""
        if self._count:
            return b""
        response = objects.begun(self.completion)
        names = ("response.created", "response.in_progress")
        return b"".join([self._event({"type": name, "response": response}) for name in names])

    opening = steps

    def pieces(self, pieces: list[Piece]) -> bytes:
        return b"".join([self._event(event) for piece in pieces for event in self._output.add(piece)])

    def end(self) -> bytes:
        status = objects.status_of(self.completion)
        events = [self._event(event) for event in self._output.end(status)]
        response = objects.ended(self.completion, self._output)
        return b"".join([*events, self._event({"type": f"response.{status}", "response": response})])

    def error(self, error: ApiError) -> bytes:
        """Return the error as an event, and the response that failed: some clients read the one, some the other."""
        opening, details = self.opening(), error.body()["error"]
        named: dict[str, Any] = {name: details[name] for name in ("code", "message", "param")}
        events = [self._event({"type": "error", **named, "error": details})]
        if self._output.items:
            for _ in self._output.end("incomplete"):
                pass
        response = objects.failed(self.completion, self._output, error)
        return b"".join([opening, *events, self._event({"type": "response.failed", "response": response})])

    def _event(self, event: Event) -> bytes:
        event["sequence_number"] = self._count
        self._count += 1
        return sse.encode(_encode(event), event["type"])
