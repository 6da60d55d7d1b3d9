"""The client for sites that others chose. What links make of it is in tests/unit/datasets/imports/test_links.py."""

import asyncio
import json
import subprocess
import sys
from typing import Any

import aiohttp
import pytest

from apikeys.outbound import sites
from apikeys.outbound.addresses import OUTBOUND, AddressRefused, allowed_networks
from apikeys.outbound.failures import SiteFailed
from tests.environment import PROJECT
from tests.support.fake_provider import FakeProvider


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


def call(provider: FakeProvider, connector_failures: int, model: str) -> tuple[int, int | str]:
    """Return the number of attempts to connect, and the status of the response or what failed."""

    async def post() -> tuple[int, int | str]:
        connector = FailingConnector(connector_failures)
        async with aiohttp.ClientSession(connector=connector) as session:
            sites._sessions[asyncio.get_running_loop(), OUTBOUND] = session
            body = json.dumps({"model": model, "messages": [{"content": "x"}], "stream": False}).encode()
            try:
                response = await sites.post(
                    f"{provider.url}/chat/completions", body=body, headers={}, connect_seconds=2
                )
            except SiteFailed as error:
                return connector.attempts, str(error)
            response.close()
            await sites.close()
            return connector.attempts, response.status

    return asyncio.run(post())


def test_a_failed_connect_is_tried_once_more(provider: FakeProvider) -> None:
    assert call(provider, 1, "echo") == (2, 200)
    # The failure is shown to those who may set a webhook, and names no address.
    assert call(provider, 2, "echo") == (2, "ClientConnectorError")


def test_an_answer_is_never_asked_for_twice(provider: FakeProvider) -> None:
    before = len(provider.calls)
    assert call(provider, 0, "status_500") == (1, 500)
    assert len(provider.calls) == before + 1


def test_a_redirect_is_not_followed(provider: FakeProvider) -> None:
    assert call(provider, 0, "redirect") == (1, 307)


def test_a_private_address_is_refused(provider: FakeProvider, settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_NETWORKS = []
    allowed_networks.cache_clear()

    async def post() -> None:
        try:
            await sites.post(provider.url, body=b"", headers={}, connect_seconds=2)
        finally:
            await sites.close()

    with pytest.raises(AddressRefused):
        asyncio.run(post())


def test_a_server_process_does_not_load_it() -> None:
    program = "import sys, fastgpt_site.asgi; sys.exit('aiohttp' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=PROJECT, check=True, stderr=subprocess.DEVNULL)
