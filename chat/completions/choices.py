"""What an answer is made of while it arrives, and the several answers that a request may ask for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from apikeys.errors import UpstreamError
from apikeys.storable_text import storable_json
from chat.completions.provider_answers import (
    Characters,
    ProviderChoice,
    ProviderDelta,
    finish_reason_of,
    merge_extras,
    merge_logprobs,
)

if TYPE_CHECKING:
    from chat.completions.completion import Completion

# What an answer grows by: text, or another delta of OpenAI's, such as reasoning and tool calls.
Piece = str | dict[str, Any]


@dataclass(frozen=True, slots=True)
class ChoicePiece:
    """What one of several answers grows by, with the probabilities of its tokens."""

    index: int
    delta: dict[str, Any]
    logprobs: Any


class Answer:
    """One answer as it arrives. Its fields are those of a subclass."""

    __slots__ = ()

    texts: list[str]
    thoughts: list[str]
    # Tool calls and refusals, as they came.
    extras: list[dict[str, Any]]
    _characters: Characters
    _thought_characters: Characters

    @property
    def content(self) -> str:
        return "".join(self.texts)

    @property
    def answer_extras(self) -> dict[str, Any]:
        """Return the tool calls and the refusal of the whole answer."""
        return merge_extras(self.extras) if self.extras else {}

    @property
    def message(self) -> dict[str, Any]:
        """Return the whole answer as OpenAI's clients read it."""
        extras = self.answer_extras
        message: dict[str, Any] = {"role": "assistant", "content": self.content}
        if extras and not self.texts:
            message["content"] = None
        if self.thoughts:
            message["reasoning_content"] = "".join(self.thoughts)
        return message | extras

    def _add(self, message: ProviderDelta) -> list[Piece]:
        if message.is_plain:
            return self._add_text(self._characters.feed(message.content)) if message.content else []
        pieces: list[Piece] = []
        if message.thoughts:
            pieces += self._add_thoughts(self._thought_characters.feed(message.thoughts))
        if message.content:
            pieces += self._add_text(self._characters.feed(message.content))
        extras = message.extras
        if extras:
            try:
                extras = storable_json(extras)
            except RecursionError:
                raise UpstreamError("The model's answer is nested too deeply.") from None
            self.extras.append(extras)
            self._count(len(msgspec.json.encode(extras)))
            pieces.append(extras)
        return pieces

    def _add_text(self, text: str) -> list[Piece]:
        if not text:
            return []
        self.texts.append(text)
        self._count(len(text) if text.isascii() else len(text.encode()))
        return [text]

    def _add_thoughts(self, text: str) -> list[Piece]:
        if not text:
            return []
        self.thoughts.append(text)
        self._count(len(text.encode()))
        return [{"reasoning_content": text}]

    def _end_texts(self) -> list[Piece]:
        """Take what is left of characters that never became whole."""
        return self._add_thoughts(self._thought_characters.end()) + self._add_text(self._characters.end())

    def _count(self, size: int) -> None:
        """Take note of so many bytes that the model has produced."""
        raise NotImplementedError


@dataclass(slots=True)
class Choice(Answer):
    """An answer besides the first, which is that of the completion itself."""

    completion: Completion
    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    extras: list[dict[str, Any]] = field(default_factory=list)
    finish_reason: str = "stop"
    _characters: Characters = field(default_factory=Characters)
    _thought_characters: Characters = field(default_factory=Characters)

    def _count(self, size: int) -> None:
        self.completion._count(size)


class Choices:
    """The answers to one question by their index, of which the first is the completion itself."""

    def __init__(self, completion: Completion) -> None:
        self.count = completion.choice_count
        self.is_streaming = bool(completion.request.stream)
        self.answers: dict[int, Completion | Choice] = {0: completion}
        self.logprobs: dict[int, list[dict[str, Any]]] = {}

    def take(self, found: list[ProviderChoice]) -> list[ChoicePiece]:
        """Take what a provider says of each. More answers than were asked for are left out."""
        pieces: list[ChoicePiece] = []
        for place, choice in enumerate(found):
            index = choice.index if type(choice.index) is int else place
            if not 0 <= index < self.count:
                continue
            if index not in self.answers:
                self.answers[index] = Choice(self.answers[0])  # type: ignore[arg-type]  # it is the completion
                pieces.append(ChoicePiece(index, {"role": "assistant", "content": ""}, None))
            answer = self.answers[index]
            if choice.finish_reason:
                answer.finish_reason = finish_reason_of(choice.finish_reason)
            message = choice.message or choice.delta
            deltas = answer._add(message) if message is not None else []
            pieces += self._pieces(index, deltas, self._clean(index, choice.logprobs))
        return pieces

    def end(self) -> list[ChoicePiece]:
        return [
            piece for index, answer in self.answers.items() for piece in self._pieces(index, answer._end_texts(), None)
        ]

    def finish_reasons(self) -> list[tuple[int, str]]:
        return [(index, answer.finish_reason) for index, answer in sorted(self.answers.items())]

    def bodies(self) -> list[dict[str, Any]]:
        """Return all of them as OpenAI's clients read them."""
        return [
            {
                "index": index,
                "message": answer.message,
                "logprobs": merge_logprobs(self.logprobs.get(index, [])),
                "finish_reason": answer.finish_reason,
            }
            for index, answer in sorted(self.answers.items())
        ]

    def _clean(self, index: int, logprobs: Any) -> dict[str, Any] | None:
        if not isinstance(logprobs, dict):
            return None
        try:
            cleaned: dict[str, Any] = storable_json(logprobs)
        except RecursionError:
            return None
        if not self.is_streaming:
            self.logprobs.setdefault(index, []).append(cleaned)
        return cleaned

    @staticmethod
    def _pieces(index: int, deltas: list[Piece], logprobs: dict[str, Any] | None) -> list[ChoicePiece]:
        if logprobs is not None and not deltas:
            return [ChoicePiece(index, {}, logprobs)]
        return [
            ChoicePiece(index, {"content": delta} if isinstance(delta, str) else delta, None if place else logprobs)
            for place, delta in enumerate(deltas)
        ]
