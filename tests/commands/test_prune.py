"""`manage.py prune`: detail goes, totals stay."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import date, timedelta

import pytest
from django.core.management.base import CommandError
from django.db import connection
from django.utils import timezone

from apikeys.accounting.ledger import DailyUsage, UsageRecord
from apikeys.accounting.limits import Counter, Limit
from apikeys.accounting.reconciliation import compare, fix, reconcile
from apikeys.accounting.rollup import RECORDS_PER_BATCH
from apikeys.hot_path.connections import Connection, connect
from apikeys.keys.models import ApiKey
from apikeys.retention import prune
from apikeys.teams import Team
from chat.models import App
from tests.conftest import Server
from tests.environment import PROJECT
from tests.support import factories
from tests.support.commands import call, manage, refusal, variables
from tests.support.conversations import make_app
from tests.support.fake_provider import FakeProvider
from tests.support.processes import ending, wait_for

DAYS = "40"
GROUPS = ["team", "key", "app", "model", "endpoint", "day"]
PAST = """
INSERT INTO apikeys_usagerecord (id, team_id, key_id, app_id, endpoint, model, prompt_tokens, completion_tokens,
    token_source, cost_micropoints, status, outcome, duration_ms, created_at)
SELECT substr(md5(%(key)s || random() || number), 1, 24), %(team)s, %(key)s,
    CASE WHEN number %% 3 = 0 THEN %(app)s END, (ARRAY['chat.completions', 'key.self'])[1 + number %% 2],
    (ARRAY['', 'm', 'n'])[1 + number %% 3], number %% 11, number %% 7, (ARRAY['', 'provider'])[1 + number %% 2],
    number %% 1001, 200, (ARRAY['complete', 'failed', 'lost', 'cancelled'])[1 + number %% 4], number %% 13,
    (%(day)s::date + number %% %(span)s) AT TIME ZONE 'UTC' + number %% 86400 * interval '1 s'
FROM generate_series(1, %(count)s) AS number
"""


def use(api_key: ApiKey, count: int, *, days_ago: int, span: int = 1) -> None:
    """Requests of the past: `count` over `span` days, of which the first was so long ago."""
    app = App.objects.filter(team=api_key.team).first() or factories.make_app(api_key.team)
    values = {"team": api_key.team_id, "key": api_key.pk, "app": app.pk, "count": count, "span": span}
    with connection.cursor() as cursor:
        cursor.execute(PAST, values | {"day": today() - timedelta(days=days_ago)})


def today() -> date:
    return timezone.now().date()


@pytest.fixture(scope="module", autouse=True)
def reconciled(database: None) -> None:
    """Other tests write to the ledger directly, past the counters of their limits."""
    fix(reconcile()[1])


@pytest.fixture
def team() -> Team:
    """Two keys with requests before and after the cut, and two budgets that count all of them."""
    team = factories.make_team()
    for _ in range(2):
        api_key, _plaintext = factories.make_key(team)
        use(api_key, 300, days_ago=60, span=60)
        add_limit(api_key, "tokens")
    Limit.objects.create(team=team, measure="requests", period="total", amount=10_000)
    return team


def add_limit(api_key: ApiKey, measure: str = "requests", period: str = "total") -> Limit:
    return Limit.objects.create(team=api_key.team, key=api_key, measure=measure, period=period, amount=10**9)


def reports(team: Team) -> dict[str, str]:
    """Return the site's reports of a team's use: by every grouping, and in every form."""
    forms = [[], ["--csv"], ["--json"]]
    every = [[f"--by={name}"] for name in GROUPS] + [[f"--by={name}" for name in GROUPS], []]
    asked = [[*groups, *form] for groups in every for form in forms]
    return {" ".join(arguments): call("usage", "--team", team.pk, *arguments)[0] for arguments in asked}


def requests(team: Team) -> int:
    """In the ledger: as usage records and in daily rows."""
    (row,) = json.loads(call("usage", "--team", team.pk, "--by", "team", "--json")[0])
    count: int = row["requests"]
    return count


def old(team: Team) -> int:
    """Usage records before the cut."""
    cut = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=int(DAYS))
    return UsageRecord.objects.filter(team=team, created_at__lt=cut).count()


def drifts() -> int:
    return len(reconcile()[1])


def start_prune() -> "subprocess.Popen[bytes]":
    command = [sys.executable, "manage.py", "prune", "--days", DAYS, "--json"]
    return subprocess.Popen(command, cwd=PROJECT, env=variables(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@contextmanager
def held_up(api_key: ApiKey, *, days_ago: int) -> Iterator[None]:
    """A prune that comes to this key's day waits, in the middle of a transaction that has deleted records."""
    with connect() as raw, raw.transaction(force_rollback=True):
        raw.execute(
            "INSERT INTO apikeys_dailyusage (day, team_id, key_id, endpoint, model, outcome, token_source, requests, "
            "prompt_tokens, completion_tokens, cost_micropoints, duration_ms) "
            "SELECT %s, %s, %s, endpoint, model, outcome, token_source, 0, 0, 0, 0, 0 "
            "FROM apikeys_usagerecord WHERE key_id = %s AND app_id IS NULL GROUP BY 4, 5, 6, 7",
            [today() - timedelta(days=days_ago), api_key.team_id, api_key.pk, api_key.pk],
        )
        yield


def waits(raw: Connection, what: str) -> bool:
    sql = "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ILIKE %s)"
    row = raw.execute(sql, [f"%{what}%"]).fetchone()
    return bool(row and row[0])


@pytest.fixture
def raw(database: None) -> Iterator[Connection]:
    with connect() as raw:
        yield raw


def test_it_works(team: Team) -> None:
    before, count, records = reports(team), old(team), UsageRecord.objects.filter(team=team).count()
    durations = sum(UsageRecord.objects.filter(team=team).values_list("duration_ms", flat=True))
    assert 0 < count < records
    assert drifts() == 0
    told = json.loads(call("prune", "--days", DAYS, "--json")[0])
    assert told["before"] == (today() - timedelta(days=int(DAYS))).isoformat()
    assert told["records"] >= count
    assert 0 < told["daily_rows"] <= told["records"]
    assert told["dry_run"] is False
    assert (old(team), UsageRecord.objects.filter(team=team).count()) == (0, records - count)
    assert reports(team) == before
    days = DailyUsage.objects.filter(team=team)
    assert sum(days.values_list("requests", flat=True)) == count
    assert durations == sum(UsageRecord.objects.filter(team=team).values_list("duration_ms", flat=True)) + sum(
        days.values_list("duration_ms", flat=True)
    )
    assert drifts() == 0
    for balance in compare():
        if balance.limit.team == team:
            assert balance.used_in_days > 0
            assert balance.used_in_records + balance.used_in_days == balance.used
    assert json.loads(call("prune", "--days", DAYS, "--json")[0])["records"] == 0


def test_what_comes_later_to_a_day_is_added_to_its_row() -> None:
    api_key, _ = factories.make_key()
    for _ in range(2):
        use(api_key, 12, days_ago=50)
        prune(int(DAYS))
    days = DailyUsage.objects.filter(key=api_key)
    assert days.count() == 12
    assert set(days.values_list("requests", flat=True)) == {2}


def test_more_than_one_batch() -> None:
    api_key, _ = factories.make_key()
    # All of a day at one moment each second, so that batches end between requests of the same moment.
    use(api_key, 2 * RECORDS_PER_BATCH + 10, days_ago=50)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE apikeys_usagerecord SET created_at = date_trunc('hour', created_at) WHERE key_id = %s", [api_key.pk]
        )
    before = reports(api_key.team)
    assert prune(int(DAYS)).records == 2 * RECORDS_PER_BATCH + 10
    assert reports(api_key.team) == before
    assert not UsageRecord.objects.filter(key=api_key).exists()


def test_words_for_people(team: Team) -> None:
    count = json.loads(call("prune", "--days", DAYS, "--dry-run", "--json")[0])["records"]
    assert f"Would roll {count:,} usage records before" in call("prune", "--days", DAYS, "--dry-run")[0]
    assert f"Rolled {count:,} usage records before" in call("prune", "--days", DAYS)[0]
    out = call("reconcile", "--all")[0]
    assert f"{team}, the whole team, 10,000 requests in total: usage records 400 + daily rows 200 = used 600" in out
    assert "Usage records + daily rows = counters: " in out


def test_a_dry_run_tells_what_would_be_done(team: Team) -> None:
    before, count = reports(team), old(team)
    told = json.loads(call("prune", "--days", DAYS, "--dry-run", "--json")[0])
    assert told["dry_run"] is True
    assert old(team) == count
    assert not DailyUsage.objects.filter(team=team).exists()
    assert json.loads(call("prune", "--days", DAYS, "--json")[0]) == told | {"dry_run": False}
    assert reports(team) == before


def test_killed_in_the_middle(raw: Connection) -> None:
    # Teams are taken in the order of their ids.
    done, halfway = sorted((factories.make_key()[0] for _ in range(2)), key=lambda api_key: api_key.team_id)
    for api_key in (done, halfway):
        use(api_key, 500, days_ago=50)
        add_limit(api_key)
    before = reports(done.team), reports(halfway.team)
    with held_up(halfway, days_ago=50), ending(start_prune()):
        wait_for(lambda: waits(raw, "INSERT INTO apikeys_dailyusage"), "the prune is in a transaction")
    wait_for(lambda: not waits(raw, "INSERT INTO apikeys_dailyusage"), "its transaction is over")
    assert (reports(done.team), reports(halfway.team)) == before
    assert drifts() == 0
    assert [UsageRecord.objects.filter(key=api_key).count() for api_key in (done, halfway)] == [0, 500]
    prune(int(DAYS))
    assert not UsageRecord.objects.filter(key=halfway).exists()
    assert (reports(done.team), reports(halfway.team)) == before
    assert drifts() == 0


def test_two_at_once(team: Team) -> None:
    other, _ = factories.make_key()
    use(other, 2 * RECORDS_PER_BATCH, days_ago=70, span=30)
    add_limit(other)
    before = reports(team), reports(other.team)
    count = old(team) + old(other.team)
    with ending(start_prune()) as first, ending(start_prune()) as second:
        outputs = [process.communicate(timeout=60) for process in (first, second)]
    assert [err for _, err in outputs] == [b"", b""]
    assert sum(json.loads(out)["records"] for out, _ in outputs) >= count
    assert old(team) + old(other.team) == 0
    assert (reports(team), reports(other.team)) == before
    assert drifts() == 0


def test_while_a_server_takes_requests(server: Server, provider: FakeProvider) -> None:
    api_key, key = factories.make_key(app=make_app(provider))
    use(api_key, 3 * RECORDS_PER_BATCH, days_ago=70, span=30)
    limits = [add_limit(api_key), add_limit(api_key, "requests", "day")]
    statuses: list[int] = []
    with ending(start_prune()) as process:
        while process.poll() is None:
            statuses.append(server.ask(key).status_code)
    assert (process.returncode, old(api_key.team)) == (0, 0)
    assert set(statuses) == {200}
    wait_for(lambda: not drifts(), "the last request is settled")
    used = [Counter.objects.get(limit=limit).used for limit in limits]
    assert used == [3 * RECORDS_PER_BATCH + len(statuses), len(statuses)]


def test_a_budget_made_while_records_are_moved(raw: Connection) -> None:
    """It counts each of them once: it waits for the transaction that moves them."""
    api_key, _ = factories.make_key()
    use(api_key, 500, days_ago=50)

    def add() -> Limit:
        try:
            return add_limit(api_key)
        finally:
            connection.close()

    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        with held_up(api_key, days_ago=50):
            process = stack.enter_context(ending(start_prune()))
            wait_for(lambda: waits(raw, "INSERT INTO apikeys_dailyusage"), "the prune is in a transaction")
            adding = pool.submit(add)
            wait_for(lambda: waits(raw, 'INSERT INTO "apikeys_limit"'), "the limit waits")
        limit = adding.result(timeout=60)
        assert process.communicate(timeout=60)[1] == b""
    assert not UsageRecord.objects.filter(key=api_key).exists()
    assert Counter.objects.get(limit=limit).used == 500
    assert drifts() == 0


def test_a_report_made_while_records_are_moved(raw: Connection) -> None:
    api_key, _ = factories.make_key()
    use(api_key, 500, days_ago=50)
    with ExitStack() as stack:
        with held_up(api_key, days_ago=50):
            process = stack.enter_context(ending(start_prune()))
            wait_for(lambda: waits(raw, "INSERT INTO apikeys_dailyusage"), "the prune is in a transaction")
            assert requests(api_key.team) == 500
        while process.poll() is None:
            assert requests(api_key.team) == 500
    assert requests(api_key.team) == 500


def test_a_budget_made_afterwards_counts_the_pruned_past() -> None:
    api_key, _ = factories.make_key()
    use(api_key, 90, days_ago=50)
    use(api_key, 7, days_ago=3)
    prune(int(DAYS))
    assert UsageRecord.objects.filter(key=api_key).count() == 7
    limits = [add_limit(api_key), add_limit(api_key, "tokens"), add_limit(api_key, "micropoints")]
    used = [Counter.objects.get(limit=limit).used for limit in limits]
    assert used == [
        97,
        sum(number % 11 + number % 7 for number in [*range(1, 91), *range(1, 8)]),
        sum([*range(1, 91), *range(1, 8)]),
    ]
    assert drifts() == 0


@pytest.mark.parametrize("period", ["minute", "day", "week", "month"])
@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_a_counter_that_nobody_has_used_since(period: str, zone: str) -> None:
    api_key, _ = factories.make_key()
    limit = add_limit(api_key, "requests", period)
    Limit.objects.filter(pk=limit.pk).update(time_zone=zone)
    present = Counter.objects.get(limit=limit).period_start
    use(api_key, 30, days_ago=80)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE apikeys_counter SET period_start = began, used = apikeys_used_in_records(limit_id, began) "
            "FROM apikeys_period_start(%s, %s, (%s::date + time '20:00') AT TIME ZONE 'UTC') AS began "
            "WHERE limit_id = %s",
            [period, zone, today() - timedelta(days=81), limit.pk],
        )
    assert Counter.objects.get(limit=limit).used == 30
    assert drifts() == 0
    assert prune(int(DAYS)).counters == 1
    counter = Counter.objects.get(limit=limit)
    # A minute may have passed.
    assert present <= counter.period_start <= timezone.now()
    assert (counter.used, counter.reserved) == (0, 0)
    assert drifts() == 0
    assert prune(int(DAYS)).counters == 0


def test_a_counter_in_its_present_period_stays() -> None:
    api_key, _ = factories.make_key()
    use(api_key, 5, days_ago=0)
    limits = [add_limit(api_key, "requests", period) for period in ("month", "total")]
    prune(32)
    assert [Counter.objects.get(limit=limit).used for limit in limits] == [5, 5]


def test_a_bound_inside_of_a_pruned_day() -> None:
    api_key, _ = factories.make_key()
    use(api_key, 10, days_ago=50, span=2)
    prune(int(DAYS))
    first, second = (today() - timedelta(days=days) for days in (50, 49))

    def report(*arguments: str) -> tuple[int, str]:
        out, err = call("usage", "--team", api_key.team.pk, "--json", *arguments)
        return sum(row["requests"] for row in json.loads(out)), err

    assert report("--since", str(second)) == (5, "")
    assert report("--until", str(second)) == (5, "")
    count, said = report("--since", f"{first}T00:00:01")
    assert count == 5
    assert f"--since is inside {first}, which is left out as a whole" in said
    count, said = report("--until", f"{second}T00:00:01")
    assert count == 10
    assert f"--until is inside {second}, which is counted as a whole" in said
    assert report("--until", f"{second + timedelta(days=5)}T00:00:01") == (10, "")


def test_days_of_another_time_zone() -> None:
    api_key, _ = factories.make_key()
    use(api_key, 10, days_ago=50)
    prune(int(DAYS))
    result = manage("usage", "--team", api_key.team.pk, "--json", "--by", "day", TIME_ZONE="America/New_York")
    assert [row["day"] for row in json.loads(result.stdout)] == [str(today() - timedelta(days=50))]
    assert "are UTC days, later ones are days of America/New_York" in result.stderr


@pytest.mark.parametrize(
    ("days", "complaint"),
    [
        ("31", "is kept for 32 to"),
        ("-40", "is kept for 32 to"),
        ("0", "is kept for 32 to"),
        ("10000000", "32 to"),
        ("many", "is not a whole number"),
        ("33.5", "is not a whole number"),
    ],
)
def test_days_that_cannot_be(days: str, complaint: str) -> None:
    with pytest.raises(CommandError, match=complaint):
        call("prune", f"--days={days}")


def test_the_setting() -> None:
    assert "RETENTION_DAYS is 0, which keeps everything" in refusal(manage("prune"))
    assert "every period of a limit" in refusal(manage("prune", RETENTION_DAYS="31"))
    result = manage("prune", "--json", "--dry-run", RETENTION_DAYS="32")
    assert json.loads(result.stdout)["days"] == 32
