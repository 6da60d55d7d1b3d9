"""Answers as providers give them, read tolerantly: what is misspelled, mislabeled or left out costs no text. Pure data.

The answers of most are read as they are declared below. Whatever does not fit is read once more, field by field.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Struct

from apikeys.outbound.json_bodies import load
from chat.completions.tool_calls import place_of

DONE = b"[DONE]"
# The data of an event is this or JSON; blanks around it are all that makes it longer.
LONGEST_DONE = 32
REASONING_PARTS = ("reasoning", "reasoning_content", "thinking")
# Where a content is a list of parts, their text is in one of these.
PART_TEXTS = ("text", "content", *REASONING_PARTS)
FINISH_REASONS = ("stop", "length", "content_filter", "tool_calls", "function_call")
# Providers say so of an answer that they could not finish.
FAILED = ("error", "failed")


class ProviderDelta(Struct, frozen=True):
    """A message, or what a chunk adds to one. The last three are passed on as they came."""

    content: str | None = None
    reasoning_content: str | None = None
    # Other providers' word for the same.
    reasoning: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    function_call: dict[str, Any] | None = None
    refusal: str | None = None

    @property
    def is_plain(self) -> bool:
        """Return whether it is text and nothing else, as most are."""
        return (
            self.reasoning_content is None
            and self.reasoning is None
            and self.tool_calls is None
            and self.function_call is None
            and self.refusal is None
        )

    @property
    def thoughts(self) -> str:
        return self.reasoning_content or self.reasoning or ""

    @property
    def extras(self) -> dict[str, Any]:
        if not (self.tool_calls or self.function_call or self.refusal):
            return {}
        found = {"tool_calls": self.tool_calls, "function_call": self.function_call, "refusal": self.refusal}
        return {name: value for name, value in found.items() if value}


class ProviderChoice(Struct, frozen=True):
    delta: ProviderDelta | None = None
    message: ProviderDelta | None = None
    finish_reason: str | None = None
    # These are read where a request asked for several answers, or for the probabilities of tokens.
    index: Any = None
    logprobs: Any = None


class ProviderAnswer(Struct, frozen=True):
    """A whole answer, or one chunk of a streamed one; only what is read of it."""

    choices: list[ProviderChoice] | None = None
    usage: Any = None
    error: Any = None

    @property
    def has_failed(self) -> bool:
        return bool(self.error) or any(choice.finish_reason in FAILED for choice in self.choices or ())

    @property
    def is_finished(self) -> bool:
        return any(choice.finish_reason for choice in self.choices or ())

    @property
    def has_message(self) -> bool:
        return any(choice.message or choice.delta for choice in self.choices or ())


_decoder = msgspec.json.Decoder(ProviderAnswer)


def decode_answer(raw: bytes) -> ProviderAnswer:
    """Decode a whole answer or a chunk. Raise ValueError or RecursionError when it is no object of JSON."""
    try:
        return _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _answer(load(raw))


def is_done(data: bytes) -> bool:
    return data == DONE or (len(data) <= LONGEST_DONE and data.strip() == DONE)


def _answer(value: Any) -> ProviderAnswer:
    if isinstance(value, list) and value:
        # Some wrap an error in a list.
        value = value[0]
    if not isinstance(value, dict):
        raise ValueError("the answer is no object")
    choices = value.get("choices")
    return ProviderAnswer(
        choices=[_choice(choice) for choice in choices if isinstance(choice, dict)]
        if isinstance(choices, list)
        else None,
        usage=value.get("usage"),
        error=value.get("error"),
    )


def _choice(value: dict[str, Any]) -> ProviderChoice:
    return ProviderChoice(
        delta=_delta(value.get("delta")),
        message=_delta(value.get("message")),
        finish_reason=_text(value, "finish_reason"),
        index=value.get("index"),
        logprobs=value.get("logprobs"),
    )


def _delta(value: Any) -> ProviderDelta | None:
    if not isinstance(value, dict):
        return None
    content, thoughts = _contents(value.get("content"))
    calls, call = value.get("tool_calls"), value.get("function_call")
    return ProviderDelta(
        content=content,
        reasoning_content=_text(value, "reasoning_content") or _text(value, "reasoning") or thoughts,
        tool_calls=[call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else None,
        function_call=call if isinstance(call, dict) else None,
        refusal=_text(value, "refusal"),
    )


def _contents(value: Any) -> tuple[str | None, str | None]:
    """Return the text of a content, and the reasoning that stands among its parts."""
    if not isinstance(value, list):
        return (value if isinstance(value, str) else None), None
    text: list[str] = []
    thoughts: list[str] = []
    for part in value:
        if isinstance(part, str):
            text.append(part)
        elif isinstance(part, dict):
            found = next((part[name] for name in PART_TEXTS if isinstance(part.get(name), str)), "")
            (thoughts if part.get("type") in REASONING_PARTS else text).append(found)
    return "".join(text), "".join(thoughts) or None


def _text(value: dict[str, Any], name: str) -> str | None:
    found = value.get(name)
    return found if isinstance(found, str) else None


def finish_reason_of(reason: str) -> str:
    # OpenAI's reasons stay as they are; whatever else a provider says means that it stopped.
    return reason if reason in FINISH_REASONS else "stop"


class Characters:
    """Joins characters that were cut in two between chunks, be it as bytes or as halves of a surrogate pair."""

    _CUT = re.compile("(?:[\ud800-\udbff]|[\udc80-\udcff]{1,3})\\Z")
    _BYTES = re.compile("[\udc80-\udcff]+")
    _HALVES = re.compile("[\ud800-\udfff]")

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        """Return what is whole of the text so far, each NUL as U+FFFD. Half a character at its end is held."""
        if "\0" in text:
            text = text.replace("\0", "\ufffd")
        if not self._held and (text.isascii() or self._HALVES.search(text) is None):
            return text
        text = self._join(self._held + text)
        cut = self._CUT.search(text)
        self._held = "" if cut is None else cut[0]
        return self._mend(text[: len(text) - len(self._held)])

    def end(self) -> str:
        """Return what is left: half a character, as U+FFFD."""
        held, self._held = self._held, ""
        return self._mend(held)

    @classmethod
    def _join(cls, text: str) -> str:
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        return cls._BYTES.sub(lambda found: _decode_escaped(found[0]), text)

    @classmethod
    def _mend(cls, text: str) -> str:
        return cls._HALVES.sub("\ufffd", text)


def _decode_escaped(escaped: str) -> str:
    """Return the characters of escaped bytes; those that make none stay escaped."""
    return escaped.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def merge_extras(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the chunks of one message come to: texts joined, tool calls by their index."""
    merged: dict[str, Any] = {}
    calls: dict[Any, dict[str, Any]] = {}
    for part in parts:
        for call in part.get("tool_calls", ()):
            place = place_of(call, len(calls))
            _extend(calls.setdefault(place, {}), {name: value for name, value in call.items() if name != "index"})
        _extend(merged, {name: value for name, value in part.items() if name != "tool_calls"})
    return merged | ({"tool_calls": list(calls.values())} if calls else {})


# Of what comes in pieces, these are joined; what else is said once more stays as it was said first.
JOINED = ("arguments", "refusal")


def _extend(known: dict[str, Any], more: dict[str, Any]) -> None:
    for name, value in more.items():
        before = known.get(name)
        if isinstance(before, dict) and isinstance(value, dict):
            _extend(before, value)
        elif isinstance(before, str) and isinstance(value, str) and name in JOINED:
            known[name] = before + value
        elif not before:
            known[name] = dict(value) if isinstance(value, dict) else value


def merge_logprobs(parts: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return what the probabilities of the chunks of one answer come to: lists joined."""
    merged: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            before = merged.get(name)
            if isinstance(before, list) and isinstance(value, list):
                before.extend(value)
            elif before is None:
                merged[name] = list(value) if isinstance(value, list) else value
    return merged or None


class Reported:
    """The tokens that a provider has reported so far. Reports are merged by field, and none lowers another."""

    __slots__ = ("cached_tokens", "completion_tokens", "has_details", "prompt_tokens", "reasoning_tokens")

    def __init__(self) -> None:
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None
        # These are a part of the two above, and known of few.
        self.has_details = False
        self.cached_tokens: int | None = None
        self.reasoning_tokens: int | None = None

    def add(self, usage: Any) -> bool:
        """Take a report; return whether it says anything of the completion's tokens."""
        if not isinstance(usage, dict):
            return False
        prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
        if len(usage) > len(("prompt_tokens", "completion_tokens", "total_tokens")):
            self._add_details(usage)
        if prompt:
            # No prompt has no tokens, so zero says nothing.
            self.prompt_tokens = max(prompt, self.prompt_tokens or 0)
        if len(usage) > len(("prompt_tokens", "completion_tokens", "total_tokens")):
            self._add_details(usage)
        if completion is None:
            return False
        self.completion_tokens = max(completion, self.completion_tokens or 0)
        return True

    def details(self, prompt_tokens: int, completion_tokens: int) -> dict[str, dict[str, int]]:
        """Return the parts of these tokens as OpenAI spells them."""
        found = {}
        if self.cached_tokens is not None:
            found["prompt_tokens_details"] = {"cached_tokens": min(self.cached_tokens, prompt_tokens)}
        if self.reasoning_tokens is not None:
            found["completion_tokens_details"] = {"reasoning_tokens": min(self.reasoning_tokens, completion_tokens)}
        return found

    def _add_details(self, usage: dict[str, Any]) -> None:
        of_prompt, of_completion = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
        cached = _count(of_prompt, "cached_tokens") if isinstance(of_prompt, dict) else None
        if cached is None:
            # DeepSeek's name.
            cached = _count(usage, "prompt_cache_hit_tokens")
        reasoning = _count(of_completion, "reasoning_tokens") if isinstance(of_completion, dict) else None
        if cached is not None:
            self.cached_tokens = max(cached, self.cached_tokens or 0)
        if reasoning is not None:
            self.reasoning_tokens = max(reasoning, self.reasoning_tokens or 0)
        self.has_details = self.cached_tokens is not None or self.reasoning_tokens is not None


def _count(usage: dict[str, Any], name: str) -> int | None:
    # A count that could not be true is as good as none. JSON of some writes a whole number as 7.0.
    count = usage.get(name)
    if isinstance(count, float) and count.is_integer():
        count = int(count)
    return count if isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 2**31 else None
