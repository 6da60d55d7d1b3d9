"""All models of this app, for Django, which looks for them here. Everybody else imports them from where they are."""

from apikeys.accounting.ledger import DailyUsage, KeyActivity, Refusal, SecretReuse, UsageRecord
from apikeys.accounting.limits import Counter, Limit, Reservation, ServerProcess
from apikeys.accounting.reconciliation import Reconciliation
from apikeys.alerts.deliveries import Delivery
from apikeys.alerts.models import Alert
from apikeys.alerts.webhooks import Webhook
from apikeys.audit.recording import AuditEntry
from apikeys.keys.models import ApiKey, EndpointRule, KeySecret, Membership, Team
from apikeys.sign_in.throttle import SignInCount
from apikeys.statistics.leaders import Leader, Leaderboard
from apikeys.statistics.rollup import HourlyRefusals, HourlyTotal, HourlyUsage, LateHour, RolledUp

__all__ = [
    "Alert",
    "ApiKey",
    "AuditEntry",
    "Counter",
    "DailyUsage",
    "Delivery",
    "EndpointRule",
    "HourlyRefusals",
    "HourlyTotal",
    "HourlyUsage",
    "KeyActivity",
    "KeySecret",
    "LateHour",
    "Leader",
    "Leaderboard",
    "Limit",
    "Membership",
    "Reconciliation",
    "Refusal",
    "Reservation",
    "RolledUp",
    "SecretReuse",
    "ServerProcess",
    "SignInCount",
    "Team",
    "UsageRecord",
    "Webhook",
]
