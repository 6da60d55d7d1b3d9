"""The database's own functions, called as the gates call them."""

from collections.abc import Iterator

import pytest
from django.db import connection as django_connection

from apikeys.admission import Asked, Verdict, _reserve
from apikeys.database import Connection, connect
from apikeys.ledger import Usage, _write
from apikeys.limits import Counter, Limit, Reservation
from apikeys.models import ApiKey
from apikeys.object_ids import new_object_id
from apikeys.reconciliation import reconcile
from apikeys.usage import UsageRecord
from tests import factories


@pytest.fixture
def raw(database: None) -> Iterator[Connection]:
    with connect() as connection:
        yield connection


@pytest.fixture
def api_key() -> ApiKey:
    return factories.make_key()[0]


def limit(api_key: ApiKey, measure: str = "tokens", period: str = "day", amount: int = 100) -> Limit:
    return Limit.objects.create(team=api_key.team, key=api_key, measure=measure, period=period, amount=amount)


def asked(api_key: ApiKey, tokens: int = 0) -> Asked:
    return Asked(id=new_object_id(), team_id=api_key.team_id, key_id=api_key.pk, endpoint="x", tokens=tokens)


def used(ask: Asked, tokens: int = 0) -> Usage:
    ids = {"id": ask.id, "team_id": ask.team_id, "key_id": ask.key_id}
    return Usage(**ids, endpoint="x", status=200, duration_ms=1, completion_tokens=tokens)


def counts(made: Limit) -> tuple[int, int]:
    counter = Counter.objects.get(limit=made)
    return counter.used, counter.reserved


def test_a_batch_is_taken_in_turn(raw: Connection, api_key: ApiKey) -> None:
    made = limit(api_key)
    batch = [asked(api_key, tokens) for tokens in (60, 50, 40, 1)]
    verdicts: list[Verdict] = _reserve(raw, batch)
    # What does not fit costs nothing, so a smaller one behind it fits.
    assert [verdict.refused_by for verdict in verdicts] == [None, made.pk, None, made.pk]
    assert counts(made) == (0, 100)


def test_all_limits_or_none(raw: Connection, api_key: ApiKey) -> None:
    wide, narrow = limit(api_key, amount=1000), limit(api_key, "requests", "total", 1)
    verdicts = _reserve(raw, [asked(api_key, 10), asked(api_key, 10)])
    assert [verdict.refused_by for verdict in verdicts] == [None, narrow.pk]
    assert (counts(wide), counts(narrow)) == ((0, 10), (0, 1))


def test_reserving_again_is_reserving_once(raw: Connection, api_key: ApiKey) -> None:
    """As when the connection breaks between the commit and its answer."""
    made = limit(api_key)
    ask = asked(api_key, 60)
    assert [_reserve(raw, [ask])[0].refused_by for _ in range(2)] == [None, None]
    assert counts(made) == (0, 60)


def test_settling_again_is_settling_once(raw: Connection, api_key: ApiKey) -> None:
    made = limit(api_key)
    ask = asked(api_key, 60)
    _reserve(raw, [ask])
    for _ in range(2):
        _write(raw, [used(ask, 7)])
    assert counts(made) == (7, 0)
    assert UsageRecord.objects.filter(pk=ask.id).count() == 1


def test_settling_what_was_never_reserved_is_charged(raw: Connection, api_key: ApiKey) -> None:
    made = limit(api_key)
    _write(raw, [used(asked(api_key), 7)])
    assert counts(made) == (7, 0)


def test_a_limit_that_went_while_the_request_ran(raw: Connection, api_key: ApiKey) -> None:
    made = limit(api_key)
    ask = asked(api_key, 60)
    _reserve(raw, [ask])
    made.delete()
    _write(raw, [used(ask, 7)])
    assert not Reservation.objects.filter(pk=ask.id).exists()
    assert counts(limit(api_key)) == (7, 0)


def test_a_window_begins_anew_and_never_runs_backwards(raw: Connection, api_key: ApiKey) -> None:
    made = limit(api_key, "requests", "minute", 1)
    assert _reserve(raw, [asked(api_key)])[0].refused_by is None
    # The window of an hour ago: what was reserved in it does not burden this one.
    with django_connection.cursor() as cursor:
        cursor.execute(
            "UPDATE apikeys_counter SET period_start = period_start - interval '1 hour' WHERE limit_id = %s", [made.pk]
        )
    assert _reserve(raw, [asked(api_key)])[0].refused_by is None
    # A clock that stepped back finds the window of a later minute: it counts on in that one.
    with django_connection.cursor() as cursor:
        cursor.execute(
            "UPDATE apikeys_counter SET period_start = period_start + interval '1 hour' WHERE limit_id = %s", [made.pk]
        )
    before = Counter.objects.get(limit=made).period_start
    assert _reserve(raw, [asked(api_key)])[0].refused_by == made.pk
    assert Counter.objects.get(limit=made).period_start == before
    made.delete()


@pytest.mark.parametrize(
    ("period", "zone", "moment", "start", "end"),
    [
        ("minute", "UTC", "2026-03-01 10:20:30+00", "2026-03-01 10:20:00+00", "2026-03-01 10:21:00+00"),
        ("day", "Asia/Shanghai", "2026-03-01 17:00:00+00", "2026-03-01 16:00:00+00", "2026-03-02 16:00:00+00"),
        # A day of 23 hours, and one of 25.
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
            "SELECT began = %s::timestamptz, limit_period_end(%s, %s, began) = %s::timestamptz "
            "FROM limit_period_start(%s, %s, %s::timestamptz) AS began",
            [start, period, zone, end, period, zone, moment],
        )
        assert cursor.fetchone() == (True, True)


def test_nothing_has_drifted(database: None) -> None:
    assert reconcile()[1] == []
