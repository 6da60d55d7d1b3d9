import ipaddress
from typing import Any

import pytest

from apikeys.outbound.addresses import allowed_networks, is_allowed

PRIVATE = [
    *("10.0.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1", "192.168.1.1", "100.64.0.1", "224.0.0.1"),
    *("0.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "240.0.0.1", "255.255.255.255"),
    *("192.0.0.192", "168.63.129.16", "::", "::1", "::127.0.0.1", "::10.0.0.1", "fe80::1", "fd00::1", "fec0::1"),
    *(
        "::ffff:10.0.0.1",
        "::ffff:0:7f00:1",
        "ff02::1",
        "2002:7f00:1::",
        "64:ff9b:1::a00:1",
        "64:ff9b::a00:1",
        "5f00::1",
        "3fff::1",
        "100::1",
        "100:0:0:1::1",
        "2001:db8::1",
        "2001:2::1",
    ),
]


@pytest.fixture(autouse=True)
def fresh_networks() -> Any:
    allowed_networks.cache_clear()
    yield
    allowed_networks.cache_clear()


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_refused(settings: Any, address: str) -> None:
    settings.OUTBOUND_ALLOWED_NETWORKS = []
    assert not is_allowed(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111"])
def test_public_addresses_are_allowed(settings: Any, address: str) -> None:
    settings.OUTBOUND_ALLOWED_NETWORKS = []
    assert is_allowed(ipaddress.ip_address(address))


def test_a_named_network_is_allowed(settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_NETWORKS = ["127.0.0.0/8", "fd00::/8"]
    assert is_allowed(ipaddress.ip_address("127.0.0.1"))
    assert is_allowed(ipaddress.ip_address("::ffff:127.0.0.1"))
    assert is_allowed(ipaddress.ip_address("fd00::1"))
    assert not is_allowed(ipaddress.ip_address("10.0.0.1"))
