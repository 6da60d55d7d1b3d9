"""Ending a key everywhere: refused by every server process before whoever asked for it is told that it is."""

from collections.abc import Sequence

from django.utils import timezone

from apikeys.hot_path import broadcasts
from apikeys.hot_path.broadcasts import Hearing
from apikeys.keys.models import ApiKey


def tell_servers(api_key: ApiKey, *, cut_streams: bool) -> Hearing:
    """Wait until every living process refuses the key, two seconds at most, and keep with a revoked key who did not.

    `cut_streams` also ends what they are answering to it. The key's change must be committed.
    """
    return tell_servers_of_all([api_key], cut_streams=cut_streams)


def tell_servers_of_all(api_keys: Sequence[ApiKey], *, cut_streams: bool) -> Hearing:
    """Likewise of several keys in one call: revoked ones, or disabled ones, not both. At most some 200 fit."""
    key_ids = [api_key.pk for api_key in api_keys]
    is_revoked = all(api_key.revoked_at is not None for api_key in api_keys)
    hearing = broadcasts.call(cut_keys=key_ids if cut_streams else (), is_revoked=is_revoked)
    if is_revoked:
        ApiKey.objects.filter(pk__in=key_ids).update(
            revocation_heard_at=None if hearing.unheard else timezone.now(), revocation_unheard=hearing.unheard_ids
        )
    return hearing
