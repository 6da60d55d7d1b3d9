"""Refusals are sampled: all at first, then ever fewer, each with a weight for those that it represents."""

from apikeys.accounting.refusals import KEPT_WHOLE, MAX_CALLERS, Sampler


def weights(sampler: Sampler, caller: str | None, count: int) -> list[int]:
    return [sampler.weigh(caller) for _ in range(count)]


def fresh() -> Sampler:
    sampler = Sampler()
    sampler.weigh("begins the minute")
    return sampler


def test_it_works() -> None:
    sampler = fresh()
    assert weights(sampler, "a", KEPT_WHOLE) == [1] * KEPT_WHOLE
    assert weights(sampler, "a", 10) == [0] * 9 + [10]


def test_they_stand_for_all() -> None:
    kept = weights(fresh(), "a", KEPT_WHOLE * 1000)
    assert sum(kept) == KEPT_WHOLE * 1000
    assert sum(1 for weight in kept if weight) < KEPT_WHOLE * 5


def test_one_caller_does_not_hide_another() -> None:
    sampler = fresh()
    weights(sampler, None, 10_000)
    assert sampler.weigh("a") == 1


def test_callers_are_bounded() -> None:
    sampler = fresh()
    for number in range(MAX_CALLERS * 2):
        sampler.weigh(str(number))
    assert len(sampler.seen) <= MAX_CALLERS + 1
