"""Plain numbers that are added to while a request runs, and how a metric takes them over."""

from bisect import bisect_left
from collections.abc import Sequence

from prometheus_client import Gauge, Histogram


class Observations:
    """Amounts counted by the buckets of a histogram, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        # The last one is of amounts above every bound.
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, amount: float) -> None:
        self.counts[bisect_left(self.bounds, amount)] += 1
        self.sum += amount


class SummedHistogram(Histogram):
    """A histogram that takes over many observations at once."""

    # prometheus_client has no call for it. A collector of our own would be no way out: what several processes count
    # goes through the library's files, which its own metrics alone write. So this reaches for two attributes of the
    # parent, and a test holds that the outcome is the one of `observe`.
    def take_over(self, observations: Observations) -> None:
        self._sum.inc(observations.sum)
        for bucket, count in zip(self._buckets, observations.counts, strict=True):
            if count:
                bucket.inc(count)


class InProgress:
    """A gauge of what is in progress in the event loop. It is a plain number between one writing and the next."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._count = 0

    def __enter__(self) -> None:
        self._count += 1

    def __exit__(self, *_: object) -> None:
        self._count -= 1

    def write(self) -> None:
        self._gauge.set(self._count)
