"""Explanations of charges and refusals: the rule, the counters before and after, the arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from apikeys.accounting.ledger import Outcome, Refusal, TokenSource, UsageRecord
from apikeys.accounting.periods import Measure, Period
from apikeys.accounting.reservations import Reservation
from apikeys.accounting.units import cost_micropoints, decimal_text, points, points_text
from apikeys.errors import ApiError
from apikeys.keys.models import ApiKey
from apikeys.teams import Team
from apikeys.terminal_text import printable, width

OUTCOMES = {
    Outcome.COMPLETE: gettext_lazy("It was answered. Prompt and produced tokens are charged."),
    Outcome.CANCELLED: gettext_lazy("The caller left. The prompt and what was produced until then are charged."),
    Outcome.TERMINATED: gettext_lazy(
        "It was cut because its key was revoked or its app disabled. What was produced until then is charged."
    ),
    Outcome.FAILED: gettext_lazy(
        "It failed. What the provider had produced is charged; nothing, if it failed before its first byte."
    ),
    Outcome.LOST: gettext_lazy(
        "Its server process died. The prompt's bound is charged, and what it had reserved was given back."
    ),
}
SOURCES = {
    TokenSource.PROVIDER: gettext_lazy("as the provider reported them"),
    TokenSource.BOUND: gettext_lazy("our upper bound from the text, where the provider reported none of it"),
    "": gettext_lazy("this endpoint uses none"),
}
UNKNOWN_CODE = gettext_lazy("This version of the site does not use this code. The message says what was wrong.")


@dataclass(frozen=True, slots=True)
class Explanation:
    """One screen: sections of labeled lines for people, and the same facts as data for programs."""

    facts: dict[str, Any]
    sections: list[tuple[str, list[str]]] = field(default_factory=list)

    def text(self) -> str:
        return "\n\n".join("\n".join([title, *(f"  {line}" for line in lines)]) for title, lines in self.sections)


def explain(request_id: str) -> Explanation | None:
    record = UsageRecord.objects.select_related("team", "key", "app").filter(pk=request_id).first()
    if record is not None:
        return explain_charge(record)
    refusal = Refusal.objects.select_related("team", "key").filter(pk=request_id).first()
    if refusal is not None:
        return explain_refusal(refusal)
    reservation = Reservation.objects.select_related("team", "key", "app").filter(pk=request_id).first()
    return None if reservation is None else explain_open(reservation)


def explain_charge(record: UsageRecord) -> Explanation:
    limits = [with_charge(limit, record.charges or {}) for limit in record.limits or []]
    title = _("Request %(id)s: %(outcome)s, charged %(points)s points") % {
        "id": record.pk,
        "outcome": Outcome(record.outcome).label,
        "points": points_text(record.cost_micropoints),
    }
    request = [
        *caller_rows(record.created_at, record.team, record.key, record.client_address),
        row(_("what"), target_text(record.endpoint, record.app, record.model)),
        row(_("answer"), answer_text(record)),
        *provider_rows(record),
    ]
    sections = [
        (title, request),
        (_("Rule"), [str(OUTCOMES[Outcome(record.outcome)])]),
        (_("Price"), [row(_("tokens"), tokens_text(record)), *price_rows(record)]),
        (_("Limits"), [line for limit in limits for line in charge_lines(limit)] or [_("None applied.")]),
    ]
    return Explanation(charge_facts(record, limits), sections)


def charge_facts(record: UsageRecord, limits: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": record.pk,
        "state": "charged",
        "outcome": record.outcome,
        "status": record.status,
        "failure": record.failure,
        "attempts": record.attempts,
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
        "details": record.details,
        "cost_micropoints": record.cost_micropoints,
        "limits": limits,
    }


def answer_text(record: UsageRecord) -> str:
    answer = _("status %(status)s after %(ms)s ms") % {"status": record.status, "ms": f"{record.duration_ms:,}"}
    first = record.time_to_first_byte_ms
    return answer if first is None else answer + _(", first byte after %(ms)s ms") % {"ms": f"{first:,}"}


def tokens_text(record: UsageRecord) -> str:
    counts = {
        "prompt": f"{record.prompt_tokens:,}",
        "completion": f"{record.completion_tokens:,}",
        "all": f"{record.prompt_tokens + record.completion_tokens:,}",
        "source": SOURCES[record.token_source],
    }
    text = _("%(prompt)s prompt + %(completion)s completion = %(all)s, %(source)s") % counts
    return text + details_text(record.details or {})


def provider_rows(record: UsageRecord) -> list[str]:
    """Return what each route came to, where there were several, and otherwise what the provider said if it failed."""
    if not record.attempts:
        return [row(_("provider"), failure_text(record.failure))] if record.failure else []
    return [
        row(
            _("route %(number)s") % {"number": number},
            _("%(provider)s: %(model)s, %(outcome)s after %(ms)s ms")
            % {
                "provider": attempt["provider"],
                "model": attempt["model"],
                "outcome": failure_text(attempt) or _("answered"),
                "ms": f"{attempt['ms']:,}",
            },
        )
        for number, attempt in enumerate(record.attempts, 1)
    ]


def failure_text(failure: dict[str, Any]) -> str:
    """Return what a provider said when it failed, in one line."""
    parts = (failure.get(name) for name in ("what", "code", "message"))
    return printable(": ".join(part for part in parts if part))


def explain_refusal(refusal: Refusal) -> Explanation:
    limits = refusal.limits or []
    facts = {
        "id": refusal.pk,
        "state": "refused",
        "status": refusal.status,
        "code": refusal.code,
        "message": refusal.message,
        "at": refusal.created_at.isoformat(),
        "team_id": refusal.team_id,
        "key_id": refusal.key_id,
        "endpoint": refusal.endpoint,
        "requested": refusal.requested,
        "limits": limits,
        "refused_by": refusal.refused_by,
        "sample_weight": refusal.sample_weight,
    }
    kept = []
    if refusal.sample_weight > 1:
        kept = [row(_("kept"), _("one of %(count)s like it") % {"count": refusal.sample_weight})]
    sections = [
        (
            _("Request %(id)s: refused with %(status)s %(code)s, cost nothing")
            % {"id": refusal.pk, "status": refusal.status, "code": refusal.code},
            [
                *caller_rows(refusal.created_at, refusal.team, refusal.key, refusal.client_address),
                row(_("what"), refusal.endpoint or "-"),
                row(_("message"), printable(refusal.message)),
                *kept,
            ],
        ),
        (_("Rule"), [str(ApiError.explanations.get(refusal.code, UNKNOWN_CODE))]),
    ]
    if refusal.requested:
        sections.append((_("Requested"), request_lines(refusal.requested)))
    if limits:
        sections.append((_("Limits"), [line for limit in limits for line in decision_lines(limit, refusal.refused_by)]))
    return Explanation(facts, sections)


def explain_open(reservation: Reservation) -> Explanation:
    limits = reservation.limits_seen or []
    facts = {
        "id": reservation.pk,
        "state": "open",
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
            _("Request %(id)s: admitted, and not ended yet") % {"id": reservation.pk},
            [
                *caller_rows(reservation.admitted_at, reservation.team, reservation.key, None),
                row(_("what"), target_text(reservation.endpoint, reservation.app, reservation.model)),
                row(_("server"), _("process %(id)s") % {"id": reservation.server_id}),
            ],
        ),
        (_("Rule"), [_("The most that it may use is reserved. When it ends, what it used is charged in its place.")]),
        (_("Limits"), [line for limit in limits for line in limit_lines(limit)]),
    ]
    return Explanation(facts, sections)


def row(label: str, text: str) -> str:
    # Chinese characters take two columns.
    return label + " " * max(1, 10 - width(label)) + text


def caller_rows(moment: datetime, team: Team | None, key: ApiKey | None, address: str | None) -> list[str]:
    caller = _("no known key")
    if key is not None:
        caller = _("key %(key)s, team %(team)s") % {"key": f"{key.name!r} ({key.pk})", "team": f"{str(team or '-')!r}"}
    place = _(", from %(address)s") % {"address": address or _("an unknown address")}
    return [
        row(_("when"), f"{timezone.localtime(moment):%Y-%m-%d %H:%M:%S %Z}"),
        printable(row(_("who"), caller + place)),
    ]


def target_text(endpoint: str, app: Any, model: str) -> str:
    text = endpoint
    if app:
        text += _(", app %(app)s") % {"app": f"{app.name!r} ({app.pk})"}
    if model:
        text += _(", model %(model)s") % {"model": model}
    return printable(text)


def details_text(details: dict[str, int]) -> str:
    """Return which of the tokens were cached, and which reasoning."""
    cached, reasoning = details.get("cached_tokens"), details.get("reasoning_tokens")
    text = _(", %(count)s cached") % {"count": f"{cached:,}"} if cached else ""
    return text + (_(", %(count)s reasoning") % {"count": f"{reasoning:,}"} if reasoning else "")


def price_rows(record: UsageRecord) -> list[str]:
    if not any(price for _label, _amount, price, _per in price_parts(record)):
        return [row(_("price"), _("this model has none"))] if record.model else []
    parts = price_parts(record)
    exact = sum((points(amount * price) / per for _label, amount, price, per in parts), Decimal())
    rounded = _("%(exact)s, rounded up to a millionth: %(points)s points") % {
        "exact": decimal_text(exact),
        "points": points_text(record.cost_micropoints),
    }
    lines = []
    for label, amount, price, per in parts:
        divided = f" / {per:,}" if per > 1 else ""
        lines.append(
            row(label, f"{amount:,} x {points_text(price)}{divided} = {decimal_text(points(amount * price) / per)}")
        )
    return [*lines, row(_("cost"), rounded)]


def price_parts(record: UsageRecord) -> list[tuple[str, int, int, int]]:
    """Return (label, amount, price, for how many) of all that a request is charged for."""
    details = record.details or {}
    cached = details.get("cached_tokens", 0) if "cached_price" in details else 0
    reasoning = details.get("reasoning_tokens", 0) if "reasoning_price" in details else 0
    parts = [
        (_("prompt"), record.prompt_tokens - cached, record.prompt_price, 1000),
        (_("cached"), cached, details.get("cached_price", 0), 1000),
        (_("answer"), record.completion_tokens - reasoning, record.completion_price, 1000),
        (_("reasoning"), reasoning, details.get("reasoning_price", 0), 1000),
        (_("images"), details.get("images", 0), details.get("image_price", 0), 1),
    ]
    always = (parts[0][0], parts[2][0])
    return [part for part in parts if part[1] or part[0] in always]


def request_lines(most: dict[str, Any]) -> list[str]:
    lines = [row(_("requests"), "1")]
    if most["tokens"]:
        answer = most["tokens"] - most["prompt_tokens"]
        tokens = _("%(prompt)s bound of the prompt + %(answer)s longest answer = %(all)s") % {
            "prompt": f"{most['prompt_tokens']:,}",
            "answer": f"{answer:,}",
            "all": f"{most['tokens']:,}",
        }
        lines += [row(_("tokens"), tokens), row(_("points"), request_points(most, answer))]
    return lines


def request_points(most: dict[str, Any], answer: int) -> str:
    prompt_tokens, prompt_price, completion_price = (
        most["prompt_tokens"],
        most["prompt_price"],
        most["completion_price"],
    )
    of_tokens = cost_micropoints(prompt_tokens, answer, prompt_price, completion_price)
    of_images = most["micropoints"] - of_tokens
    images = _(" + %(points)s for images") % {"points": points_text(of_images)} if of_images else ""
    return (
        f"{prompt_tokens:,} x {points_text(prompt_price)} / 1,000 + {answer:,} x {points_text(completion_price)} "
        f"/ 1,000{images} = {points_text(most['micropoints'])}"
    )


def decision_lines(limit: dict[str, Any], refused_by: int | None) -> Iterator[str]:
    measure = Measure(limit["measure"])
    needed = limit["used"] + limit["reserved"] + limit["requested"]
    amounts = {
        "used": measure.text(limit["used"]),
        "reserved": measure.text(limit["reserved"]),
        "requested": measure.text(limit["requested"]),
        "needed": measure.text(needed),
        "amount": measure.text(limit["amount"]),
    }
    yield limit_title(limit) + (_(" - this one refused") if limit["id"] == refused_by else "")
    if needed <= limit["amount"]:
        sentence = _("%(used)s used + %(reserved)s reserved + %(requested)s requested = %(needed)s <= %(amount)s: fits")
    else:
        sentence = _(
            "%(used)s used + %(reserved)s reserved + %(requested)s requested = %(needed)s > %(amount)s: does not fit"
        )
    yield "  " + sentence % amounts


def limit_lines(limit: dict[str, Any]) -> Iterator[str]:
    # A limit that was made while the request ran has no state as the request found it.
    if "used" in limit:
        yield from decision_lines(limit, None)
    else:
        yield limit_title(limit)


def with_charge(limit: dict[str, Any], charges: dict[str, list[int]]) -> dict[str, Any]:
    charge = charges.get(str(limit["id"]))
    return (
        limit if charge is None else limit | dict(zip(("charged", "used_after", "reserved_after"), charge, strict=True))
    )


def charge_lines(limit: dict[str, Any]) -> Iterator[str]:
    measure = Measure(limit["measure"])
    yield from limit_lines(limit)
    if "charged" not in limit:
        yield "  " + _("removed before the request ended")
        return
    yield "  " + _(
        "%(charged)s charged in place of %(requested)s reserved; left with %(used)s used, %(reserved)s reserved"
    ) % {
        "charged": measure.text(limit["charged"]),
        "requested": measure.text(limit.get("requested", 0)),
        "used": measure.text(limit["used_after"]),
        "reserved": measure.text(limit["reserved_after"]),
    }


def limit_title(limit: dict[str, Any]) -> str:
    measure, period = Measure(limit["measure"]), limit["period"]
    since = ""
    if period not in (Period.NOW, Period.TOTAL) and limit.get("since"):
        begun = datetime.fromisoformat(limit["since"]).astimezone(ZoneInfo(limit["time_zone"]))
        since = _(", counted since %(time)s") % {"time": f"{begun:%Y-%m-%d %H:%M %Z}"}
    return (
        _("%(whose)s: %(amount)s %(unit)s %(period)s (limit %(id)s)")
        % {
            "whose": _("team") if limit["is_team"] else _("key"),
            "amount": measure.text(limit["amount"]),
            "unit": measure.unit,
            "period": Period(period).label,
            "id": limit["id"],
        }
        + since
    )
