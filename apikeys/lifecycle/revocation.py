"""Revocation of a key in every server process, before the person who asked for it gets an answer."""

from collections.abc import Sequence

from django.utils import timezone

from apikeys.hot_path import broadcasts
from apikeys.hot_path.broadcasts import Acknowledgements
from apikeys.keys.models import ApiKey


def broadcast_revocation(api_key: ApiKey, *, terminate_streams: bool) -> Acknowledgements:
    """Like `broadcast_revocations`, for one key."""
    return broadcast_revocations([api_key], terminate_streams=terminate_streams)


def broadcast_revocations(api_keys: Sequence[ApiKey], *, terminate_streams: bool) -> Acknowledgements:
    """Wait until every live process refuses the keys, two seconds at most; note with revoked keys which ones did not.

    `terminate_streams` also ends their running requests. The change must be committed, and the keys all be revoked or
    all be disabled. At most some 200 fit in one message.
    """
    key_ids = [api_key.pk for api_key in api_keys]
    is_revoked = all(api_key.revoked_at is not None for api_key in api_keys)
    acknowledgements = broadcasts.broadcast(terminated_keys=key_ids if terminate_streams else (), is_revoked=is_revoked)
    if is_revoked:
        ApiKey.objects.filter(pk__in=key_ids).update(
            revocation_acknowledged_at=None if acknowledgements.missing else timezone.now(),
            unacknowledged_servers=acknowledgements.missing_ids,
        )
    return acknowledgements
