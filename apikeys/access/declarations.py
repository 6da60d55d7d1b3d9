"""The words in which a view declares who may call it, and whose resources a call reaches."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from rest_framework.request import Request

from apikeys.access.policy import KeyPolicy, SiteRules
from apikeys.errors import InvalidParameter
from apikeys.keys.kinds import AccessKind
from apikeys.object_ids import is_object_id
from apikeys.teams import Team

APP = AccessKind.APP
GLOBAL = AccessKind.GLOBAL
GLOBAL_NAMING_APP = AccessKind.GLOBAL_NAMING_APP


class Public(Enum):
    """The type of PUBLIC."""

    PUBLIC = "public"


# As `staff_permission`: anybody may call, and no credential is looked at.
PUBLIC = Public.PUBLIC


@dataclass(frozen=True, slots=True)
class ApiCredential:
    """`request.auth` of a call with a key: its policy, the app that a suffix named, and the rules in force.

    `generation` is the listener's when they were looked up.
    """

    policy: KeyPolicy
    named_app_id: str | None
    rules: SiteRules
    generation: int


def team_id_of(request: Request) -> str:
    """The team whose resources this call reaches: the key's, or for staff the one in `teamId` or their only one.

    Raises InvalidParameter when staff leave it open, or name a team that they cannot see.
    """
    if isinstance(request.auth, ApiCredential):
        return request.auth.policy.team_id
    user: Any = request.user
    teams = Team.objects.for_user(user)
    named_id = request.query_params.get("teamId")
    if named_id is not None:
        teams = teams.filter(pk=named_id) if is_object_id(named_id) else teams.none()
    team_ids = list(teams.values_list("pk", flat=True)[:2])
    if len(team_ids) != 1:
        raise InvalidParameter(
            "Name the team in teamId." if named_id is None else "There is no such team.", param="teamId"
        )
    team_id: str = team_ids[0]
    return team_id
