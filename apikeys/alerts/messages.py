"""Messages about alerts: their recipients and their words."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from django.utils import timezone
from django.utils.translation import gettext, ngettext, pgettext

from apikeys.accounting.periods import Measure, Period
from apikeys.alerts.models import Alert, AlertKind
from apikeys.terminal_text import width

# A webhook's receiver tells alerts apart by these.
TYPES = {
    AlertKind.BUDGET: "budget.threshold_reached",
    AlertKind.EXPIRY: "key.expires_soon",
    AlertKind.REUSE: "secret.reused",
}


def recipients(alert: Alert) -> list[str]:
    # Nobody who has left the team hears of it.
    members = alert.team.members.filter(is_active=True).exclude(email="")
    people = members.filter(is_staff=True) if alert.key is None else members.filter(pk=alert.key.owner_id)
    return sorted(set(people.values_list("email", flat=True)))


def headline(alert: Alert) -> str:
    if alert.key is None:
        who = gettext('Team "%(name)s"') % {"name": alert.team.name}
    else:
        who = gettext('Key "%(name)s"') % {"name": alert.key.name}
    details = alert.details
    match alert.kind:
        case AlertKind.BUDGET:
            sentence = gettext("%(who)s has used %(share)s %(period)s") % {
                "who": who,
                "share": _share(details),
                "period": _per(details),
            }
        case AlertKind.EXPIRY:
            days = details["days"]
            template = ngettext("%(who)s expires within %(days)s day", "%(who)s expires within %(days)s days", days)
            sentence = template % {"who": who, "days": days}
        case _:
            sentence = gettext("%(who)s: a secret was used after it expired") % {"who": who}
    # Names may hold line breaks, which no header can.
    return " ".join(sentence.split())


def text(alert: Alert) -> str:
    details = alert.details
    about = [(gettext("Team"), alert.team.name)]
    if alert.key is not None:
        about.append((gettext("Key"), f"{alert.key.name} (******{alert.key.last_four}, id {alert.key.pk})"))
    match alert.kind:
        case AlertKind.BUDGET:
            about.append((gettext("Limit"), f"{amount(details['measure'], details['amount'])} {_per(details)}"))
            about.append((gettext("Used"), amount(details["measure"], details["used"])))
            if details["period"] != Period.TOTAL:
                about.append((gettext("Since"), moment(details["period_start"], details["time_zone"])))
            advice = (
                gettext("Requests that would exceed the limit are refused.")
                if details.get("percent") == 100
                else gettext("Nothing is refused until the limit is used up.")
            )
        case AlertKind.EXPIRY:
            about.append((gettext("Expires"), moment(details["expires_at"])))
            advice = gettext("After that its calls are refused. Set a later expiry, or replace the key.")
        case _:
            about.append((gettext("Secret"), f"******{details['last_four']}"))
            about.append((pgettext("secret", "Expired"), moment(details["ended_at"])))
            about.append((gettext("Used from"), str(details["client_address"])))
            advice = gettext(
                "The call was refused. Either a client still uses the old secret, or it is in the wrong hands."
            )
    # Chinese characters are two columns wide.
    labels = [(gettext("%(label)s:") % {"label": label}, value) for label, value in about]
    lines = "\n".join(f"{label}{' ' * (11 - width(label))}{value}" for label, value in labels)
    return f"{headline(alert)}.\n\n{lines}\n\n{advice}\n"


def payload(alert: Alert) -> bytes:
    # Points are in millionths, as everywhere in the API.
    key = None
    if alert.key is not None:
        key = {"id": alert.key.pk, "name": alert.key.name, "last_four": alert.key.last_four}
    data = {"team": {"id": alert.team.pk, "name": alert.team.name}, "key": key, **alert.details}
    return msgspec.json.encode(
        {"type": TYPES[AlertKind(alert.kind)], "timestamp": alert.created_at.isoformat(), "data": data}
    )


def amount(measure: str, number: int) -> str:
    return f"{Measure(measure).text(number)} {Measure(measure).unit}"


def moment(when: str, time_zone: str = "") -> str:
    zone = ZoneInfo(time_zone) if time_zone else timezone.get_current_timezone()
    return datetime.fromisoformat(when).astimezone(zone).strftime("%Y-%m-%d %H:%M %Z")


def _share(details: dict[str, Any]) -> str:
    if "percent" in details:
        return gettext("%(percent)s%% of its %(amount)s") % {
            "percent": details["percent"],
            "amount": amount(details["measure"], details["amount"]),
        }
    return gettext("its soft amount of %(amount)s") % {"amount": amount(details["measure"], details["soft_amount"])}


def _per(details: dict[str, Any]) -> str:
    return str(Period(details["period"]).label)
