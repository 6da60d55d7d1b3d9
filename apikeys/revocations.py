"""Ending a key everywhere: refused by every server process before whoever asked for it is told that it is."""

from django.utils import timezone

from apikeys import servers
from apikeys.models import ApiKey
from apikeys.servers import Hearing


def tell_servers(api_key: ApiKey, *, cut_streams: bool) -> Hearing:
    """Wait until every living process refuses the key, two seconds at most, and keep with a revoked key who did not.

    `cut_streams` also ends what they are answering to it. The key's change must be committed.
    """
    is_revoked = api_key.revoked_at is not None
    hearing = servers.call(cut_key=api_key.pk if cut_streams else None, is_revoked=is_revoked)
    if is_revoked:
        ApiKey.objects.filter(pk=api_key.pk).update(
            revocation_heard_at=None if hearing.unheard else timezone.now(), revocation_unheard=hearing.unheard_ids
        )
    return hearing
