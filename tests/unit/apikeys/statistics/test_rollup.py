"""The hourly roll-ups agree with the ledger, whatever becomes of it."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apikeys.accounting.ledger import DailyUsage, Refusal, UsageRecord
from apikeys.accounting.recording import Usage
from apikeys.hot_path.connections import connect
from apikeys.keys.models import ApiKey
from apikeys.object_ids import new_object_id
from apikeys.retention import prune
from apikeys.statistics import leaders, rollup
from apikeys.statistics import sums as statistics
from apikeys.statistics.rollup import (
    HOUR,
    HourlyTotal,
    HourlyUsage,
    LateHour,
    RollupWatermark,
    floor,
    roll_up,
    rollup_watermark,
)
from apikeys.statistics.sums import Span, UsageScope, points_used, series, sums, top
from tests.environment import PROJECT
from tests.support import factories
from tests.support.commands import variables
from tests.support.flushes import write
from tests.support.processes import ending, wait_for

FILL = """
INSERT INTO apikeys_usagerecord (id, team_id, key_id, endpoint, model, prompt_tokens, completion_tokens,
    token_source, cost_micropoints, status, outcome, duration_ms, created_at)
SELECT substr(md5(%(key)s || random() || number), 1, 24), %(team)s, %(key)s, 'chat.completions', 'm', number %% 11,
    number %% 7, '', number %% 1001, 200,
    (ARRAY['complete', 'failed', 'lost', 'cancelled', 'terminated'])[1 + number %% 5], 7,
    %(end)s::timestamptz - random() * %(span)s::interval
FROM generate_series(1, %(count)s) AS number
"""


def use(api_key: ApiKey, count: int, *, end: datetime | None = None, span: timedelta = timedelta(days=2)) -> None:
    values = {"team": api_key.team_id, "key": api_key.pk, "count": count, "span": span}
    with connection.cursor() as cursor:
        cursor.execute(FILL, values | {"end": end or timezone.now()})


def record(api_key: ApiKey, created_at: datetime, **fields: object) -> UsageRecord:
    values = {"endpoint": "x", "status": 200, "outcome": "complete", "duration_ms": 1, **fields}
    return UsageRecord.objects.create(
        id=new_object_id(), team=api_key.team, key=api_key, created_at=created_at, **values
    )


def refuse(api_key: ApiKey | None, created_at: datetime, sample_weight: int = 1) -> None:
    Refusal.objects.create(
        id=new_object_id(),
        team=api_key and api_key.team,
        key=api_key,
        status=429,
        code="rate_limit_exceeded",
        sample_weight=sample_weight,
        created_at=created_at,
    )


def start_over() -> None:
    """Reset to the state before the first run: only that run sees backdated refusals, which no server writes."""
    RollupWatermark.objects.update(until=None)


def by_ending(api_key: ApiKey, start: datetime, end: datetime) -> dict[str, int]:
    found: dict[str, int] = {}
    for outcome in UsageRecord.objects.filter(key=api_key, created_at__gte=start, created_at__lt=end).values_list(
        "outcome", flat=True
    ):
        found[outcome] = found.get(outcome, 0) + 1
    return found


def scopes(api_key: ApiKey) -> list[UsageScope]:
    return [UsageScope((api_key.team_id,)), UsageScope.of_key(api_key)]


def assert_exact(api_key: ApiKey) -> None:
    now = timezone.now()
    for start, end in (
        (now - timedelta(days=3), now),
        (now - timedelta(hours=30, minutes=17), now - timedelta(hours=3, minutes=1)),
        (now - timedelta(minutes=3), now),
        (floor(now) - HOUR, floor(now)),
    ):
        expected = by_ending(api_key, start, end)
        for scope in scopes(api_key):
            found = {outcome: count for outcome, count in sums(scope, start, end).requests.items() if count}
            assert found == expected, (scope, start, end)


@pytest.fixture
def api_key() -> ApiKey:
    return factories.make_key()[0]


def points_in_ledger_and_daily_rows(api_key: ApiKey) -> int:
    return sum(
        sum(ledger._default_manager.filter(key=api_key).values_list("cost_micropoints", flat=True))
        for ledger in (UsageRecord, DailyUsage)
    )


def test_points_in_all_are_those_of_ledger_and_daily_rows(api_key: ApiKey) -> None:
    def assert_exact() -> None:
        assert points_used([api_key.pk]) == {api_key.pk: points_in_ledger_and_daily_rows(api_key)}

    assert points_used([api_key.pk]) == {}
    start_over()
    now = timezone.now()
    use(api_key, 300)
    use(api_key, 300, end=now - timedelta(days=100))
    # These are older than the roll-ups reach back.
    use(api_key, 300, end=now - timedelta(days=500))
    assert_exact()
    roll_up()
    use(api_key, 50, span=timedelta(minutes=1))
    assert_exact()
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE apikeys_usagerecord SET cost_micropoints = 0 WHERE created_at < now() - interval '1 day'"
        )
    # The ledger is not read for hours that are rolled up.
    assert points_used([api_key.pk])[api_key.pk] > points_in_ledger_and_daily_rows(api_key)


def test_points_of_a_day_that_was_pruned_before_its_end_was_rolled_up(api_key: ApiKey) -> None:
    start_over()
    noon = floor(timezone.now() - timedelta(days=40)).replace(hour=12)
    record(api_key, noon - HOUR, cost_micropoints=3)
    roll_up()
    RollupWatermark.objects.update(until=noon)
    record(api_key, noon + HOUR, cost_micropoints=4)
    record(api_key, noon + timedelta(days=1), cost_micropoints=5)
    prune(35)
    assert not UsageRecord.objects.filter(key=api_key).exists()
    assert points_used([api_key.pk]) == {api_key.pk: 12}
    roll_up()
    assert points_used([api_key.pk]) == {api_key.pk: 12}


def test_points_of_many_keys_are_one_query_by_indexes() -> None:
    keys = [factories.make_key()[0].pk for _ in range(3)]
    with connection.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")
        try:
            with CaptureQueriesContext(connection) as queries:
                points_used(keys)
            cursor.execute(f"EXPLAIN {queries[0]['sql']}")
            plan = "\n".join(row for (row,) in cursor.fetchall())
        finally:
            cursor.execute("RESET enable_seqscan")
    assert len(queries) == 1
    # The planner may choose a plain scan or a bitmap.
    assert re.search("Index Scan (using|on) usage_by_key", plan), plan
    assert not re.search("Seq Scan on apikeys_(usagerecord|dailyusage|hourlyusage)", plan)


def test_it_works(api_key: ApiKey) -> None:
    # The jobs' worker of another test may have moved the watermark past the usage that is backdated here.
    start_over()
    use(api_key, 1000)
    assert_exact(api_key)
    roll_up()
    assert timedelta(minutes=5) < timezone.now() - rollup_watermark() < timedelta(minutes=8)
    assert_exact(api_key)
    hourly = HourlyUsage.objects.filter(key=api_key)
    ledger = UsageRecord.objects.filter(key=api_key, created_at__lt=rollup_watermark())
    for column in ("prompt_tokens", "completion_tokens", "cost_micropoints"):
        assert sum(hourly.values_list(column, flat=True)) == sum(ledger.values_list(column, flat=True))
    assert sum(hourly.values_list("requests", flat=True)) == ledger.count()
    assert sums(UsageScope((api_key.team_id,)), timezone.now() - timedelta(days=3), timezone.now()).tokens == sum(
        prompt + completion
        for prompt, completion in UsageRecord.objects.filter(key=api_key).values_list(
            "prompt_tokens", "completion_tokens"
        )
    )


def test_all_teams_together(api_key: ApiKey) -> None:
    use(api_key, 50)
    refuse(None, timezone.now() - timedelta(hours=5), 30)
    start_over()
    roll_up()
    now = timezone.now()
    start = now - timedelta(days=3)
    found = sums(UsageScope(None), start, now)
    # Other tests have left pruned days behind.
    pruned = DailyUsage.objects.filter(day__gt=start.date()).values_list("requests", flat=True)
    records = UsageRecord.objects.filter(created_at__gte=start, created_at__lt=now)
    assert found.accepted == records.count() + sum(pruned)
    refused = Refusal.objects.filter(created_at__gte=start, created_at__lt=now).values_list("sample_weight", flat=True)
    assert found.refused == sum(refused) >= 30


def test_late_record(api_key: ApiKey) -> None:
    use(api_key, 100)
    roll_up()
    for hours in (1, 2, 30):
        record(api_key, timezone.now() - timedelta(hours=hours))
    assert LateHour.objects.exists()
    roll_up()
    assert not LateHour.objects.exists()
    assert_exact(api_key)


def test_lost_record_is_replaced(api_key: ApiKey) -> None:
    lost = record(api_key, timezone.now() - timedelta(hours=3), outcome="lost")
    roll_up()
    assert list(HourlyUsage.objects.filter(key=api_key).values_list("outcome", flat=True)) == ["lost"]
    with connect() as raw:
        ids = {"id": lost.pk, "team_id": api_key.team_id, "key_id": api_key.pk}
        write(raw, [Usage(**ids, endpoint="x", status=200, duration_ms=1, completion_tokens=7)])
    roll_up()
    rows = list(HourlyUsage.objects.filter(key=api_key).values_list("outcome", "requests", "completion_tokens"))
    assert rows == [("complete", 1, 7)]
    assert_exact(api_key)


def test_worker_away_for_a_day(api_key: ApiKey) -> None:
    use(api_key, 500)
    roll_up()
    RollupWatermark.objects.update(until=floor(timezone.now()) - timedelta(days=1))
    HourlyUsage.objects.filter(hour__gte=rollup_watermark()).delete()
    HourlyTotal.objects.filter(hour__gte=rollup_watermark()).delete()
    assert_exact(api_key)
    roll_up()
    assert_exact(api_key)


def test_first_run_knows_what_was_pruned(api_key: ApiKey) -> None:
    use(api_key, 200, end=timezone.now() - timedelta(days=50), span=timedelta(days=5))
    use(api_key, 100)
    prune(40)
    start, end = timezone.now() - timedelta(days=90), timezone.now()
    assert not UsageRecord.objects.filter(key=api_key, created_at__lt=end - timedelta(days=41)).exists()
    start_over()
    roll_up()
    for scope in scopes(api_key):
        assert sums(scope, start, end).accepted == 300


def test_pruning_leaves_the_hours(api_key: ApiKey) -> None:
    use(api_key, 200, end=timezone.now() - timedelta(days=50), span=timedelta(days=2))
    roll_up()
    before = sorted(HourlyUsage.objects.filter(key=api_key).values_list("hour", "outcome", "requests"))
    prune(40)
    roll_up()
    assert sorted(HourlyUsage.objects.filter(key=api_key).values_list("hour", "outcome", "requests")) == before
    # A record that comes to such a day even later rebuilds the day, and every request is still counted once.
    record(api_key, timezone.now() - timedelta(days=51))
    roll_up()
    assert sum(HourlyUsage.objects.filter(key=api_key).values_list("requests", flat=True)) == 201


def test_killed_in_the_middle(api_key: ApiKey) -> None:
    use(api_key, 300)
    roll_up()
    record(api_key, timezone.now() - timedelta(hours=5))
    RollupWatermark.objects.update(until=rollup_watermark() - timedelta(hours=30))
    before = rollup_watermark()
    with held_up(), ending(start_rolling_up()):
        wait_for(is_rolling_up, "the roll-up is in a transaction")
    wait_for(lambda: not is_rolling_up(), "its transaction is over")
    assert rollup_watermark() == before
    roll_up()
    assert_exact(api_key)


def start_rolling_up() -> "subprocess.Popen[bytes]":
    script = "from apikeys.statistics import rollup; rollup.roll_up()"
    command = [sys.executable, "manage.py", "shell", "-c", script]
    return subprocess.Popen(command, cwd=PROJECT, env=variables(), stdout=subprocess.DEVNULL)


@contextmanager
def held_up() -> Iterator[None]:
    """Keep all totals from being written."""
    with connect() as raw, raw.transaction():
        raw.execute("LOCK TABLE apikeys_hourlytotal IN SHARE MODE")
        yield


def is_rolling_up() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'apikeys_hourlytotal'::regclass "
            "AND pid <> pg_backend_pid())"
        )
        return bool(cursor.fetchone()[0])


def test_two_at_once(api_key: ApiKey) -> None:
    use(api_key, 300)
    start_over()
    with ending(start_rolling_up()) as first, ending(start_rolling_up()) as second:
        assert (first.wait(60), second.wait(60)) == (0, 0)
    assert_exact(api_key)


def test_old_hours_go(api_key: ApiKey) -> None:
    HourlyTotal.objects.create(hour=datetime(2020, 1, 1, tzinfo=UTC), team=api_key.team, outcome="complete", requests=1)
    roll_up()
    assert not HourlyTotal.objects.filter(team=api_key.team).exists()


def test_leaders_are_those_of_the_ledger() -> None:
    team = factories.make_team()
    keys = [factories.make_key(team)[0] for _ in range(12)]
    for number, api_key in enumerate(keys):
        use(api_key, number + 1)
    start_over()
    roll_up()
    leaders.Leaderboard.objects.all().delete()
    leaders.recompute()
    reckoned = {
        leader.subject_id: leader.requests
        for leader in leaders.Leader.objects.filter(board="30d", team=team, is_app=False)
    }
    now = timezone.now()
    live = {used.subject_id: used.requests for used in top(UsageScope((team.pk,)), Span.MONTH.start(now), now, 10)}
    assert set(reckoned) == set(live) >= {api_key.pk for api_key in keys[4:]}
    assert live == {api_key.pk: number + 1 for number, api_key in enumerate(keys) if api_key.pk in live}


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/Los_Angeles", "Asia/Shanghai"])
def test_days_begin_at_midnight_of_the_time_zone(api_key: ApiKey, zone: str) -> None:
    with timezone.override(zone):
        midnight = statistics.today_begins(timezone.now())
        before, after = midnight - timedelta(seconds=1), midnight
        record(api_key, before)
        record(api_key, after, outcome="failed")
        refuse(api_key, after, 10)
        start_over()
        for _ in range(2):
            for scope in scopes(api_key):
                days = series(scope, Span.WEEK, step="day")
                assert len(days.labels) == 7
                assert days.labels[-1] == midnight
                assert days.labels[-1].hour == 0
                assert days.stacks["complete"][-2:] == [1, 0]
                assert days.stacks["failed"][-2:] == [0, 1]
                assert days.stacks["refused"][-2:] == [0, 10]
                hours = series(scope, Span.DAY, step="hour")
                assert len(hours.labels) == 24
                if midnight - HOUR >= hours.labels[0]:
                    place = hours.labels.index(midnight)
                    assert hours.stacks["complete"][place - 1 : place + 1] == [1, 0]
                    assert hours.stacks["failed"][place - 1 : place + 1] == [0, 1]
            roll_up()


@pytest.mark.parametrize(("span", "days"), [(Span.WEEK, 7), (Span.MONTH, 30), (Span.YEAR, 365)])
def test_ranges(span: Span, days: int) -> None:
    now = datetime(2026, 11, 24, 15, 30, tzinfo=UTC)
    assert len(series(UsageScope(()), span, step="day", now=now).labels) == days


def test_a_day_of_the_clock_change() -> None:
    now = datetime(2026, 10, 25, 20, 0, tzinfo=UTC)
    with timezone.override("Europe/Berlin"):
        labels = series(UsageScope(()), Span.WEEK, step="day", now=now).labels
        assert [label.hour for label in labels] == [0] * 7
        assert len(series(UsageScope(()), Span.WEEK, step="hour", now=now).labels) == 6 * 24 + 23
        assert statistics.a_week_before(now).hour == 21


def test_what_may_not_be_seen_is_left_out(api_key: ApiKey) -> None:
    record(api_key, timezone.now() - timedelta(hours=2))
    refuse(api_key, timezone.now() - timedelta(hours=2))
    start_over()
    for _ in range(2):
        start, end = timezone.now() - timedelta(days=1), timezone.now()
        for scope in (UsageScope.of_key(api_key, has_usage=False), UsageScope((api_key.team_id,), has_usage=False)):
            found = sums(scope, start, end)
            assert (found.accepted, found.refused) == (0, 1)
            assert list(series(scope, Span.DAY, step="hour").stacks) == ["refused"]
        for scope in (
            UsageScope.of_key(api_key, has_refusals=False),
            UsageScope((api_key.team_id,), has_refusals=False),
        ):
            found = sums(scope, start, end)
            assert (found.accepted, found.refused) == (1, 0)
        roll_up()


def test_the_trigger_notes_only_what_is_late(api_key: ApiKey) -> None:
    LateHour.objects.all().delete()
    record(api_key, timezone.now() - timedelta(minutes=4))
    assert not LateHour.objects.exists()
    record(api_key, timezone.now() - timedelta(minutes=6))
    assert LateHour.objects.count() == 1


def test_writers_do_not_wait_for_a_roll_up(api_key: ApiKey) -> None:
    """A record is written while notes of late hours are deleted in an open transaction."""
    record(api_key, timezone.now() - timedelta(hours=3))
    with connect() as raw, raw.transaction():
        raw.execute("SET LOCAL enable_seqscan = on")
        raw.execute("DELETE FROM apikeys_latehour")
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '2s'")
            try:
                record(api_key, timezone.now() - timedelta(hours=3))
            finally:
                cursor.execute("RESET lock_timeout")
    rollup.roll_up()
    assert_exact(api_key)


MANY = 200_000


@pytest.fixture(scope="module")
def many(database: None) -> ApiKey:
    """Return a key with so many records that reading the whole ledger costs more than any index."""
    api_key, _ = factories.make_key()
    use(api_key, MANY, span=timedelta(days=30))
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM apikeys_latehour")
    start_over()
    roll_up()
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE apikeys_usagerecord, apikeys_hourlyusage, apikeys_hourlytotal, apikeys_team")
    return api_key


@pytest.mark.parametrize("whose", ["all", "team", "key"])
def test_nobody_reads_the_whole_ledger(many: ApiKey, whose: str) -> None:
    scope = {"all": UsageScope(None), "team": UsageScope((many.team_id,)), "key": UsageScope.of_key(many)}[whose]
    now = timezone.now()
    with CaptureQueriesContext(connection) as queries:
        sums(scope, statistics.today_begins(now), now)
        series(scope, Span.MONTH, step="day")
        if whose != "key":
            top(scope, Span.DAY.start(now), now, 10)
    statements = [query["sql"] for query in queries if "apikeys_usagerecord" in query["sql"]]
    assert len(statements) >= 2
    for statement in statements:
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN (ANALYZE, COSTS OFF) {statement}")
            plan = "\n".join(row[0] for row in cursor.fetchall())
        assert "Seq Scan on apikeys_usagerecord" not in plan, plan
        assert "Index" in plan
        # An index scan that discards most rows would read the whole ledger as well.
        assert not re.search(r"Rows Removed by Filter: \d{6}", plan), plan
