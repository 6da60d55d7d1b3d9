"""Why a request was charged what it was, or refused: the rule, the counters before and after, the arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from django.utils import timezone

from apikeys.command_line import printable
from apikeys.limits import MICROPOINTS, Measure, Period, Reservation
from apikeys.models import ApiKey, Team
from apikeys.usage import Ending, Refusal, TokenSource, UsageRecord

ENDINGS = {
    Ending.COMPLETE: "It was answered. Prompt and produced tokens are charged.",
    Ending.CANCELLED: "The caller left. The prompt and what was produced until then are charged.",
    Ending.CUT: "It was cut because its key was revoked or its app disabled. What was produced until then is charged.",
    Ending.FAILED: "It failed. What the provider had produced is charged; nothing, if it failed before its first byte.",
    Ending.LOST: "Its server process died. The prompt's bound is charged, and what it had reserved was given back.",
}
SOURCES = {
    TokenSource.PROVIDER: "as the provider reported them",
    TokenSource.BOUND: "our upper bound from the text, since the provider reported none",
    "": "this endpoint uses none",
}
# What an administrator or a caller can do about it, by error.code.
REFUSALS = {
    "missing_api_key": "Every call needs the header Authorization: Bearer <key>.",
    "malformed_api_key": "The header must be Authorization: Bearer <key>, once.",
    "invalid_api_key": "No key has this plaintext: it was mistyped, or never existed here.",
    "revoked_api_key": "The key was revoked, for good. Its holder needs a new one.",
    "rotated_api_key": "This secret ended by rotation. The key lives on under its new secret; whoever still uses the "
    "old one was not told, or should not have it.",
    "expired_api_key": "The key's expiry has passed. An administrator can set a later one.",
    "disabled_api_key": "The key, its owner or its team is disabled, or the owner has left the team.",
    "ip_not_allowed": "The key lists networks, and the caller's address lies in none of them.",
    "endpoint_not_allowed": "The endpoint takes no such key, a rule closed it, or the key's own list lacks it.",
    "wrong_key_kind": "The other kind of key would have worked: app keys talk to their app, global keys do the rest.",
    "model_not_allowed": "The key lists models, and the app's model is not among them.",
    "appUnExist": "The key's team has no such app, or it is archived.",
    "rate_limit_exceeded": "There was no room at that moment; a later try fits, as Retry-After said.",
    "insufficient_quota": "What is left of the budget is too little for this request until its period ends.",
    "https_required": "The site is reached over HTTPS only. A key that was sent without it should be rotated.",
}
OTHERWISE = "The request itself was wrong, as the message says. No limit was touched."


@dataclass(frozen=True, slots=True)
class Explanation:
    """One screen: sections of labeled lines for people, and the same facts as data for programs."""

    facts: dict[str, Any]
    sections: list[tuple[str, list[str]]] = field(default_factory=list)

    def text(self) -> str:
        return "\n\n".join("\n".join([title, *(f"  {line}" for line in lines)]) for title, lines in self.sections)


def explain(request_id: str) -> Explanation | None:
    """What is known of the request with this X-Request-Id; None when nothing is."""
    record = UsageRecord.objects.select_related("team", "key", "app").filter(pk=request_id).first()
    if record is not None:
        return explain_charge(record)
    refusal = Refusal.objects.select_related("team", "key").filter(pk=request_id).first()
    if refusal is not None:
        return explain_refusal(refusal)
    reservation = Reservation.objects.select_related("team", "key", "app").filter(pk=request_id).first()
    return None if reservation is None else explain_open(reservation)


def explain_charge(record: UsageRecord) -> Explanation:
    limits = record.limits or []
    facts = {
        "id": record.pk,
        "outcome": "charged",
        "ending": record.ending,
        "status": record.status,
        "at": record.created_at.isoformat(),
        "team_id": record.team_id,
        "key_id": record.key_id,
        "app_id": record.app_id,
        "endpoint": record.endpoint,
        "model": record.model,
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
        "token_source": record.token_source,
        "prompt_price": record.prompt_price,
        "completion_price": record.completion_price,
        "cost_micropoints": record.cost_micropoints,
        "limits": limits,
    }
    ttfb = record.time_to_first_byte_ms
    sections = [
        (
            f"Request {record.pk}: {Ending(record.ending).label}, charged {points(record.cost_micropoints)} points",
            [
                *who(record.created_at, record.team, record.key, record.client_address),
                f"what      {named(record.endpoint, record.app, record.model)}",
                f"answer    status {record.status} after {record.duration_ms:,} ms"
                + ("" if ttfb is None else f", first byte after {ttfb:,} ms"),
            ],
        ),
        ("Rule", [ENDINGS[Ending(record.ending)]]),
        (
            "Price",
            [
                f"tokens    {record.prompt_tokens:,} prompt + {record.completion_tokens:,} completion = "
                f"{record.prompt_tokens + record.completion_tokens:,}, {SOURCES[record.token_source]}",
                *price(record),
            ],
        ),
        ("Limits", [line for limit in limits for line in charge_at(limit)] or ["None applied."]),
    ]
    return Explanation(facts, sections)


def explain_refusal(refusal: Refusal) -> Explanation:
    limits = refusal.limits or []
    facts = {
        "id": refusal.pk,
        "outcome": "refused",
        "status": refusal.status,
        "code": refusal.code,
        "message": refusal.message,
        "at": refusal.created_at.isoformat(),
        "team_id": refusal.team_id,
        "key_id": refusal.key_id,
        "endpoint": refusal.endpoint,
        "asked": refusal.asked,
        "limits": limits,
        "refused_by": refusal.refused_by,
        "stands_for": refusal.stands_for,
    }
    kept = [] if refusal.stands_for == 1 else [f"kept      one of {refusal.stands_for} like it"]
    sections = [
        (
            f"Request {refusal.pk}: refused with {refusal.status} {refusal.code}, cost nothing",
            [
                *who(refusal.created_at, refusal.team, refusal.key, refusal.client_address),
                f"what      {refusal.endpoint or '-'}",
                f"message   {printable(refusal.message)}",
                *kept,
            ],
        ),
        ("Rule", [REFUSALS.get(refusal.code, OTHERWISE)]),
    ]
    if refusal.asked:
        sections.append(("Asked for", asked(refusal.asked)))
    if limits:
        sections.append(("Limits", [line for limit in limits for line in verdict_at(limit, refusal.refused_by)]))
    return Explanation(facts, sections)


def explain_open(reservation: Reservation) -> Explanation:
    limits = reservation.found or []
    facts = {
        "id": reservation.pk,
        "outcome": "open",
        "at": reservation.admitted_at.isoformat(),
        "team_id": reservation.team_id,
        "key_id": reservation.key_id,
        "app_id": reservation.app_id,
        "endpoint": reservation.endpoint,
        "model": reservation.model,
        "server_id": reservation.server_id,
        "limits": limits,
    }
    sections = [
        (
            f"Request {reservation.pk}: admitted, and not ended yet",
            [
                *who(reservation.admitted_at, reservation.team, reservation.key, None),
                f"what      {named(reservation.endpoint, reservation.app, reservation.model)}",
                f"server    process {reservation.server_id}",
            ],
        ),
        ("Rule", ["The most that it may use is reserved. When it ends, what it used is charged in its place."]),
        ("Limits", [line for limit in limits for line in found_at(limit)]),
    ]
    return Explanation(facts, sections)


def who(moment: datetime, team: Team | None, key: ApiKey | None, address: str | None) -> list[str]:
    caller = "no known key" if key is None else f"key {key.name!r} ({key.pk}), team {team.name if team else '-'!r}"
    return [
        f"when      {timezone.localtime(moment):%Y-%m-%d %H:%M:%S %Z}",
        printable(f"who       {caller}, from {address or 'an unknown address'}"),
    ]


def named(endpoint: str, app: Any, model: str) -> str:
    return printable(
        endpoint + (f", app {app.name!r} ({app.pk})" if app else "") + (f", model {model}" if model else "")
    )


def price(record: UsageRecord) -> list[str]:
    if not record.prompt_price and not record.completion_price:
        return ["price     this model has none"] if record.model else []
    prompt = Decimal(record.prompt_tokens * record.prompt_price) / 1000 / MICROPOINTS
    completion = Decimal(record.completion_tokens * record.completion_price) / 1000 / MICROPOINTS
    return [
        f"prompt    {record.prompt_tokens:,} x {points(record.prompt_price)} / 1,000 = {plain(prompt)}",
        f"answer    {record.completion_tokens:,} x {points(record.completion_price)} / 1,000 = {plain(completion)}",
        f"cost      {plain(prompt + completion)}, rounded up to a millionth: {points(record.cost_micropoints)} points",
    ]


def asked(most: dict[str, Any]) -> list[str]:
    """The most that a request may use, which is what its limits were asked for."""
    lines = ["requests  1"]
    if most["tokens"]:
        answer = most["tokens"] - most["prompt_tokens"]
        lines += [
            f"tokens    {most['prompt_tokens']:,} bound of the prompt + {answer:,} longest answer = {most['tokens']:,}",
            f"points    {most['prompt_tokens']:,} x {points(most['prompt_price'])} / 1,000 + {answer:,} x "
            f"{points(most['completion_price'])} / 1,000 = {points(most['micropoints'])}",
        ]
    return lines


def verdict_at(limit: dict[str, Any], refused_by: int | None) -> Iterator[str]:
    """One limit as the request found it, and whether there was room."""
    unit = limit["measure"]
    needed = limit["used"] + limit["reserved"] + limit["asked"]
    fits = needed <= limit["amount"]
    yield title(limit) + (" - this one refused" if limit["id"] == refused_by else "")
    yield (
        f"  {amount(unit, limit['used'])} used + {amount(unit, limit['reserved'])} reserved + "
        f"{amount(unit, limit['asked'])} asked = {amount(unit, needed)} {'<=' if fits else '>'} "
        f"{amount(unit, limit['amount'])}: {'fits' if fits else 'does not fit'}"
    )


def found_at(limit: dict[str, Any]) -> Iterator[str]:
    """As the request found it; nothing is known of that where it was made while the request ran."""
    if "used" in limit:
        yield from verdict_at(limit, None)
    else:
        yield title(limit)


def charge_at(limit: dict[str, Any]) -> Iterator[str]:
    unit = limit["measure"]
    yield from found_at(limit)
    if "charged" in limit:
        yield (
            f"  {amount(unit, limit['charged'])} charged in place of {amount(unit, limit.get('asked', 0))} reserved; "
            f"left with {amount(unit, limit['used_after'])} used, {amount(unit, limit['reserved_after'])} reserved"
        )
    else:
        yield "  removed before the request ended"


def title(limit: dict[str, Any]) -> str:
    measure, period = limit["measure"], limit["period"]
    unit = "points" if measure == Measure.MICROPOINTS else Measure(measure).label
    since = ""
    if period not in (Period.NOW, Period.TOTAL) and limit.get("since"):
        begun = datetime.fromisoformat(limit["since"]).astimezone(ZoneInfo(limit["time_zone"]))
        since = f", counted since {begun:%Y-%m-%d %H:%M %Z}"
    whose = "team" if limit["is_team"] else "key"
    return f"{whose}: {amount(measure, limit['amount'])} {unit} {Period(period).label} (limit {limit['id']}){since}"


def amount(measure: str, value: int) -> str:
    return points(value) if measure == Measure.MICROPOINTS else f"{value:,}"


def points(micropoints: int) -> str:
    return plain(Decimal(micropoints) / MICROPOINTS)


def plain(value: Decimal) -> str:
    """Without an exponent and without trailing zeros."""
    return f"{value.normalize():,f}"
