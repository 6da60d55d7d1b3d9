"""How many connections a process takes, by what the system lets it have."""

import resource

import pytest

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
