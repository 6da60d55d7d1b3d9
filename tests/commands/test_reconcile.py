"""`manage.py reconcile`: counters against ledger and reservations, as of one moment, and nobody waits."""

import json
import threading
import time

import pytest
from django.db import OperationalError, connection

from apikeys.accounting.admission import ReservationRequest
from apikeys.accounting.limits import Counter, Limit
from apikeys.accounting.reconciliation import compare, fix, reconcile
from apikeys.accounting.recording import Usage
from apikeys.hot_path.connections import connect
from apikeys.keys.models import ApiKey
from apikeys.object_ids import new_object_id
from tests.support import factories
from tests.support.commands import call, manage
from tests.support.drift import drifted_since, newest_limit
from tests.support.flushes import reserve, write


def make_limit(api_key: ApiKey, measure: str = "requests") -> Limit:
    return Limit.objects.create(team=api_key.team, key=api_key, measure=measure, period="total", amount=10**9)


def test_it_finds_drift_and_mends_it() -> None:
    limit = make_limit(factories.make_key()[0])
    # Other tests write to the ledger directly, past the counters of their limits.
    call("reconcile", "--fix")
    assert manage("reconcile").returncode == 0
    Counter.objects.filter(limit=limit).update(used=7, reserved=1)
    result = manage("reconcile")
    assert result.returncode == 1
    assert "used 7, by the ledger 0; reserved 1, by open requests 0" in result.stdout
    assert "--fix corrects them" in result.stderr
    (drift,) = json.loads(call("reconcile", "--fix", "--json")[0])["drift"]
    assert drift["limit"] == limit.pk
    assert "drift 0" in manage("reconcile").stdout


def test_while_requests_come_and_go() -> None:
    """Whatever moment it sees, both sides agree at it."""
    before = newest_limit()
    keys = [factories.make_key()[0] for _ in range(3)]
    limits = [make_limit(api_key, measure) for api_key in keys for measure in ("requests", "tokens")]
    is_over = threading.Event()
    written = [0, 0]

    def go(number: int) -> None:
        with connect() as raw:
            while not is_over.is_set():
                ids = [
                    {"id": new_object_id(), "team_id": key.team_id, "key_id": key.pk, "endpoint": "x"} for key in keys
                ]
                reserve(raw, [ReservationRequest(**each, tokens=5) for each in ids])
                write(raw, [Usage(**each, status=200, duration_ms=1, completion_tokens=3) for each in ids])
                written[number] += len(ids)
                time.sleep(0.01)

    writers = [threading.Thread(target=go, args=(number,)) for number in range(2)]
    for writer in writers:
        writer.start()
    seen = set()
    try:
        while len(seen) < 10:
            assert drifted_since(before) == []
            seen.add(Counter.objects.get(limit=limits[0]).used)
    finally:
        is_over.set()
        for writer in writers:
            writer.join()
    assert sum(balance.used for balance in compare() if balance.limit in limits[::2]) == sum(written)


def test_nobody_waits(database: None) -> None:
    """It waits for no writer that has not committed, and for no lock on the tables."""
    limit = make_limit(factories.make_key()[0])
    with connect() as writer, writer.transaction():
        writer.execute("SELECT 1 FROM apikeys_counter WHERE limit_id = %s FOR UPDATE", [limit.pk])
        writer.execute("LOCK TABLE apikeys_usagerecord, apikeys_reservation IN SHARE UPDATE EXCLUSIVE MODE")
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '1s'")
            try:
                assert reconcile()[0] > 0
            finally:
                cursor.execute("RESET lock_timeout")


def test_mending_gives_up_waiting() -> None:
    limit = make_limit(factories.make_key()[0])
    Counter.objects.filter(limit=limit).update(used=7)
    (drift,) = drifted_since(limit.pk - 1)
    with connect() as writer, writer.transaction():
        writer.execute("SELECT 1 FROM apikeys_counter WHERE limit_id = %s FOR UPDATE", [limit.pk])
        began = time.monotonic()
        with pytest.raises(OperationalError, match="lock timeout"):
            fix([drift])
        assert time.monotonic() - began < 10
    fix([drift])
    assert drifted_since(limit.pk - 1) == []


def test_mending_leaves_what_is_right_again() -> None:
    """A charge since the drift was found is kept."""
    limit = make_limit(factories.make_key()[0])
    Counter.objects.filter(limit=limit).update(used=7)
    (drift,) = drifted_since(limit.pk - 1)
    Counter.objects.filter(limit=limit).update(used=0)
    with connect() as raw:
        ids = {"id": new_object_id(), "team_id": limit.team_id, "key_id": limit.key_id, "endpoint": "x"}
        write(raw, [Usage(**ids, status=200, duration_ms=1)])
    fix([drift])
    assert Counter.objects.get(limit=limit).used == 1
