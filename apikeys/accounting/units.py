"""Points and their millionths, in which all costs are counted as integers."""

from __future__ import annotations

MICROPOINTS = 1_000_000


def cost_micropoints(prompt_tokens: int, completion_tokens: int, prompt_price: int, completion_price: int) -> int:
    """Return millionths of a point, rounded up. Prices are millionths of a point for 1,000 tokens."""
    return -(-(prompt_tokens * prompt_price + completion_tokens * completion_price) // 1000)
