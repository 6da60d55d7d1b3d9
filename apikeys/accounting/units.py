"""Points and their millionths, in which all costs are counted as integers."""

from __future__ import annotations

MICROPOINTS = 1_000_000
