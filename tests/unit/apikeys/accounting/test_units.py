import pytest

from apikeys.accounting.units import cost_micropoints


@pytest.mark.parametrize(
    ("tokens", "prices", "cost"),
    [
        ((0, 0), (1_000_000, 1_000_000), 0),
        ((7, 9), (0, 0), 0),
        ((1_000, 0), (5, 7), 5),
        ((0, 1_000), (5, 7), 7),
        # Both are added before the sum is rounded up, once.
        ((1, 1), (1, 1), 1),
        ((3, 4), (500, 1_000), 6),
        ((2**31, 2**31), (10**12, 10**12), 2 * 2**31 * 10**9),
    ],
)
def test_cost_is_rounded_up_once(tokens: tuple[int, int], prices: tuple[int, int], cost: int) -> None:
    assert cost_micropoints(*tokens, *prices) == cost
