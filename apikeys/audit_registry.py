"""Registers the models whose changes the audit records, each with the team that an entry belongs to."""

from django.contrib.auth.models import Group, User

from apikeys.access.rules import EndpointRule
from apikeys.accounting.limits import Limit
from apikeys.alerts.webhooks import Webhook
from apikeys.audit import recording
from apikeys.keys.models import ApiKey, KeySecret
from apikeys.teams import Membership, Team


def register_models() -> None:
    recording.register(Team, lambda team: team.pk, exclude={"created_at"})
    recording.register(Membership, lambda membership: membership.team_id, exclude={"created_at"})
    # Servers acknowledge a revocation by themselves: that is nobody's change of the key.
    recording.register(
        ApiKey, lambda key: key.team_id, exclude={"created_at", "revocation_acknowledged_at", "unacknowledged_servers"}
    )
    recording.register(KeySecret, lambda secret: secret.key.team_id, exclude={"digest", "pepper_id", "created_at"})
    recording.register(EndpointRule, of_site, exclude={"changed_at"})
    recording.register(Limit, lambda limit: limit.team_id, exclude={"created_at"})
    # The webhook URLs of many services are secrets themselves.
    recording.register(
        Webhook,
        lambda webhook: webhook.team_id,
        masked={"url"},
        exclude={"encrypted_secret", "created_at", "last_success_at", "last_failure_at", "last_failure"},
    )
    recording.register(
        User,
        of_site,
        masked={"password"},
        exclude={"last_login", "date_joined"},
        m2m={"groups", "user_permissions"},
    )
    recording.register(Group, of_site, m2m={"permissions"})


def of_site(row: object) -> None:
    """Return no team, so that superusers alone see the entries."""
