"""The database goes away and comes back: nobody is told that a good key is bad, and no record is lost."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection, transaction

from apikeys.accounting.ledger import UsageRecord
from apikeys.accounting.limits import Counter, Limit
from apikeys.accounting.reservations import Reservation
from apikeys.keys import crypto
from fastgpt_site.postgres import cluster
from tests.conftest import Server, running_server
from tests.support import factories
from tests.support.conversations import events_of, make_app, messages_of
from tests.support.database_proxy import DatabaseProxy
from tests.support.drift import drifted_since
from tests.support.fake_provider import FakeProvider
from tests.support.metrics_text import parse, value_of
from tests.support.processes import wait_for
from tests.support.refusals import check_body, check_refusal


@pytest.fixture(scope="module")
def proxy() -> Iterator[DatabaseProxy]:
    socket_path = cluster.folder(settings.DATA_DIR) / f".s.PGSQL.{cluster.PORT}"
    proxy = DatabaseProxy(socket_path)
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def far_server(proxy: DatabaseProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that reaches the database by DATABASE_URL, through the proxy."""
    database = settings.DATABASES["default"]
    peppers = ",".join(f"{name}:{pepper.hex()}" for name, pepper in settings.API_KEY_PEPPERS.items())
    variables = {
        "DATABASE_URL": f"postgres://{database['USER']}:{database['PASSWORD']}@127.0.0.1:{proxy.port}/"
        + str(connection.settings_dict["NAME"]),
        "SECRET_KEY": settings.SECRET_KEY,
        "API_KEY_PEPPERS": peppers,
        "ENCRYPTION_KEYS": settings.ENCRYPTION_KEYS[0].hex(),
    }
    with running_server(tmp_path_factory.mktemp("far") / "log", variables) as server:
        yield server


@pytest.fixture(autouse=True)
def mended(proxy: DatabaseProxy) -> Iterator[None]:
    yield
    proxy.mend()


def test_a_key_that_cannot_be_looked_up_is_not_called_bad(far_server: Server, proxy: DatabaseProxy) -> None:
    _, key = factories.make_key()
    assert far_server.get("/api/v1/key", key).status_code == 200
    proxy.cut()
    _, other = factories.make_key()
    for each in (other, crypto.generate()):
        check_refusal(far_server.ask(each), "service_unavailable")
    for each in (key, other, crypto.generate()):
        check_refusal(far_server.get("/api/core/app/list", each), "service_unavailable")
    # A refusal that needs no database still has its own answer.
    check_refusal(far_server.get("/api/core/app/list"), "missing_api_key")
    proxy.mend()
    wait_for(lambda: far_server.get("/api/v1/key", other).status_code == 200, "it recovers by itself", seconds=5)


def test_readiness_says_what_is_missing(far_server: Server, proxy: DatabaseProxy) -> None:
    wait_for(far_server.is_ready, "the outage before it has been got over", seconds=6)
    assert far_server.get("/readyz").json() == {
        "status": "not ready",
        "parts": {
            "database": "ok",
            "migrations": "ok",
            "listener": "ok",
            "default_provider": "ok",
            # As it is without `serve`, which would start one.
            "jobs": "no worker",
        },
    }
    proxy.cut()
    # The last finding is kept for a second.
    wait_for(lambda: not far_server.is_ready(), "it is not ready", seconds=5)
    assert far_server.get("/readyz").status_code == 503
    parts = far_server.get("/readyz").json()["parts"]
    assert parts["database"] == "cannot be reached"
    assert parts["jobs"] == "unknown"
    assert far_server.get("/healthz").status_code == 200
    wait_for(lambda: far_server.get("/readyz").json()["parts"]["listener"] != "ok", "the listener is silent", seconds=6)
    proxy.mend()
    wait_for(far_server.is_ready, "it is ready again", seconds=6)


def test_metrics_are_told_all_the_while(far_server: Server, proxy: DatabaseProxy) -> None:
    """All but what only the database knows; a gauge shows how long it has been silent."""

    def lag() -> float:
        return value_of(parse(far_server.get("/metrics").text), "fastgpt_listener_lag_seconds")

    wait_for(lambda: "fastgpt_server_processes" in far_server.get("/metrics").text, "the heartbeats")
    proxy.cut()
    wait_for(lambda: lag() > 3, "the listener is silent", seconds=10)
    assert "fastgpt_server_processes" not in far_server.get("/metrics").text
    proxy.mend()
    wait_for(lambda: lag() < 3, "the listener hears again", seconds=6)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_whose_record_cannot_be_written_yet(
    far_server: Server, proxy: DatabaseProxy, provider: FakeProvider, stream: bool
) -> None:
    """The caller hears after ten seconds that it is not complete; the record is written when it can be."""
    app = make_app(provider)
    _, key = factories.make_key(app=app)
    assert far_server.ask(key, stream=stream).status_code == 200
    provider.on_call = proxy.cut
    try:
        response = far_server.ask(key, "hello", stream=stream, chatId="c")
    finally:
        provider.on_call = None
    if stream:
        assert response.status_code == 200
        assert "[DONE]" not in response.text
        name, body = events_of(response.text)[-1]
        assert name == "error"
        check_body(body, "service_unavailable")
    else:
        check_refusal(response, "service_unavailable")
    proxy.mend()
    request_id = response.headers["x-request-id"]
    wait_for(lambda: UsageRecord.objects.filter(pk=request_id).exists(), "the record is written")
    assert len(messages_of(app, "c")) == 2


def test_five_seconds_without_it_while_reserving(
    far_server: Server, proxy: DatabaseProxy, provider: FakeProvider
) -> None:
    """A request that cannot be counted is not let in, and costs nothing."""
    api_key, key = factories.make_key(app=make_app(provider))
    made = Limit.objects.create(team=api_key.team, key=api_key, measure="requests", period="total", amount=10)
    _, global_key = factories.make_key(api_key.team)
    assert far_server.ask(key).status_code == 200
    assert far_server.get("/api/core/app/list", global_key).status_code == 200
    proxy.cut()
    down = time.monotonic()
    while time.monotonic() - down < 5:
        check_refusal(far_server.ask(key, "refused"), "service_unavailable")
        check_refusal(far_server.get("/api/core/app/list", global_key), "service_unavailable")
    assert not provider.calls_about("refused")
    proxy.mend()
    wait_for(lambda: far_server.ask(key).status_code == 200, "it recovers by itself", seconds=5)
    wait_for(lambda: not Reservation.objects.filter(key=api_key).exists(), "all is settled")
    counter = Counter.objects.get(limit=made)
    assert (counter.used, counter.reserved) == (2, 0)
    assert UsageRecord.objects.filter(key=api_key).count() == 2


def test_an_admission_that_nobody_heard_of(far_server: Server, proxy: DatabaseProxy, provider: FakeProvider) -> None:
    """The database admits a request whose caller was told that it cannot be asked: what it reserved is given back."""
    api_key, key = factories.make_key(app=make_app(provider))
    made = Limit.objects.create(team=api_key.team, key=api_key, measure="open", period="now", amount=1)
    assert far_server.ask(key).status_code == 200
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            Counter.objects.select_for_update().get(limit=made)
            answer = pool.submit(far_server.ask, key, "unheard")
            wait_for(lambda: waits_for_a_lock("apikeys_reserve("), "the statement waits")
            proxy.cut()
            check_refusal(answer.result(), "service_unavailable")
        proxy.mend()
        wait_for(lambda: Reservation.objects.filter(key=api_key).exists(), "it is admitted")
    wait_for(lambda: not Reservation.objects.filter(key=api_key).exists(), "it is given back", seconds=30)
    counter = Counter.objects.get(limit=made)
    assert (counter.used, counter.reserved) == (0, 0)
    assert not provider.calls_about("unheard")
    assert UsageRecord.objects.filter(key=api_key).count() == 1


def waits_for_a_lock(text: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s)",
            [f"%{text}%"],
        )
        return bool(cursor.fetchone()[0])


def test_five_seconds_without_it_while_settling(
    far_server: Server, proxy: DatabaseProxy, provider: FakeProvider
) -> None:
    """Answers wait for their records, which are kept, written in order when it is back, and charged once."""
    api_key, key = factories.make_key(app=make_app(provider, "soon"))
    made = Limit.objects.create(team=api_key.team, key=api_key, measure="tokens", period="total", amount=10**6)
    assert far_server.ask(key).status_code == 200
    asked = len(provider.calls)
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(far_server.ask, key, f"question {number}") for number in range(4)]
        wait_for(lambda: len(provider.calls) == asked + 4, "all are at the provider")
        proxy.cut()
        down = time.monotonic()
        wait_for(lambda: time.monotonic() - down > 5, "five seconds", seconds=6)
        assert not any(answer.done() for answer in answers)
        proxy.mend()
        responses = [answer.result() for answer in answers]
    assert [response.status_code for response in responses] == [200] * 4
    records = UsageRecord.objects.filter(key=api_key)
    assert {response.headers["x-request-id"] for response in responses} < {record.pk for record in records}
    counter = Counter.objects.get(limit=made)
    assert (counter.used, counter.reserved) == (5 * 18, 0)
    assert drifted_since(made.pk - 1) == []


def test_health_needs_nothing(server: Server) -> None:
    assert server.get("/healthz").json() == {"status": "alive", "version": settings.VERSION}


def test_an_unreachable_default_provider_is_named(tmp_path: Path) -> None:
    changes = {"DEFAULT_PROVIDER_URL": "http://127.0.0.1:9/v1"}
    with running_server(tmp_path / "log", changes, is_ready=False) as server:
        response = server.get("/readyz")
        assert response.status_code == 503
        assert response.json()["parts"]["default_provider"] == "cannot be reached"
