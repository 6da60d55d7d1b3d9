"""Runs a client's steps one after the other, and prints as JSON what it saw. It imports no client."""

import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

BASE_URL = os.environ["CLIENT_BASE_URL"]
KEY = os.environ["CLIENT_KEY"]
# It opens what the team owns, and talks to no app.
GLOBAL_KEY = os.environ["CLIENT_GLOBAL_KEY"]
BUSY_KEY = os.environ["CLIENT_BUSY_KEY"]
MODEL = "any"
EMBEDDING_MODEL = "wordllama-256"
# It makes vectors too, and takes tokens.
PROVIDER_MODEL = os.environ["CLIENT_PROVIDER_MODEL"]
QUESTION = "How is the weather in Ulm?"

Step = Callable[[], dict[str, Any]]


def weather(city: str) -> str:
    """Tell the weather in a city."""
    return f"Rain in {city}."


def run(ask: Callable[[str, str], str], streamed: Callable[[str], dict[str, Any]], *steps: Step) -> None:
    """`ask` asks once, with a key and a question, and returns the text; `streamed` takes the question of a stream.

    The other steps are named by their functions.
    """
    seen = {step.__name__: step() for step in steps}
    seen["streamed"] = streamed(QUESTION)
    seen["broken_off"] = _refusal(lambda: streamed("break off"))
    for name, key in json.loads(os.environ["CLIENT_REFUSED_KEYS"]).items():
        seen[name] = _refusal(partial(ask, key, QUESTION))
    seen["too_long"] = _refusal(lambda: ask(KEY, "too long"))
    began = time.monotonic()
    seen["busy"] = {"text": ask(BUSY_KEY, QUESTION), "seconds": time.monotonic() - began}
    json.dump(seen, sys.stdout)


def _refusal(step: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"no_error": step()}
    except Exception as error:  # noqa: BLE001 - each client has exceptions of its own
        status = getattr(error, "status_code", None)
        return {"error": type(error).__name__, "status": status, "message": str(error)}
