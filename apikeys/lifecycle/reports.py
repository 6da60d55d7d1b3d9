"""Reports of keys, as data and as text for people. They contain no digest; a plaintext is not stored at all."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from django.db.models import Q
from django.utils import timezone

from apikeys.accounting.limits import Limit
from apikeys.keys.models import LISTS, RIGHTS, ApiKey, KeySecret
from apikeys.terminal_text import printable, width

COLUMNS = {
    "id": "ID",
    "name": "NAME",
    "kind": "KIND",
    "team": "TEAM",
    "app": "APP",
    "owner": "OWNER",
    "last_four": "LAST 4",
    "state": "STATE",
    "expires_at": "EXPIRES",
    "last_used_at": "LAST USED",
}
LABELS = {
    "id": "Key",
    "name": "Name",
    "kind": "Kind",
    "state": "State",
    "team": "Team",
    "team_id": "Team id",
    "app": "App",
    "app_id": "App id",
    "owner": "Owner",
    "note": "Note",
    "created_at": "Created",
    "expires_at": "Expires",
    "can_name_app": "May name an app",
    "allowed_networks": "Networks",
    "allowed_endpoints": "Endpoints",
    "allowed_models": "Models",
    "disabled_at": "Disabled",
    "revoked_at": "Revoked",
    "revoked_by": "Revoked by",
    "revoked_reason": "Reason",
    "revocation_acknowledged_at": "Acknowledged",
    "unacknowledged_servers": "Not acknowledged",
    "last_used_at": "Last used",
    "last_used_from": "Last used from",
}
# These are left out of the text while they are empty.
ONLY_WHEN_SET = {
    *("app", "app_id", "note", "disabled_at", "revoked_at", "revoked_by", "revoked_reason"),
    *("revocation_acknowledged_at", "unacknowledged_servers"),
}
EMPTY = {
    "expires_at": "never",
    "last_used_at": "never",
    **dict.fromkeys(LISTS, "all"),
}


def summary(api_key: ApiKey) -> dict[str, Any]:
    """Return one key of a list, without a query if it was read `with_state()`."""
    activity = getattr(api_key, "activity", None)
    why_unusable = api_key.why_unusable
    return {
        "id": api_key.pk,
        "name": api_key.name,
        "kind": api_key.kind.value,
        "team": api_key.team.name,
        "team_id": api_key.team_id,
        "app": api_key.app.name if api_key.app else None,
        "app_id": api_key.app_id,
        "owner": api_key.owner.get_username(),
        "last_four": api_key.last_four,
        "is_usable": why_unusable is None,
        "why_unusable": why_unusable,
        "expires_at": iso(api_key.expires_at),
        "last_used_at": iso(activity.last_used_at) if activity else None,
    }


def details(api_key: ApiKey) -> dict[str, Any]:
    activity = getattr(api_key, "activity", None)
    return summary(api_key) | {
        "note": api_key.note,
        "created_at": iso(api_key.created_at),
        **{name: getattr(api_key, name) for name in RIGHTS},
        "disabled_at": iso(api_key.disabled_at),
        "revoked_at": iso(api_key.revoked_at),
        "revoked_by": api_key.revoked_by,
        "revoked_reason": api_key.revoked_reason,
        "revocation_acknowledged_at": iso(api_key.revocation_acknowledged_at),
        "unacknowledged_servers": api_key.unacknowledged_servers,
        "limits": [limit_of(limit) for limit in limits_over(api_key)],
        "last_used_from": activity.last_used_from if activity else None,
        "secrets": [
            _secret(secret) for secret in api_key.secrets.defer("digest").select_related("reuse").order_by("pk")
        ],
    }


def limits_over(api_key: ApiKey) -> Iterable[Limit]:
    """Return the key's own limits and its team's, with their counters."""
    of_team = Limit.objects.for_team(api_key.team_id).filter(Q(key=None) | Q(key=api_key))
    limits: Iterable[Limit] = of_team.select_related("counter").order_by("pk")
    return limits


def limit_of(limit: Limit) -> dict[str, Any]:
    state = limit.state()
    return {
        "id": limit.pk,
        "scope": "team" if limit.key_id is None else "key",
        **state,
        "text": str(limit),
        "used_text": limit.amount_text(state["used"]),
        "left_text": limit.amount_text(state["left"]),
    }


def _secret(secret: KeySecret) -> dict[str, Any]:
    reuse = getattr(secret, "reuse", None)
    return {
        "last_four": secret.last_four,
        "pepper_id": secret.pepper_id,
        "created_at": iso(secret.created_at),
        "expires_at": iso(secret.expires_at),
        "is_live": secret.expires_at is None or secret.expires_at > timezone.now(),
        "is_imported": secret.is_imported,
        "reuse_count": reuse.count if reuse else 0,
    }


def sheet(facts: Mapping[str, Any]) -> str:
    facts = {**facts, "state": state(facts)}
    lines = [
        f"{label + ':':<17}{printable(value_text(name, facts[name]))}"
        for name, label in LABELS.items()
        if facts[name] or name not in ONLY_WHEN_SET
    ]
    lines.append("Limits:" if facts["limits"] else "Limits:          none")
    lines += [
        f"  {limit['scope']}: {limit['text']}; {limit['used_text']} used, {limit['left_text']} left"
        for limit in facts["limits"]
    ]
    lines.append("Secrets:")
    for secret in facts["secrets"]:
        origin = ", imported" if secret["is_imported"] else ""
        end, reuse = "", ""
        if secret["reuse_count"]:
            reuse = f", used {secret['reuse_count']} times after it expired"
        if secret["expires_at"]:
            end = f", {'expires' if secret['is_live'] else 'expired'} {local(secret['expires_at'])}"
        lines.append(
            f"  ******{secret['last_four']}  pepper {secret['pepper_id']}, "
            f"created {local(secret['created_at'])}{end}{origin}{reuse}"
        )
    return "\n".join(lines)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    cells = [list(COLUMNS.values())]
    cells += [
        [printable(value_text(name, row[name])) for name in COLUMNS]
        for row in ({**row, "state": state(row)} for row in rows)
    ]
    return columns(cells)


def columns(cells: Sequence[Sequence[str]]) -> str:
    widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell + " " * (wide - width(cell)) for cell, wide in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def state(facts: Mapping[str, Any]) -> str:
    return "usable" if facts["is_usable"] else str(facts["why_unusable"])


def value_text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        value = ", ".join(value)
    if not value:
        return EMPTY.get(name, "-")
    return local(value) if name.endswith("_at") else str(value)


def iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def local(moment: str) -> str:
    """Return an ISO time to the second, in the project's time zone."""
    return timezone.localtime(datetime.fromisoformat(moment)).isoformat(" ", "seconds")
