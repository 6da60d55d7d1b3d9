"""What a refusal for limits says: what is allowed, what is left, what the request needs, and how long to wait."""

from __future__ import annotations

from typing import Any

import pytest

from apikeys.accounting import durations
from apikeys.accounting.admission import LimitState


def shortage(measure: str, period: str, amount: int, used: int = 0, reserved: int = 0, requested: int = 1) -> str:
    state: dict[str, Any] = {"measure": measure, "period": period, "amount": amount, "used": used}
    return LimitState(
        id=1, is_team=True, reserved=reserved, requested=requested, resets_in=None, **state
    ).describe_shortage("Your team")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            shortage("tokens", "minute", 100, 80, requested=60),
            "Your team may use 100 tokens a minute; 20 are left, and this request asks for up to 60.",
        ),
        (
            shortage("tokens", "day", 5_000, 3_999, 1_000, 60),
            "Your team may use 5,000 tokens a day; 1 is left, 1,000 are reserved by open requests, and this request"
            " asks for up to 60.",
        ),
        (
            shortage("micropoints", "month", 1_000_000, 999_995, 5, 16_503),
            "Your team may use 1 point a month; none are left, 0.000005 are reserved by open requests, and this request"
            " asks for up to 0.016503.",
        ),
        (shortage("requests", "total", 1, 1), "Your team may make 1 request in total; none are left."),
        (
            shortage("requests", "week", 2, 1, 1),
            "Your team may make 2 requests a week; none are left, and 1 is reserved by open requests.",
        ),
        (shortage("requests", "minute", 0), "Your team may make 0 requests a minute; none are left."),
        # The clock stepped back, or a limit was lowered.
        (shortage("requests", "day", 1, 5), "Your team may make 1 request a day; none are left."),
        (
            shortage("open", "now", 5, reserved=5),
            "Your team may have 5 requests open at the same time, and 5 are open.",
        ),
        (shortage("open", "now", 1, reserved=1), "Your team may have 1 request open at the same time, and 1 is open."),
        (shortage("open", "now", 0), "Your team may have 0 requests open at the same time, and none are open."),
    ],
)
def test_what_is_said(said: str, expected: str) -> None:
    assert said == expected


@pytest.fixture
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durations, "_averages", {})


@pytest.mark.usefixtures("nothing_known")
def test_what_requests_are_likely_to_take() -> None:
    assert durations.likely_seconds(1) == 5
    durations.note([1, 2], 20.0)
    assert (durations.likely_seconds(1), durations.likely_seconds(2), durations.likely_seconds(3)) == (20, 20, 5)
    durations.note([1], 10.0)
    assert durations.likely_seconds(1) == 19
    for _ in range(100):
        durations.note([1], 0.001)
        durations.note([2], 10_000.0)
    assert (durations.likely_seconds(1), durations.likely_seconds(2)) == (1, 60)


@pytest.mark.usefixtures("nothing_known")
def test_it_remembers_so_many_limits_and_no_more() -> None:
    durations.note(range(durations.MAX_LIMITS + 1), 20.0)
    assert (durations.likely_seconds(0), durations.likely_seconds(durations.MAX_LIMITS)) == (5, 20)
    assert len(durations._averages) == durations.MAX_LIMITS
