"""Calls to servers in the test's own loop, on both of the loops that the project runs on."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import uvloop

from apikeys.outbound import client
from tests.support.loopback import loopback_allowed

Run = Callable[[Callable[[], Awaitable[Any]]], Any]


@pytest.fixture(autouse=True)
def loopback() -> Iterator[None]:
    with loopback_allowed():
        yield


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a test in a loop of its own, which must not complain of anything."""

    def run_in_loop(test: Callable[[], Awaitable[Any]]) -> Any:
        complaints: list[dict[str, Any]] = []

        async def main() -> Any:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
            try:
                return await asyncio.wait_for(test(), 30)
            finally:
                client_of_test = client.client_of_loop()
                await client.close()
                assert (client_of_test.open_count, client_of_test.idle_count) == (0, 0)

        with asyncio.Runner(loop_factory=request.param) as runner:
            answer = runner.run(main())
        assert complaints == []
        return answer

    return run_in_loop
