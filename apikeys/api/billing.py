"""`dashboard/billing/...`: what a key may still spend, where clients of OpenAI's older API and of one-api look for it.

One point stands for one US dollar. Usage is in hundredths of it, as those clients expect.
"""

from rest_framework.request import Request
from rest_framework.response import Response

from apikeys.access.declarations import APP, GLOBAL, ApiCredential
from apikeys.access.policy import KeyPolicy
from apikeys.accounting.limits import Limit, limits_of
from apikeys.accounting.periods import Measure, Period
from apikeys.accounting.units import points
from apikeys.api.views import ApiView
from apikeys.statistics.sums import points_used

# one-api has it so for a key that may spend without end.
UNLIMITED = 100_000_000.0
# It has this for a key that does not expire.
NEVER = 0


class BillingSubscriptionView(ApiView):
    """`GET dashboard/billing/subscription`: the amount of the key's tightest budget, and when the key ends."""

    endpoint = "billing.subscription"
    api_key_access = frozenset({APP, GLOBAL})
    staff_permission = None
    is_metered = False

    def get(self, request: Request) -> Response:
        policy = policy_of(request)
        budget = tightest_budget(policy)
        amount = UNLIMITED if budget is None else float(points(budget.amount))
        return Response(
            {
                "object": "billing_subscription",
                "has_payment_method": True,
                "soft_limit_usd": amount,
                "hard_limit_usd": amount,
                "system_hard_limit_usd": amount,
                "access_until": end_of(policy),
            }
        )


class BillingUsageView(ApiView):
    """`GET dashboard/billing/usage`: what is used of that budget; without one, what the key has used in all."""

    endpoint = "billing.usage"
    api_key_access = frozenset({APP, GLOBAL})
    staff_permission = None
    is_metered = False

    def get(self, request: Request) -> Response:
        return Response({"object": "list", "total_usage": float(points(micropoints_used(policy_of(request))) * 100)})


def policy_of(request: Request) -> KeyPolicy:
    credential: ApiCredential = request.auth  # type: ignore[assignment]
    return credential.policy


def tightest_budget(policy: KeyPolicy) -> Limit | None:
    """Return the budget of points with the least left: the key's or its team's, since both apply."""
    limits = limits_of(policy.team_id, policy.key_id).filter(measure=Measure.MICROPOINTS)
    return min(limits.exclude(period=Period.MINUTE), key=lambda limit: (limit.left, limit.amount), default=None)


def micropoints_used(policy: KeyPolicy) -> int:
    budget = tightest_budget(policy)
    if budget is not None:
        return budget.current_usage().used
    return points_used([policy.key_id]).get(policy.key_id, 0)


def end_of(policy: KeyPolicy) -> int:
    """Return when the key or its secret ends, in seconds since 1970."""
    ends = [moment for moment in (policy.expires_at, policy.secret_expires_at) if moment is not None]
    return int(min(ends).timestamp()) if ends else NEVER
