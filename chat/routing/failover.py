"""Asks the routes of a model one after the other, until one answers."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec

from apikeys.errors import ApiError, RefusedByProvider, UpstreamError
from apikeys.outbound.error_answers import Failure
from chat.routing import choice, circuits
from chat.routing.entries import CatalogEntry, Route

Question = TypeVar("Question")
Answer = TypeVar("Answer")
# A route that was tried: `provider`, `model`, `ms`, and what its failure has, if it failed.
Attempt = dict[str, Any]


async def ask_routes(
    entry: CatalogEntry,
    question: Question,
    attempts: list[Attempt] | None,
    ask: Callable[[Route, Question], Awaitable[Answer]],
) -> tuple[Route, Answer]:
    """Return the answer of the first route that gives one. Raise the error of the last, or one that is the caller's.

    `attempts`, which is there where the model has several routes, is told of each that was tried.
    """
    routes: Sequence[Route] = entry.routes
    if not routes:
        error = UpstreamError("The model has no route in use.")
        error.failure = Failure("no route in use")
        raise error
    if attempts is None:
        return routes[0], await ask(routes[0], question)
    routes = choice.order(entry)
    choice.allow_request(entry)
    for route in routes:
        started = time.monotonic()
        circuits.begin(route.id)
        try:
            answer = await ask(route, question)
        except ApiError as error:
            attempts.append(describe(route, started, error))
            if is_the_caller_s(error):
                circuits.succeed(route.id)
                raise
            circuits.fail(route.id, str(error.failure))
            if route is routes[-1] or not choice.take_retry(entry):
                raise
        else:
            attempts.append(describe(route, started))
            return route, answer
    raise AssertionError("the last route has neither answered nor failed")


def is_the_caller_s(error: ApiError) -> bool:
    """Return whether another route would say the same. A provider may have no such model where another has it."""
    return isinstance(error, RefusedByProvider) and error.failure.status != 404


def describe(route: Route, started: float, error: ApiError | None = None) -> Attempt:
    failure = {} if error is None or error.failure is None else msgspec.to_builtins(error.failure)
    milliseconds = round((time.monotonic() - started) * 1000)
    return {"provider": route.provider, "model": route.model, "ms": milliseconds, **failure}
