"""The order in which a model's routes are tried, and how often a failed request may be tried again."""

from __future__ import annotations

import random

from chat.routing import circuits
from chat.routing.entries import CatalogEntry, Route

# So many routes are tried for one request.
MAX_ATTEMPTS = 3
# Each request allows a fifth of a retry, and so many can be saved up: a provider that fails for all gets a fifth more
# requests, not several times as many.
RETRIES_PER_REQUEST = 0.2
SAVED_RETRIES = 20.0
MAX_MODELS = 10_000
_budgets: dict[str, float] = {}


def order(entry: CatalogEntry) -> list[Route]:
    """Return the routes that one request may try: by priority, weighted among equals, open circuits last."""
    shuffled = sorted(entry.routes, key=_weighted)
    is_open = {route.id: circuits.is_open(route.id) for route in shuffled}
    return sorted(shuffled, key=lambda route: (is_open[route.id], route.priority))[:MAX_ATTEMPTS]


def _weighted(route: Route) -> float:
    # The smallest of exponentially distributed times is each one's with the probability of its share.
    return random.expovariate(route.weight)


def allow_request(entry: CatalogEntry) -> None:
    while len(_budgets) >= MAX_MODELS:
        _budgets.pop(next(iter(_budgets)))
    _budgets[entry.id] = min(_budgets.get(entry.id, SAVED_RETRIES) + RETRIES_PER_REQUEST, SAVED_RETRIES)


def take_retry(entry: CatalogEntry) -> bool:
    """Return whether the model's requests have a retry left, and take it."""
    left = _budgets.get(entry.id, SAVED_RETRIES)
    if left < 1:
        return False
    _budgets[entry.id] = left - 1
    return True
