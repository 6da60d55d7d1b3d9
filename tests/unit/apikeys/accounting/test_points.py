"""Points and their millionths: exact in both directions, and written without an exponent."""

from decimal import Decimal

import pytest

from apikeys.accounting.periods import Measure
from apikeys.accounting.units import decimal_text, micropoints, points, points_text

TEXTS = [
    (0, "0"),
    (1, "0.000001"),
    (1_500_000, "1.5"),
    (10_000_000, "10"),
    (1_234_567_000_000, "1,234,567"),
    (2**53, "9,007,199,254.740992"),
]


@pytest.mark.parametrize(("amount", "text"), TEXTS)
def test_points_and_back(amount, text):
    assert points_text(amount) == text
    assert points(amount) == Decimal(text.replace(",", ""))
    assert micropoints(points(amount)) == amount


def test_a_price_has_more_decimals_than_a_point():
    assert decimal_text(points(7) / 1000) == "0.000000007"
    assert decimal_text(Decimal("1.500")) == "1.5"
    assert decimal_text(Decimal("1E+3")) == "1,000"


@pytest.mark.parametrize(
    "text", ["0.0000001", "1.0000000000000000000000000000001", "NaN", "sNaN", "Infinity", "1E+999999", "1E-999999"]
)
def test_parts_of_a_millionth_are_refused(text):
    with pytest.raises(ValueError, match="whole"):
        micropoints(Decimal(text))


def test_measures_know_their_unit():
    assert (Measure.MICROPOINTS.unit, Measure.TOKENS.unit) == ("points", "tokens")
    assert (Measure.MICROPOINTS.to_unit(1_500_000), Measure.TOKENS.to_unit(1_500)) == (Decimal("1.5"), 1_500)
    assert (Measure.MICROPOINTS.text(1_500_000), Measure.TOKENS.text(1_500)) == ("1.5", "1,500")
    assert (Measure.MICROPOINTS.from_unit(Decimal("1.5")), Measure.TOKENS.from_unit(Decimal(3))) == (1_500_000, 3)


@pytest.mark.parametrize("amount", ["0.5", "NaN", "Infinity"])
def test_other_measures_are_counted_whole(amount):
    with pytest.raises(ValueError, match="whole"):
        Measure.TOKENS.from_unit(Decimal(amount))
