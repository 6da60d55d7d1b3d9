"""How long requests at a limit took lately in this process: after so long, one of those under way is likely to end."""

import math
from collections.abc import Iterable

# Nothing is known of a limit before its first request has ended.
USUAL_SECONDS = 5.0
MAX_SECONDS = 60
# Each request moves the average by this share of its difference.
WEIGHT = 0.1
# More limits are not remembered; the one that was noted first is forgotten.
MAX_LIMITS = 10_000

_averages: dict[int, float] = {}


def note(limit_ids: Iterable[int], seconds: float) -> None:
    """Take the duration of a request that has ended. Must be called in the event loop."""
    for limit_id in limit_ids:
        average = _averages.get(limit_id)
        if average is None:
            while len(_averages) >= MAX_LIMITS:
                _averages.pop(next(iter(_averages)))
            average = seconds
        _averages[limit_id] = average + WEIGHT * (seconds - average)


def likely_seconds(limit_id: int) -> int:
    """Return what a request at this limit is likely to take, in whole seconds from 1 to MAX_SECONDS."""
    return min(max(1, math.ceil(_averages.get(limit_id, USUAL_SECONDS))), MAX_SECONDS)
