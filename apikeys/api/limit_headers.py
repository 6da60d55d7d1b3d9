"""Rate limit headers, as OpenAI's clients read them and as the IETF's draft spells them."""

from apikeys.accounting.admission import Decision, LimitState


def limit_headers(decision: Decision) -> list[tuple[bytes, bytes]]:
    headers: list[tuple[str, str]] = []

    def remaining(limit: LimitState) -> int:
        return limit.left(is_admitted=decision.refused_by is None)

    for measure in ("requests", "tokens"):
        minutes = [limit for limit in decision.limits if limit.measure == measure and limit.period == "minute"]
        if minutes:
            tightest = min(minutes, key=remaining)
            headers += [
                (f"x-ratelimit-limit-{measure}", str(tightest.amount)),
                (f"x-ratelimit-remaining-{measure}", str(remaining(tightest))),
                (f"x-ratelimit-reset-{measure}", f"{tightest.reset_seconds}s"),
            ]
    timed = [limit for limit in decision.limits if limit.resets_in is not None]
    if timed:
        headers += [
            ("ratelimit-policy", ", ".join(f'"{_name(limit)}";q={limit.amount}' for limit in timed)),
            (
                "ratelimit",
                ", ".join(f'"{_name(limit)}";r={remaining(limit)};t={limit.reset_seconds}' for limit in timed),
            ),
        ]
    return [(name.encode(), value.encode()) for name, value in headers]


def _name(limit: LimitState) -> str:
    return f"{'team' if limit.is_team else 'key'}-{limit.measure}-{limit.period}-{limit.id}"
