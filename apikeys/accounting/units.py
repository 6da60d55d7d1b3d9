"""Points and their millionths, in which all costs are counted as integers."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, Inexact, localcontext

MICROPOINTS = 1_000_000


def cost_micropoints(
    prompt_tokens: int,
    completion_tokens: int,
    prompt_price: int,
    completion_price: int,
    details: Mapping[str, int] | None = None,
) -> int:
    """Return millionths of a point, rounded up. Prices are millionths of a point for 1,000 tokens.

    Of `details`, cached tokens are a part of the prompt's, and reasoning tokens of the completion's: each replaces the
    price of its part by its own, if it has one. An image's price is for one.
    """
    thousandfold = prompt_tokens * prompt_price + completion_tokens * completion_price
    if details:
        if "cached_price" in details:
            thousandfold += details["cached_tokens"] * (details["cached_price"] - prompt_price)
        if "reasoning_price" in details:
            thousandfold += details["reasoning_tokens"] * (details["reasoning_price"] - completion_price)
        thousandfold += 1000 * details.get("images", 0) * details.get("image_price", 0)
    return -(-thousandfold // 1000)


def points(micropoints: int) -> Decimal:
    return Decimal(micropoints) / MICROPOINTS


def points_text(micropoints: int) -> str:
    """Return millionths of a point as points that people read, such as "1,234.5"."""
    return decimal_text(points(micropoints))


def decimal_text(value: Decimal) -> str:
    """Return a number without an exponent and without trailing zeros, its thousands separated."""
    return f"{value.normalize():,f}"


def micropoints(points: Decimal) -> int:
    """Return how many millionths these points are. Raise ValueError when they are not whole millionths."""
    with localcontext() as context:
        # A number of more digits than the context has is rounded, which would pass for a whole one.
        context.traps[Inexact] = True
        try:
            exact = points * MICROPOINTS
        except ArithmeticError:
            exact = Decimal("NaN")
    return whole(exact)


def whole(amount: Decimal) -> int:
    if not amount.is_finite() or amount != amount.to_integral_value():
        raise ValueError("not a whole number")
    return int(amount)
