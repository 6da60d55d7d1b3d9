"""The index of all models, for Django alone. Other modules import each model from where it is defined."""

from apikeys.access.rules import EndpointRule
from apikeys.accounting.ledger import DailyUsage, KeyActivity, Refusal, SecretReuse, UsageRecord
from apikeys.accounting.limits import Counter, Limit
from apikeys.accounting.reconciliation import Reconciliation
from apikeys.accounting.reservations import Reservation
from apikeys.alerts.deliveries import Delivery
from apikeys.alerts.models import Alert
from apikeys.alerts.webhooks import Webhook
from apikeys.audit.models import AuditEntry
from apikeys.hot_path.servers import ServerProcess
from apikeys.keys.models import ApiKey, KeySecret
from apikeys.sign_in.throttle import SignInCount
from apikeys.statistics.leaders import Leader, Leaderboard
from apikeys.statistics.rollup import HourlyRefusals, HourlyTotal, HourlyUsage, LateHour, RollupWatermark
from apikeys.teams import Membership, Team

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
    "RollupWatermark",
    "SecretReuse",
    "ServerProcess",
    "SignInCount",
    "Team",
    "UsageRecord",
    "Webhook",
]
