"""The hot path's snapshot of a catalog model: what it can do, its prices, and the routes that lead to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from apikeys.outbound.service import Service, service_sql
from chat.routing import circuits
from chat.routing.habits import USUAL, Habits


@dataclass(frozen=True, slots=True)
class Prices:
    """In millionths of a point, for 1,000 tokens or an image. None: charged like the rest of prompt or completion."""

    prompt: int = 0
    completion: int = 0
    cached_prompt: int | None = None
    reasoning: int | None = None
    image: int = 0


@dataclass(frozen=True, slots=True)
class Route:
    """One provider's model. Times in seconds."""

    id: int
    provider: str
    # The model's name, as the provider spells it.
    model: str
    priority: int
    weight: int
    service: Service
    first_byte_seconds: int = 60
    between_chunks_seconds: int = 60
    # How the model is asked as long as it has refused nothing.
    habits: Habits = USUAL


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One model of a team, as it was when it was read. Routes that are out of use are left out."""

    id: str
    name: str
    takes_tools: bool
    takes_images: bool
    takes_json_schema: bool
    is_archived: bool
    prices: Prices
    routes: tuple[Route, ...]
    # Whether there is anything that it does not take.
    is_restricted: bool

    @classmethod
    def of_route(cls, name: str, route: Route, prices: Prices) -> CatalogEntry:
        """Return the entry of a model that is in no catalog."""
        return cls("", name, True, True, True, False, prices, (route,), False)


# The columns of a CatalogEntry, from a row of the table of models that the statement calls `entry`.
ENTRY_SQL = f"""
    entry.id, entry.name, entry.takes_tools, entry.takes_images, entry.takes_json_schema,
    entry.archived_at IS NOT NULL AS is_archived, entry.prompt_price, entry.completion_price,
    entry.cached_prompt_price, entry.reasoning_price, entry.image_price,
    ARRAY(SELECT row_to_json(route) FROM (
        SELECT route.id, provider.name AS provider, route.upstream_name AS model, route.priority, route.weight,
            route.tokens_field, provider.first_byte_seconds, provider.between_chunks_seconds,
            {service_sql("provider")} AS service,
            extract(epoch FROM circuit.open_until - statement_timestamp()) AS open_seconds
        FROM chat_route AS route JOIN chat_provider AS provider ON provider.id = route.provider_id
        LEFT JOIN chat_circuit AS circuit ON circuit.route_id = route.id
        WHERE route.model_id = entry.id AND route.weight > 0
        ORDER BY route.priority, route.id
    ) AS route) AS routes
"""  # noqa: S608 - built from constants


def entry_of(columns: Mapping[str, Any]) -> CatalogEntry:
    """Return the entry of an object that ENTRY_SQL makes. It also takes note of which circuits are open."""
    names = ("id", "name", "takes_tools", "takes_images", "takes_json_schema", "is_archived")
    prices = Prices(
        columns["prompt_price"],
        columns["completion_price"],
        columns["cached_prompt_price"],
        columns["reasoning_price"],
        columns["image_price"],
    )
    routes = tuple(_route(**route) for route in columns["routes"])
    is_restricted = columns["is_archived"] or not all(columns[name] for name in names if name.startswith("takes_"))
    return CatalogEntry(
        **{name: columns[name] for name in names}, prices=prices, routes=routes, is_restricted=is_restricted
    )


def _route(*, service: Mapping[str, Any], tokens_field: str, open_seconds: float | None, **columns: Any) -> Route:
    if open_seconds is not None and open_seconds > 0:
        circuits.note(columns["id"], open_seconds)
    habits = Habits(tokens_field=tokens_field) if tokens_field not in ("", USUAL.tokens_field) else USUAL
    return Route(**columns, service=Service.of_json(service), habits=habits)
