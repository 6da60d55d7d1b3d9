"""`manage.py usage`."""

import csv
import json
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management.base import CommandError
from django.utils import timezone

from apikeys.accounting.ledger import Outcome, UsageRecord
from apikeys.keys.models import ApiKey
from apikeys.object_ids import new_object_id
from apikeys.teams import Team
from tests.support import factories
from tests.support.commands import call


def record(api_key: ApiKey, **fields: Any) -> UsageRecord:
    values = {"id": new_object_id(), "team": api_key.team, "key": api_key, "endpoint": "chat.completions"}
    return UsageRecord.objects.create(
        **{**values, "status": 200, "duration_ms": 1, "outcome": Outcome.COMPLETE, "model": "m", **fields}
    )


@pytest.fixture
def team() -> Team:
    """One key with two models, another with a request that failed the day before."""
    team = factories.make_team()
    one, two = factories.make_key(team, name="one")[0], factories.make_key(team, name="two")[0]
    record(one, prompt_tokens=10, completion_tokens=5, cost_micropoints=1_500_000)
    record(one, prompt_tokens=1, completion_tokens=2, cost_micropoints=500_000)
    record(one, prompt_tokens=100, model="other")
    record(two, outcome=Outcome.FAILED, created_at=timezone.now() - timedelta(days=1))
    return team


def report(team: Team, *arguments: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(call("usage", "--team", team.pk, "--json", *arguments)[0])
    return rows


def test_it_works(team: Team) -> None:
    rows = report(team)
    assert [(row["key"], row["model"], row["requests"]) for row in rows] == [
        ("one", "m", 2),
        ("one", "other", 1),
        ("two", "m", 1),
    ]
    assert (rows[0]["prompt_tokens"], rows[0]["completion_tokens"], rows[0]["micropoints"]) == (11, 7, 2_000_000)
    assert [row["failed"] for row in rows] == [0, 0, 1]


def test_by_day(team: Team) -> None:
    rows = report(team, "--by", "day")
    today = timezone.now().date()
    assert [(row["day"], row["requests"]) for row in rows] == [
        ((today - timedelta(days=1)).isoformat(), 1),
        (today.isoformat(), 3),
    ]


@pytest.mark.parametrize("group", ["team", "key", "app", "model", "endpoint", "day"])
def test_the_sum_is_the_same_however_it_is_cut(team: Team, group: str) -> None:
    rows = report(team, "--by", group)
    assert sum(row["requests"] for row in rows) == 4
    assert sum(row["prompt_tokens"] for row in rows) == 111


def test_since_and_until(team: Team) -> None:
    today = timezone.now().date().isoformat()
    assert sum(row["requests"] for row in report(team, "--since", today)) == 3
    assert sum(row["requests"] for row in report(team, "--until", today)) == 1


def test_csv(team: Team) -> None:
    out, _ = call("usage", "--team", team.pk, "--csv", "--by", "model")
    assert [(row["model"], row["requests"]) for row in csv.DictReader(StringIO(out))] == [("m", "3"), ("other", "1")]


def test_table(team: Team) -> None:
    head, first, *_ = call("usage", "--team", team.pk)[0].splitlines()
    assert head.split() == ["KEY", "MODEL", "REQUESTS", "FAILED", "PROMPT", "TOKENS", "COMPLETION", "TOKENS", "POINTS"]
    assert first.split() == ["one", "m", "2", "0", "11", "7", "2"]


def test_nothing_was_used() -> None:
    team = factories.make_team()
    assert call("usage", "--team", team.pk)[0] == "Nothing was used.\n"
    assert report(team) == []
    header = call("usage", "--team", team.pk, "--csv", "--by", "model")[0]
    assert header.startswith("model,requests,")
    assert header.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--team", "nobody"], "There is no team"),
        (["--by", "weather"], "invalid choice"),
        (["--since", "soon"], "is not a date"),
        (["--json", "--csv"], "not allowed with"),
    ],
)
def test_mistakes(arguments: list[str], complaint: str) -> None:
    with pytest.raises(CommandError, match=complaint):
        call("usage", *arguments)
