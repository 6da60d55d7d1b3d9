"""A model for clients: it asks for its tool, says what it was told, and answers in the form that was asked for."""

from __future__ import annotations

import itertools
import json
from typing import Any

from tests.api.test_completions_tolerance import DONE, END, REPORT, event, whole
from tests.support.fake_provider import Reply, last_text

ANSWER = ["It ", "rains ", "in Ulm."]
TEXT = "".join(ANSWER)
# What is asked to be answered for a minute, unless the caller leaves.
ENDLESS = "go on"
# What is asked to be answered with some words, and then an error.
BREAK_OFF = "break off"
# The question for which the context is too small, and what the provider says then.
TOO_LONG = "too long"
REFUSAL = {
    "error": {"message": "This model's maximum context length is 128 tokens.", "code": "context_length_exceeded"}
}
FAILURE = b'data: {"error": {"message": "out of memory"}}\n\n'
DIMENSIONS = 8
WEATHER = {"city": "Ulm", "rain": True}
names = (f"for_clients_{number}" for number in itertools.count())


def answer(body: dict[str, Any]) -> Reply:
    if "input" in body:
        return embed(body)
    if last_text(body) == TOO_LONG:
        return Reply(json.dumps(REFUSAL).encode(), status=400)
    if last_text(body) == BREAK_OFF:
        return Reply([event({"content": "It "}), FAILURE], "text/event-stream")
    if last_text(body) == ENDLESS:
        return Reply([event({"content": "x"})] * 3_000, "text/event-stream")
    if body["messages"][-1]["role"] == "tool":
        return say(body, [f"It says: {last_text(body)}"])
    if "response_format" in body:
        return say(body, [json.dumps(WEATHER)])
    if body.get("tools"):
        return call(body, body["tools"][0]["function"]["name"])
    return say(body, ANSWER)


def embed(body: dict[str, Any]) -> Reply:
    data = [{"index": index, "embedding": [1.0] * DIMENSIONS} for index in range(len(body["input"]))]
    return Reply(json.dumps({"data": data, "usage": {"prompt_tokens": len(data)}}).encode())


def say(body: dict[str, Any], pieces: list[str]) -> Reply:
    if not body["stream"]:
        return Reply(whole({"content": "".join(pieces)}))
    return Reply([*(event({"content": piece}) for piece in pieces), END + REPORT + DONE], "text/event-stream")


def call(body: dict[str, Any], name: str) -> Reply:
    """Call the tool; one that is not `weather` is the client's way to get an answer in a form."""
    arguments = json.dumps({"city": "Ulm"} if name == "weather" else WEATHER)
    begun = {"index": 0, "id": "c1", "type": "function", "function": {"name": name, "arguments": ""}}
    if not body["stream"]:
        begun["function"] = {"name": name, "arguments": arguments}
        return Reply(whole({"content": None, "tool_calls": [begun]}, "tool_calls"))
    pieces = [{"index": 0, "function": {"arguments": piece}} for piece in (arguments[:5], arguments[5:])]
    deltas = [event({"tool_calls": [piece]}) for piece in (begun, *pieces)]
    return Reply([*deltas, event({}, "tool_calls") + REPORT + DONE], "text/event-stream")
