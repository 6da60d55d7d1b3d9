"""`GET v1/key`: a key's holder learns about it."""

from collections.abc import Iterable
from typing import Any

from django.conf import settings
from rest_framework.request import Request
from rest_framework.response import Response

from apikeys.access.declarations import APP, GLOBAL, ApiCredential
from apikeys.access.endpoints import routes
from apikeys.access.policy import KeyPolicy, may_call
from apikeys.accounting.limits import Limit, limits_of
from apikeys.accounting.periods import Measure, Period
from apikeys.accounting.units import points
from apikeys.api.views import ApiView, success
from apikeys.keys.models import ApiKey


class KeySelfView(ApiView):
    """`GET v1/key` gives a key's holder its name, what it may call and when it ends."""

    endpoint = "key.self"
    api_key_access = frozenset({APP, GLOBAL})
    staff_permission = None
    is_metered = False

    def get(self, request: Request) -> Response:
        credential: ApiCredential = request.auth  # type: ignore[assignment]
        policy = credential.policy
        api_key = ApiKey.objects.for_team(policy.team_id).select_related("team", "app__model").get(pk=policy.key_id)
        limits = limits_of(policy.team_id, policy.key_id)
        callable_endpoints = {
            route.view.endpoint for route in routes() if may_call(policy, route.view, credential.rules.denied_kinds)
        }
        return success(
            {
                "id": policy.key_id,
                "name": policy.name,
                "lastFour": policy.last_four,
                "kind": policy.kind.value,
                "teamId": policy.team_id,
                "team": api_key.team.name,
                "appId": policy.app_id,
                "canNameApp": policy.can_name_app,
                "owner": policy.owner_name,
                "createdAt": api_key.created_at,
                "expiresAt": policy.expires_at,
                "secretExpiresAt": policy.secret_expires_at,
                "allowedNetworks": [str(network) for network in policy.allowed_networks],
                "allowedModels": sorted(policy.allowed_models),
                "models": api_key.model_names(),
                "allowedEndpoints": sorted(policy.allowed_endpoints),
                "endpoints": sorted(callable_endpoints),
                # In each server process, beside any limits.
                "maxOpenRequests": settings.MAX_OPEN_REQUESTS_PER_KEY,
                "limits": [limit_report(limit) for limit in limits],
                "limit": fastgpt_limit(policy, limits),
            }
        )


def fastgpt_limit(policy: KeyPolicy, limits: Iterable[Limit]) -> dict[str, Any]:
    """Return the two limits that FastGPT knows, in its words: the key's end, and its points in all (-1: no limit)."""
    amounts = [
        limit.amount
        for limit in limits
        if limit.key_id is not None and (limit.measure, limit.period) == (Measure.MICROPOINTS, Period.TOTAL)
    ]
    return {
        "expiredTime": policy.expires_at,
        "maxUsagePoints": float(points(min(amounts))) if amounts else -1,
    }


def limit_report(limit: Limit) -> dict[str, Any]:
    return {"id": limit.pk, "scope": "team" if limit.key_id is None else "key", **limit.state()}
