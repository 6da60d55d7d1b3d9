"""The plan of an import of keys, which is shown before it is applied."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from apikeys.access.endpoints import endpoint_names
from apikeys.audit import recording
from apikeys.keys.models import LISTS, ApiKey
from apikeys.lifecycle.import_file import CHANGEABLE, IDENTITY
from apikeys.lifecycle.least_privilege import widens
from apikeys.teams import Membership, Team


@dataclass(frozen=True, slots=True)
class Mistake:
    line: int
    column: str
    message: str


@dataclass(slots=True)
class PlannedKey:
    """A key as one line would make or change it."""

    line: int
    api_key: ApiKey
    is_new: bool
    changes: dict[str, tuple[str, str]] = field(default_factory=dict)
    widens: bool = False


@dataclass(slots=True)
class Plan:
    rows: list[PlannedKey] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)

    @property
    def new(self) -> list[PlannedKey]:
        return [row for row in self.rows if row.is_new]

    @property
    def changed(self) -> list[PlannedKey]:
        return [row for row in self.rows if not row.is_new and row.changes]

    @property
    def widens(self) -> bool:
        return any(row.widens for row in self.rows)

    @property
    def digest(self) -> str:
        """A digest of all that the plan would do. It shows whether the plan is still the one that was confirmed."""
        facts = [
            [row.line, None if row.is_new else row.api_key.pk, row.api_key.team_id, row.api_key.app_id, row.changes]
            for row in self.rows
        ]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class Planner:
    """Makes a plan of rows from what this user may see, in a constant number of queries."""

    def __init__(
        self,
        user: User,
        keys: QuerySet[Any],
        rows: list[tuple[int, dict[str, Any]]],
        *,
        may_add: bool,
        may_change: bool,
    ) -> None:
        self.rows, self.may_add, self.may_change = rows, may_add, may_change
        ids = {row["id"].strip() for _line, row in rows if isinstance(row.get("id"), str) and row["id"].strip()}
        self.keys = {key.pk: key for key in keys.filter(pk__in=ids).select_related("team", "app", "owner")}
        self.teams = self._by_name(list(Team.objects.for_user(user)))
        team_ids = {team.pk for team in self.teams.values()}
        names = {row["app"].strip() for _line, row in rows if isinstance(row.get("app"), str)}
        app_model: Any = ApiKey._meta.get_field("app").related_model
        apps = app_model.objects.for_user(user).filter(Q(pk__in=names) | Q(name__in=names), archived_at=None)
        self.apps: dict[tuple[str, str], list[Any]] = {}
        for app in apps:
            for name in {app.pk, app.name}:
                self.apps.setdefault((app.team_id, name), []).append(app)
        owners = {row["owner"].strip() for _line, row in rows if isinstance(row.get("owner"), str)}
        members = Membership.objects.filter(team__in=team_ids, user__username__in=owners).select_related("user")
        self.members = {(row.team_id, row.user.get_username()): row.user for row in members}
        self.endpoints = set(endpoint_names())
        self.seen: set[str] = set()

    @staticmethod
    def _by_name(teams: list[Team]) -> dict[str, Team]:
        return {name: team for team in teams for name in (team.name, team.pk)}

    def plan(self) -> Plan:
        plan = Plan()
        for line, row in self.rows:
            mistakes: list[Mistake] = []
            planned = self._plan_row(line, row, mistakes)
            if planned is not None and not mistakes:
                plan.rows.append(planned)
            plan.mistakes += mistakes
        return plan

    def _plan_row(self, line: int, row: Mapping[str, Any], mistakes: list[Mistake]) -> PlannedKey | None:
        def wrong(column: str, message: str) -> None:
            mistakes.append(Mistake(line, column, message))

        values = self._parse_row(row, wrong)
        if mistakes:
            return None
        key_id = values.pop("id", "")
        api_key = self.keys.get(key_id) if key_id else self._new(values, wrong)
        if key_id and (api_key is None or not self.may_change):
            wrong("id", _("There is no such key."))
        if api_key is None or mistakes:
            return None
        if key_id in self.seen:
            wrong("id", _("It appears in the file twice."))
        self.seen.update({key_id} - {""})
        if api_key.revoked_at:
            wrong("id", _("A revoked key cannot be changed."))
        self._check_identity(api_key, values, wrong)
        planned = PlannedKey(line, api_key, is_new=not key_id)
        self._set(planned, values, wrong)
        return planned

    def _parse_row(self, row: Mapping[str, Any], wrong: Any) -> dict[str, Any]:
        # Cells of CSV are all text; those of JSON may have other types.
        values: dict[str, Any] = {}
        for name in (*IDENTITY, *CHANGEABLE):
            if name not in row:
                continue
            value = row[name]
            try:
                values[name] = parse_value(name, value)
            except ValueError as error:
                wrong(name, str(error))
        return values

    def _new(self, values: dict[str, Any], wrong: Any) -> ApiKey | None:
        if not self.may_add:
            wrong("id", _("You may not create keys."))
            return None
        name = values.get("team")
        only = {team.pk: team for team in self.teams.values()}
        team = self.teams.get(name) if name else next(iter(only.values())) if len(only) == 1 else None
        if team is None:
            wrong("team", _("There is no such team.") if name else _("Name the team."))
            return None
        api_key = ApiKey(team=team)
        if values.get("app"):
            found = self.apps.get((team.pk, values["app"]), [])
            if len(found) != 1:
                wrong("app", _("More than one app has this name.") if found else _("There is no such app."))
                return None
            api_key.app = found[0]
        if not values.get("owner"):
            wrong("owner", _("Name the owner."))
        return api_key

    def _check_identity(self, api_key: ApiKey, values: dict[str, Any], wrong: Any) -> None:
        team, app = values.pop("team", ""), values.pop("app", None)
        if team and team not in (api_key.team.name, api_key.team_id):
            wrong("team", _("A key cannot change its team."))
        if app is not None and app not in ((api_key.app.name, api_key.app_id) if api_key.app else ("",)):
            wrong("app", _("A key cannot change its app."))

    def _set(self, planned: PlannedKey, values: dict[str, Any], wrong: Any) -> None:
        api_key = planned.api_key
        if "owner" in values:
            owner = self.members.get((api_key.team_id, values["owner"]))
            if owner is None and (planned.is_new or values["owner"] != api_key.owner.get_username()):
                wrong("owner", _("The owner must be a member of the team."))
            values["owner"] = owner or (None if planned.is_new else api_key.owner)
        unknown = set(values.get("allowed_endpoints", ())) - self.endpoints - set(api_key.allowed_endpoints)
        if unknown:
            wrong("allowed_endpoints", _("There is no endpoint %(names)s.") % {"names": ", ".join(sorted(unknown))})
        if api_key.app_id and values.get("can_name_app"):
            wrong("can_name_app", _("An app key talks to its own app; only a global key can name one."))
        unchanged = copy(api_key)
        for name, value in values.items():
            before = None if planned.is_new and name == "owner" else getattr(api_key, name)
            if before != value:
                planned.changes[name] = (value_text(before), value_text(value))
                setattr(api_key, name, value)
        if planned.is_new:
            decided = {"team": api_key.team, "app": api_key.app, "kind": api_key.kind.label}
            planned.changes |= {name: ("", value_text(value)) for name, value in decided.items()}
        try:
            # The rows that it refers to were looked up above.
            api_key.clean_fields(exclude={"id", "team", "app", "owner"})
        except ValidationError as error:
            for column, messages in error.message_dict.items():
                wrong(column, " ".join(messages))
        else:
            planned.widens = not planned.is_new and widens(unchanged, values)


def parse_value(name: str, value: Any) -> Any:
    """Return a cell as its column's type. Raise ValueError with a message for the person who sent it."""
    if name in LISTS:
        items = value.splitlines() if isinstance(value, str) else value
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            raise ValueError(_("It must be a list of strings."))
        return list(dict.fromkeys(item.strip() for item in items if item.strip()))
    if name == "can_name_app":
        known = {"true": True, "false": False, "": False}
        word = str(value).strip().lower() if isinstance(value, bool | str) else "?"
        if word not in known:
            raise ValueError(_("It must be true or false."))
        return known[word]
    if name == "expires_at":
        if value in (None, ""):
            return None
        try:
            moment = datetime.fromisoformat(value.strip())
        except (ValueError, AttributeError):
            raise ValueError(_("It must be a time such as 2030-12-31T18:00+00:00.")) from None
        return moment if moment.tzinfo else timezone.make_aware(moment)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(_("It must be text."))
    return value.strip()


def value_text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value)
    return "" if value is None else value.isoformat() if isinstance(value, datetime) else str(value)


def apply(plan: Plan) -> None:
    """Write the plan, in a transaction that holds the changed rows. New keys have no secret until rotated."""
    recording.create_all([row.api_key for row in plan.new])
    columns = sorted({name for row in plan.changed for name in row.changes})
    recording.update_all([row.api_key for row in plan.changed], columns)
