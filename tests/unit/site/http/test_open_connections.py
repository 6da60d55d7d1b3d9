"""How many connections a process takes, by what the system lets it have."""

import asyncio
import resource
from typing import cast

import pytest

from fastgpt_site.http.connection import Connection
from fastgpt_site.http.open_connections import RESERVED_DESCRIPTORS, OpenConnections

UNLIMITED = resource.RLIM_INFINITY


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch):
    """Stand in for the system's limit of open files, which a test cannot raise again once it is lowered."""
    held = {}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: held["limit"])
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limit: held.update(limit=limit))
    return held


@pytest.mark.parametrize(
    ("before", "most", "after"),
    [
        ((UNLIMITED, UNLIMITED), 1000, (UNLIMITED, UNLIMITED)),
        ((1024, UNLIMITED), 1000, (2000 + RESERVED_DESCRIPTORS, UNLIMITED)),
        ((1024, 500_000), 1000, (2000 + RESERVED_DESCRIPTORS, 500_000)),
        ((100_000, 500_000), 1000, (100_000, 500_000)),
        ((1024, 1512), 500, (1512, 1512)),
        ((256, 256), 0, (256, 256)),
    ],
)
def test_most(settings, limit, before: tuple[int, int], most: int, after: tuple[int, int]):
    settings.MAX_CONNECTIONS = 1000
    limit["limit"] = before
    assert OpenConnections().most == most
    assert limit["limit"] == after


def test_one_that_fails_takes_nobody_elses_time():
    """The fault is one that the connection does not have: that is what this is for."""

    async def run() -> tuple[list[str], bool]:
        connections = OpenConnections()
        loop = asyncio.get_running_loop()
        seen: list[str] = []
        for name in ("bad", "good"):
            connections.open.add(cast(Connection, Stand(name, seen)))
        connections._check_all(loop)
        is_going_on = connections._sweep is not None and connections._sweep.when() > loop.time()
        connections.open.clear()
        return sorted(seen), is_going_on

    assert asyncio.run(run()) == (["bad aborted", "good checked"], True)


class Stand:
    """A connection whose time is checked."""

    def __init__(self, name: str, seen: list[str]) -> None:
        self.name, self.seen = name, seen

    def check_deadlines(self, now: float) -> None:
        if self.name == "bad":
            raise RuntimeError
        self.seen.append(f"{self.name} checked")

    def abort(self) -> None:
        self.seen.append(f"{self.name} aborted")
