"""The database's own functions, called as the batchers call them."""

import threading
from collections.abc import Iterator
from datetime import timedelta

import msgspec
import pytest
from django.db import connection as django_connection
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apikeys.accounting.admission import Decision, ReservationRequest
from apikeys.accounting.ledger import UsageRecord
from apikeys.accounting.limits import Counter, Limit
from apikeys.accounting.recording import Usage
from apikeys.accounting.reservations import Reservation
from apikeys.alerts.models import Alert
from apikeys.hot_path.connections import Connection, connect
from apikeys.keys.models import ApiKey
from apikeys.object_ids import new_object_id
from tests.support import factories
from tests.support.drift import drifted_since, newest_limit
from tests.support.flushes import reserve, write
from tests.support.processes import wait_for


@pytest.fixture
def raw(database: None) -> Iterator[Connection]:
    with connect() as connection:
        yield connection


@pytest.fixture(scope="module", autouse=True)
def no_drift(database: None) -> Iterator[None]:
    """Check that counters and ledger agree after all tests of this module."""
    before = newest_limit()
    yield
    assert drifted_since(before) == []


@pytest.fixture
def api_key() -> ApiKey:
    return factories.make_key()[0]


def limit(api_key: ApiKey, measure: str = "tokens", period: str = "day", amount: int = 100) -> Limit:
    return Limit.objects.create(team=api_key.team, key=api_key, measure=measure, period=period, amount=amount)


def asked(api_key: ApiKey, tokens: int = 0) -> ReservationRequest:
    return ReservationRequest(
        id=new_object_id(), team_id=api_key.team_id, key_id=api_key.pk, endpoint="x", tokens=tokens
    )


def used(ask: ReservationRequest, tokens: int = 0) -> Usage:
    ids = {"id": ask.id, "team_id": ask.team_id, "key_id": ask.key_id}
    return Usage(**ids, endpoint="x", status=200, duration_ms=1, completion_tokens=tokens)


def counts(made: Limit) -> tuple[int, int]:
    counter = Counter.objects.get(limit=made)
    return counter.used, counter.reserved


def test_a_batch_is_taken_in_turn(raw: Connection, api_key: ApiKey) -> None:
    made = limit(api_key)
    batch = [asked(api_key, tokens) for tokens in (60, 50, 40, 1)]
    decisions: list[Decision] = reserve(raw, batch)
    # A refused request reserves nothing, so a smaller one behind it fits.
    assert [decision.refused_by for decision in decisions] == [None, made.pk, None, made.pk]
    assert counts(made) == (0, 100)


def test_all_limits_or_none(raw: Connection, api_key: ApiKey) -> None:
    wide, narrow = limit(api_key, amount=1000), limit(api_key, "requests", "total", 1)
    decisions = reserve(raw, [asked(api_key, 10), asked(api_key, 10)])
    assert [decision.refused_by for decision in decisions] == [None, narrow.pk]
    assert (counts(wide), counts(narrow)) == ((0, 10), (0, 1))


def test_reserving_again_is_reserving_once(raw: Connection, api_key: ApiKey) -> None:
    """The connection may break between the commit and its result, and the batch is then retried."""
    made = limit(api_key)
    ask = asked(api_key, 60)
    assert [reserve(raw, [ask])[0].refused_by for _ in range(2)] == [None, None]
    assert counts(made) == (0, 60)


def test_settling_again_is_settling_once(raw: Connection, api_key: ApiKey) -> None:
    made = limit(api_key)
    ask = asked(api_key, 60)
    reserve(raw, [ask])
    for _ in range(2):
        write(raw, [used(ask, 7)])
    assert counts(made) == (7, 0)
    assert UsageRecord.objects.filter(pk=ask.id).count() == 1


def test_settling_what_was_never_reserved_is_charged(raw: Connection, api_key: ApiKey) -> None:
    made = limit(api_key)
    write(raw, [used(asked(api_key), 7)])
    assert counts(made) == (7, 0)


def test_a_limit_that_is_made_while_a_request_is_settled(raw: Connection, api_key: ApiKey) -> None:
    """The limit's trigger sums up the ledger, and no record may slip past both the sum and the counter."""
    with connect() as other, other.transaction():
        other.execute(
            "INSERT INTO apikeys_limit (team_id, key_id, measure, period, amount, time_zone) "
            "VALUES (%s, %s, 'tokens', 'total', 100, 'UTC')",
            [api_key.team_id, api_key.pk],
        )
        settling = threading.Thread(target=write, args=(raw, [used(asked(api_key), 7)]))
        settling.start()
        wait_for(lambda: is_waiting(raw), "settling waits for the sum")
    settling.join(30)
    made = Limit.objects.get(key=api_key)
    assert counts(made) == (7, 0)
    assert drifted_since(made.pk - 1) == []


def is_waiting(connection: Connection) -> bool:
    with django_connection.cursor() as cursor:
        cursor.execute(
            "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s", [connection.info.backend_pid]
        )
        return bool(cursor.fetchone()[0])


def test_a_reservation_without_its_limits(raw: Connection, api_key: ApiKey) -> None:
    made = limit(api_key)
    ask = asked(api_key, 60)
    reserve(raw, [ask])
    Reservation.objects.filter(pk=ask.id).update(limits_seen=None)
    write(raw, [used(ask, 7)])
    assert counts(made) == (7, 0)


def test_token_counts_beyond_what_could_be(raw: Connection, api_key: ApiKey) -> None:
    made = limit(api_key, period="total", amount=2**40)
    usage = used(asked(api_key), 2**31 - 1)
    write(raw, [msgspec.structs.replace(usage, prompt_tokens=2**31 - 1)])
    assert counts(made) == (2**32 - 2, 0)
    assert counts(limit(api_key, period="total", amount=2**40)) == (2**32 - 2, 0)


def test_a_limit_that_went_while_the_request_ran(raw: Connection, api_key: ApiKey) -> None:
    made = limit(api_key)
    ask = asked(api_key, 60)
    reserve(raw, [ask])
    made.delete()
    write(raw, [used(ask, 7)])
    assert not Reservation.objects.filter(pk=ask.id).exists()
    assert counts(limit(api_key)) == (7, 0)


def test_a_window_begins_anew_and_never_runs_backwards(raw: Connection, api_key: ApiKey) -> None:
    made = limit(api_key, "requests", "minute", 1)
    assert reserve(raw, [asked(api_key)])[0].refused_by is None
    # Reservations of the window an hour ago do not count in this one.
    with django_connection.cursor() as cursor:
        cursor.execute(
            "UPDATE apikeys_counter SET period_start = period_start - interval '1 hour' WHERE limit_id = %s", [made.pk]
        )
    assert reserve(raw, [asked(api_key)])[0].refused_by is None
    # A clock that stepped back finds the window of a later minute, and goes on counting in that one.
    with django_connection.cursor() as cursor:
        cursor.execute(
            "UPDATE apikeys_counter SET period_start = period_start + interval '1 hour' WHERE limit_id = %s", [made.pk]
        )
    before = Counter.objects.get(limit=made).period_start
    assert reserve(raw, [asked(api_key)])[0].refused_by == made.pk
    assert Counter.objects.get(limit=made).period_start == before
    made.delete()


def test_what_a_clock_admits_that_stepped_back_is_charged(raw: Connection, api_key: ApiKey) -> None:
    made = limit(api_key, "requests", "day", 1)
    with django_connection.cursor() as cursor:
        cursor.execute(
            "UPDATE apikeys_counter SET period_start = period_start + interval '1 day' WHERE limit_id = %s", [made.pk]
        )
    admitted = []
    for _ in range(3):
        ask = asked(api_key)
        if reserve(raw, [ask])[0].refused_by is None:
            admitted.append(ask)
            write(raw, [used(ask)])
    assert len(admitted) == 1
    assert counts(made) == (1, 0)
    made.delete()


def test_what_was_not_heard_is_given_back(raw: Connection, api_key: ApiKey) -> None:
    made, total = limit(api_key), limit(api_key, "requests", "total", 5)
    asks = [asked(api_key, 30), asked(api_key, 40), asked(api_key, 10)]
    reserve(raw, asks)
    for _ in range(2):
        raw.execute("SELECT apikeys_release(%s)", [[ask.id for ask in asks[:2]]])
    assert (counts(made), counts(total)) == ((0, 10), (0, 1))
    assert list(Reservation.objects.filter(key=api_key).values_list("pk", flat=True)) == [asks[2].id]
    write(raw, [used(asks[2], 7)])
    assert (counts(made), counts(total)) == ((7, 0), (1, 0))


@pytest.mark.parametrize(
    ("period", "zone", "moment", "start", "end"),
    [
        ("minute", "UTC", "2026-03-01 10:20:30+00", "2026-03-01 10:20:00+00", "2026-03-01 10:21:00+00"),
        ("day", "Asia/Shanghai", "2026-03-01 17:00:00+00", "2026-03-01 16:00:00+00", "2026-03-02 16:00:00+00"),
        # These days have 23 and 25 hours.
        ("day", "Europe/Berlin", "2026-03-29 12:00:00+00", "2026-03-28 23:00:00+00", "2026-03-29 22:00:00+00"),
        ("day", "Europe/Berlin", "2026-10-25 12:00:00+00", "2026-10-24 22:00:00+00", "2026-10-25 23:00:00+00"),
        ("week", "UTC", "2026-11-24 04:00:00+00", "2026-11-23 00:00:00+00", "2026-11-30 00:00:00+00"),
        ("month", "UTC", "2028-02-29 23:59:59+00", "2028-02-01 00:00:00+00", "2028-03-01 00:00:00+00"),
        ("month", "Europe/Berlin", "2026-03-31 22:30:00+00", "2026-03-31 22:00:00+00", "2026-04-30 22:00:00+00"),
    ],
)
def test_calendars(database: None, period: str, zone: str, moment: str, start: str, end: str) -> None:
    with django_connection.cursor() as cursor:
        cursor.execute(
            "SELECT began = %s::timestamptz, apikeys_period_end(%s, %s, began) = %s::timestamptz "
            "FROM apikeys_period_start(%s, %s, %s::timestamptz) AS began",
            [start, period, zone, end, period, zone, moment],
        )
        assert cursor.fetchone() == (True, True)


@given(
    amounts=st.lists(st.integers(1, 60), min_size=1, max_size=3),
    batches=st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=9), min_size=1, max_size=3),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_batch_is_what_its_items_one_by_one_would_be(
    raw: Connection, amounts: list[int], batches: list[list[int]]
) -> None:
    """Batches of any size decide like a plain model that takes the requests in turn."""
    api_key = factories.make_key()[0]
    limits = [limit(api_key, amount=amount) for amount in amounts]
    reserved = admitted = 0
    for batch in batches:
        asks = [asked(api_key, tokens) for tokens in batch]
        for decision, tokens in zip(reserve(raw, asks), batch, strict=True):
            assert [state.reserved for state in decision.limits] == [reserved] * len(limits)
            fits = all(reserved + tokens <= amount for amount in amounts)
            assert (decision.refused_by is None) == fits
            reserved += tokens if fits else 0
            admitted += fits
    assert {counts(made) for made in limits} == {(0, reserved)}
    assert Reservation.objects.filter(key=api_key).count() == admitted
    Reservation.objects.filter(key=api_key).delete()
    for made in limits:
        made.delete()


def test_a_record_explains_itself(raw: Connection, api_key: ApiKey) -> None:
    """The record has each limit as it was when the request came, and as each request of the batch left it."""
    made = limit(api_key)
    asks = [asked(api_key, 30), asked(api_key, 40)]
    reserve(raw, asks)
    write(raw, [used(asks[0], 5), used(asks[1], 7)])
    first, second = (UsageRecord.objects.get(pk=ask.id) for ask in asks)
    told = ("id", "amount", "used", "reserved", "requested")
    assert [[line[name] for name in told] for line in first.limits] == [[made.pk, 100, 0, 0, 30]]
    assert [[line[name] for name in told] for line in second.limits] == [[made.pk, 100, 0, 30, 40]]
    assert (first.charges, second.charges) == ({str(made.pk): [5, 5, 40]}, {str(made.pk): [7, 12, 0]})


def test_a_record_tells_of_limits_that_came_and_went_while_it_ran(raw: Connection, api_key: ApiKey) -> None:
    stayed, went = limit(api_key), limit(api_key, "requests")
    ask = asked(api_key, 30)
    reserve(raw, [ask])
    Limit.objects.filter(pk=went.pk).delete()
    came = limit(api_key, period="total")
    write(raw, [used(ask, 5)])
    record = UsageRecord.objects.get(pk=ask.id)
    assert [(line["id"], line.get("used")) for line in record.limits] == [(stayed.pk, 0), (went.pk, 0), (came.pk, None)]
    assert record.charges == {str(stayed.pk): [5, 5, 0], str(came.pk): [5, 5, 0]}


def test_a_late_record_keeps_what_the_lost_one_found(raw: Connection, api_key: ApiKey) -> None:
    made = limit(api_key, period="total")
    ask = asked(api_key, 30)
    reserve(raw, [ask])
    # No request runs for so long.
    Reservation.objects.filter(pk=ask.id).update(prompt_tokens=9, admitted_at=timezone.now() - timedelta(hours=13))
    raw.execute("SELECT apikeys_expire_reservations('30 s')")
    lost = UsageRecord.objects.get(pk=ask.id)
    assert (lost.outcome, lost.charges) == ("lost", {str(made.pk): [9, 9, 0]})
    write(raw, [used(ask, 5)])
    record = UsageRecord.objects.get(pk=ask.id)
    assert (record.outcome, record.charges) == ("complete", {str(made.pk): [5, 5, 0]})
    assert (record.limits, record.created_at) == (lost.limits, lost.created_at)


def percents(made: Limit) -> list[int | None]:
    return [alert.details.get("percent") for alert in Alert.objects.filter(key=made.key).order_by("pk")]


def test_alerts_of_a_budget(raw: Connection, api_key: ApiKey) -> None:
    made = limit(api_key)
    seen = []
    for tokens in (49, 1, 1, 29, 30):
        write(raw, [used(asked(api_key), tokens)])
        seen.append(percents(made))
    # Each threshold raises one alert; if several are reached at once, the highest does.
    assert seen == [[], [50], [50], [50, 80], [50, 80, 100]]
    alert = Alert.objects.filter(key=api_key).first()
    assert alert.team_id == api_key.team_id
    assert (alert.details["used"], alert.details["amount"], alert.details["measure"]) == (110, 100, "tokens")
    # After it was raised, the budget may be used up again.
    made.amount = 200
    made.save(update_fields=["amount"])
    write(raw, [used(asked(api_key), 1)])
    assert percents(made) == [50, 80, 100, 50]


def test_a_budget_that_is_spent_by_a_change_alerts(raw: Connection, api_key: ApiKey) -> None:
    """From then on every request is refused, so no settlement could raise the alert later."""
    made = limit(api_key)
    write(raw, [used(asked(api_key), 30)])
    made.amount = 30
    made.save(update_fields=["amount"])
    limit(api_key, period="total", amount=50)
    assert percents(made) == [100, 50]


def test_a_soft_amount_alerts_and_refuses_nothing(raw: Connection, api_key: ApiKey) -> None:
    made = Limit.objects.create(
        team=api_key.team, key=api_key, measure="tokens", period="total", amount=10**6, soft_amount=10
    )
    for _ in range(3):
        ask = asked(api_key, 20)
        assert reserve(raw, [ask])[0].refused_by is None
        write(raw, [used(ask, 6)])
    (alert,) = Alert.objects.filter(key=api_key)
    assert (alert.details["soft_amount"], alert.details["used"]) == (10, 12)
    assert made.key_id == alert.key_id


def test_a_team_s_budget_alerts_for_the_team(raw: Connection, api_key: ApiKey) -> None:
    Limit.objects.create(team=api_key.team, measure="requests", period="day", amount=1)
    write(raw, [used(asked(api_key))])
    (alert,) = Alert.objects.for_team(api_key.team_id)
    assert (alert.key, alert.details["percent"]) == (None, 100)


def test_rates_alert_nobody(raw: Connection, api_key: ApiKey) -> None:
    limit(api_key, "requests", "minute", 1)
    write(raw, [used(asked(api_key))])
    assert not Alert.objects.for_team(api_key.team_id).exists()
