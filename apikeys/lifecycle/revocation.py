"""Revoking a key everywhere: refused by every server process before whoever asked for it is told that it is."""

from collections.abc import Sequence

from django.utils import timezone

from apikeys.hot_path import broadcasts
from apikeys.hot_path.broadcasts import Acknowledgements
from apikeys.keys.models import ApiKey


def broadcast_revocation(api_key: ApiKey, *, terminate_streams: bool) -> Acknowledgements:
    """Wait until every living process refuses the key, two seconds at most, and keep with a revoked key who did not.

    `terminate_streams` also ends what they are answering to it. The key's change must be committed.
    """
    return broadcast_revocations([api_key], terminate_streams=terminate_streams)


def broadcast_revocations(api_keys: Sequence[ApiKey], *, terminate_streams: bool) -> Acknowledgements:
    """Likewise of several keys in one call: revoked ones, or disabled ones, not both. At most some 200 fit."""
    key_ids = [api_key.pk for api_key in api_keys]
    is_revoked = all(api_key.revoked_at is not None for api_key in api_keys)
    acknowledgements = broadcasts.broadcast(terminated_keys=key_ids if terminate_streams else (), is_revoked=is_revoked)
    if is_revoked:
        ApiKey.objects.filter(pk__in=key_ids).update(
            revocation_acknowledged_at=None if acknowledgements.missing else timezone.now(),
            unacknowledged_servers=acknowledgements.missing_ids,
        )
    return acknowledgements
