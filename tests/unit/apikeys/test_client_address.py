"""The client address of a request."""

import ipaddress

import pytest

from apikeys.client_address import client_address, is_in, parse_networks, trusted_proxies


@pytest.fixture(autouse=True)
def proxies(settings):
    settings.TRUSTED_PROXIES = ["10.0.0.0/8", "fd00::/8"]
    trusted_proxies.cache_clear()
    yield
    trusted_proxies.cache_clear()


def address(remote: str | None, forwarded_for: str = "") -> str | None:
    found = client_address(remote, forwarded_for)
    return None if found is None else str(found)


def test_it_works():
    assert address("203.0.113.7") == "203.0.113.7"
    assert address("10.0.0.1", "203.0.113.7") == "203.0.113.7"


def test_only_a_trusted_proxy_is_believed():
    assert address("203.0.113.7", "198.51.100.1") == "203.0.113.7"
    assert address("10.0.0.1", "192.0.2.66, 203.0.113.7, 10.0.0.2") == "203.0.113.7"


def test_what_a_client_claims_left_of_its_own_address_is_nothing():
    assert address("10.0.0.1", "127.0.0.1, 203.0.113.7") == "203.0.113.7"
    assert address("10.0.0.1", "10.0.0.3, 203.0.113.7") == "203.0.113.7"


def test_all_hops_are_proxies():
    assert address("10.0.0.1") == "10.0.0.1"
    assert address("10.0.0.1", "10.0.0.3, 10.0.0.2") == "10.0.0.3"


@pytest.mark.parametrize("wrong", ["unknown", "_hidden", "999.1.1.1", "1.2.3", "203.0.113.7 evil"])
def test_a_hop_that_is_no_address_makes_it_unknown(wrong):
    assert address("10.0.0.1", f"203.0.113.7, {wrong}") is None


@pytest.mark.parametrize("remote", [None, "", "unix:", "testserver"])
def test_no_address_at_all(remote):
    assert address(remote, "203.0.113.7") is None


def test_empty_hops_are_skipped():
    assert address("10.0.0.1", " , 203.0.113.7, ,") == "203.0.113.7"


@pytest.mark.parametrize(
    ("form", "plain"),
    [
        ("203.0.113.7:4711", "203.0.113.7"),
        (" 203.0.113.7 ", "203.0.113.7"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("[::ffff:203.0.113.7]:80", "203.0.113.7"),
    ],
)
def test_forms(form, plain):
    assert address(form) == plain
    assert address("10.0.0.1", form) == plain


def test_a_mapped_proxy_is_the_proxy():
    assert address("::ffff:10.0.0.1", "203.0.113.7") == "203.0.113.7"
    assert address("fd00::1", "203.0.113.7") == "203.0.113.7"


def test_networks_of_both_versions():
    networks = parse_networks(["203.0.113.0/24", "2001:db8::/32"])
    assert is_in(ipaddress.ip_address("203.0.113.7"), networks)
    assert is_in(ipaddress.ip_address("2001:db8::7"), networks)
    assert not is_in(ipaddress.ip_address("203.0.114.7"), networks)
    assert not is_in(ipaddress.ip_address("::1"), networks)
    assert not is_in(ipaddress.ip_address("::1"), [])
