import asyncio
import ipaddress
import json
from typing import Any

import aiohttp
import pytest

from apikeys import outbound
from tests.support.fake_provider import FakeProvider

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
    outbound.allowed_networks.cache_clear()
    yield
    outbound.allowed_networks.cache_clear()


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_refused(settings: Any, address: str) -> None:
    settings.OUTBOUND_ALLOWED_NETWORKS = []
    assert not outbound.is_allowed(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111"])
def test_public_addresses_are_allowed(settings: Any, address: str) -> None:
    settings.OUTBOUND_ALLOWED_NETWORKS = []
    assert outbound.is_allowed(ipaddress.ip_address(address))


def test_a_named_network_is_allowed(settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_NETWORKS = ["127.0.0.0/8", "fd00::/8"]
    assert outbound.is_allowed(ipaddress.ip_address("127.0.0.1"))
    assert outbound.is_allowed(ipaddress.ip_address("::ffff:127.0.0.1"))
    assert outbound.is_allowed(ipaddress.ip_address("fd00::1"))
    assert not outbound.is_allowed(ipaddress.ip_address("10.0.0.1"))


class FailingConnector(aiohttp.TCPConnector):
    """A connector whose first connections fail."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures
        self.attempts = 0

    async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> Any:  # noqa: ASYNC109
        self.attempts += 1
        if self.attempts <= self.failures:
            raise aiohttp.ClientConnectorError(req.connection_key, ConnectionRefusedError())
        return await super()._create_connection(req, traces, timeout)


def call(provider: FakeProvider, connector_failures: int, model: str) -> tuple[int, int | None]:
    """Return the number of attempts to connect, and the status of the response or None."""

    async def post() -> tuple[int, int | None]:
        connector = FailingConnector(connector_failures)
        async with aiohttp.ClientSession(connector=connector) as session:
            outbound._sessions[asyncio.get_running_loop(), outbound.OUTBOUND] = session
            body = json.dumps({"model": model, "messages": [{"content": "x"}], "stream": False}).encode()
            try:
                response = await outbound.post(
                    f"{provider.url}/chat/completions", body=body, headers={}, connect_seconds=2
                )
            except aiohttp.ClientConnectorError:
                return connector.attempts, None
            response.close()
            await outbound.close()
            return connector.attempts, response.status

    return asyncio.run(post())


def test_a_failed_connect_is_tried_once_more(provider: FakeProvider) -> None:
    assert call(provider, 1, "echo") == (2, 200)
    assert call(provider, 2, "echo") == (2, None)


def test_an_answer_is_never_asked_for_twice(provider: FakeProvider) -> None:
    before = len(provider.calls)
    assert call(provider, 0, "status_500") == (1, 500)
    assert len(provider.calls) == before + 1


def test_a_redirect_is_not_followed(provider: FakeProvider) -> None:
    assert call(provider, 0, "redirect") == (1, 307)
