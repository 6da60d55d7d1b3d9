"""This machine, called from the tests' own process as if it lay elsewhere. Servers have settings of their own."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.test import override_settings

from apikeys.outbound.addresses import allowed_networks


@contextmanager
def loopback_allowed(setting: str = "OUTBOUND_ALLOWED_NETWORKS") -> Iterator[None]:
    with override_settings(**{setting: ["127.0.0.0/8"]}):
        allowed_networks.cache_clear()
        try:
            yield
        finally:
            allowed_networks.cache_clear()
