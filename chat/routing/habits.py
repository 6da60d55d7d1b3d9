"""What a provider's model turned out not to take, and is therefore not sent again. Each process learns for itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

# More models are not remembered; the one that was learned first is forgotten.
MAX_MODELS = 10_000


@dataclass(frozen=True, slots=True)
class Habits:
    """How one model is to be asked."""

    tokens_field: str = "max_tokens"
    takes_stream_options: bool = True

    def apply(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Return the request as this model takes it."""
        if self is USUAL:
            return payload
        payload = dict(payload)
        payload[self.tokens_field] = payload.pop("max_tokens")
        if not self.takes_stream_options:
            payload.pop("stream_options", None)
        return payload

    def learn(self, status: int, refusal: bytes, payload: dict[str, Any]) -> Habits | None:
        """Return other habits, if a refusal names what they would leave out or spell otherwise; None otherwise."""
        if status not in (400, 422):
            return None
        if "stream_options" in payload and self.takes_stream_options and b"stream_options" in refusal:
            return replace(self, takes_stream_options=False)
        if b"max_completion_tokens" in refusal:
            other = "max_completion_tokens" if self.tokens_field == "max_tokens" else "max_tokens"
            return replace(self, tokens_field=other)
        return None


USUAL = Habits()
_known: dict[tuple[str, str], Habits] = {}


def habits_of(base_url: str, model: str, usual: Habits = USUAL) -> Habits:
    """Return what was learned of a model, or else `usual`."""
    return _known.get((base_url, model), usual)


def remember(base_url: str, model: str, habits: Habits) -> None:
    while len(_known) >= MAX_MODELS:
        _known.pop(next(iter(_known)))
    _known[base_url, model] = habits
