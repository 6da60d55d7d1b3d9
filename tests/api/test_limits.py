"""The limits of a key and a team: counted exactly, refused clearly, given back when they were not used."""

import contextlib
import json
import re
import signal
import socket
import threading
import time
from collections import Counter as Tally
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from django.db import connection
from django.utils import timezone

from apikeys.accounting.ledger import KeyActivity, Outcome, UsageRecord
from apikeys.accounting.limits import Counter, Limit
from apikeys.accounting.reservations import Reservation
from apikeys.hot_path.servers import ServerProcess
from apikeys.keys.models import ApiKey
from tests.api.test_completions_leaving import PATH, open_stream
from tests.conftest import Server, running_server
from tests.support import factories
from tests.support.conversations import make_app, record_of
from tests.support.drift import drifted_since, newest_limit
from tests.support.fake_provider import FakeProvider
from tests.support.processes import wait_for
from tests.support.refusals import check_refusal

UNMETERED = [
    f"/api/v1/{name}" for name in ("key", "models", "dashboard/billing/subscription", "dashboard/billing/usage")
]


def limit(api_key: ApiKey, measure: str, period: str, amount: int, *, of_team: bool = False) -> Limit:
    return Limit.objects.create(
        team=api_key.team, key=None if of_team else api_key, measure=measure, period=period, amount=amount
    )


def counts(made: Limit) -> tuple[int, int]:
    """(used, reserved)"""
    counter = Counter.objects.get(limit=made)
    return counter.used, counter.reserved


def early_in_a_minute(needed: int = 15) -> None:
    """So that what follows, which takes some seconds, happens within one minute."""
    wait_for(lambda: time.time() % 60 < 60 - needed, "a minute begins", seconds=needed + 5)


@pytest.fixture(autouse=True)
def no_drift() -> Iterator[None]:
    """After each test counters and ledger agree, for every limit that it made."""
    before = newest_limit()
    yield
    wait_for(lambda: not drifted_since(before), "drift is 0")


@pytest.fixture
def keyed(provider: FakeProvider) -> tuple[ApiKey, str]:
    return factories.make_key(app=make_app(provider))


def test_tokens_per_minute(server: Server, provider: FakeProvider) -> None:
    api_key, key = factories.make_key(app=make_app(provider, max_tokens=100))
    limit(api_key, "tokens", "minute", 1000)
    early_in_a_minute()
    response = server.ask(key)
    assert response.status_code == 200
    assert response.headers["x-ratelimit-limit-tokens"] == "1000"
    # It reserved its prompt's bound and the longest answer.
    (reserved,) = (line["requested"] for line in UsageRecord.objects.get(key=api_key).limits)
    assert int(response.headers["x-ratelimit-remaining-tokens"]) == 1000 - reserved
    assert 0 < int(response.headers["x-ratelimit-reset-tokens"].removesuffix("s")) <= 60
    assert "x-ratelimit-limit-requests" not in response.headers


def test_requests_per_minute(server: Server, keyed: tuple[ApiKey, str]) -> None:
    early_in_a_minute()
    api_key, key = keyed
    made = limit(api_key, "requests", "minute", 3)
    left = []
    for _ in range(3):
        response = server.ask(key)
        assert response.status_code == 200
        left.append(response.headers["x-ratelimit-remaining-requests"])
    assert left == ["2", "1", "0"]
    assert response.headers["x-ratelimit-limit-requests"] == "3"
    assert re.fullmatch(r"\d+s", response.headers["x-ratelimit-reset-requests"])
    assert response.headers["ratelimit-policy"] == f'"key-requests-minute-{made.pk}";q=3'
    assert response.headers["ratelimit"].startswith(f'"key-requests-minute-{made.pk}";r=0;t=')
    refused = server.ask(key)
    message = check_refusal(refused, "rate_limit_exceeded")
    assert message == f"Key ******{key[-4:]} may make 3 requests a minute; none are left."
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert counts(made) == (3, 0)
    assert not UsageRecord.objects.filter(pk=refused.headers["x-request-id"]).exists()


def test_endpoints_without_a_model_count_too(server: Server) -> None:
    early_in_a_minute()
    api_key, key = factories.make_key()
    made = limit(api_key, "requests", "minute", 2)
    assert [server.get("/api/core/app/list", key).status_code for _ in range(3)] == [200, 200, 429]
    assert counts(made) == (2, 0)


@pytest.mark.parametrize("path", UNMETERED)
def test_what_a_key_asks_about_itself_is_not_counted(server: Server, path: str) -> None:
    api_key, key = factories.make_key()
    made = [limit(api_key, measure, period, 0) for measure, period in (("requests", "minute"), ("open", "now"))]
    made.append(limit(api_key, "requests", "total", 0, of_team=True))
    check_refusal(server.get("/api/core/app/list", key), "insufficient_quota")
    for _ in range(3):
        response = server.get(path, key)
        assert response.status_code == 200
        assert "ratelimit" not in response.headers
    assert {counts(limit) for limit in made} == {(0, 0)}
    # It leaves no record, and is no use of the key.
    assert not UsageRecord.objects.filter(key=api_key).exists()
    assert not KeyActivity.objects.filter(key=api_key).exists()


def test_a_budget(server: Server, keyed: tuple[ApiKey, str]) -> None:
    api_key, key = keyed
    made = limit(api_key, "requests", "total", 2)
    assert [server.ask(key).status_code for _ in range(2)] == [200, 200]
    message = check_refusal(server.ask(key), "insufficient_quota")
    whose = f"Key ******{key[-4:]}"
    assert message == f"{whose} is over usage. {whose} may make 2 requests in total; none are left."
    Limit.objects.filter(pk=made.pk).update(amount=3)
    assert server.ask(key).status_code == 200
    Limit.objects.filter(pk=made.pk).update(amount=1)
    check_refusal(server.ask(key, stream=True), "insufficient_quota")
    made.delete()
    wait_for(lambda: server.ask(key).status_code == 200, "the limit is gone", seconds=2)


def test_tokens_are_reserved_at_their_most_and_charged_as_used(server: Server, provider: FakeProvider) -> None:
    api_key, key = factories.make_key(app=make_app(provider, max_tokens=100))
    made = limit(api_key, "tokens", "day", 140)
    # 21 for the prompt "hello" with its overhead and 100 for the answer fit; 18 are used.
    assert server.ask(key, "hello").status_code == 200
    assert counts(made) == (18, 0)
    assert server.ask(key, "hello").status_code == 200
    assert counts(made) == (36, 0)
    # The rest would do for a shorter answer only. The refused request took nothing of it.
    refused = server.ask(key, "hello")
    check_refusal(refused, "insufficient_quota")
    assert f'"key-tokens-day-{made.pk}";r=104;t=' in refused.headers["ratelimit"]
    assert server.ask(key, "hello", max_tokens=50).status_code == 200
    assert counts(made) == (54, 0)


def test_more_than_was_reserved_is_charged_all_the_same(server: Server, provider: FakeProvider) -> None:
    """The provider's count wins, also over the bound that was reserved."""
    api_key, key = factories.make_key(app=make_app(provider, max_tokens=1))
    made = limit(api_key, "tokens", "day", 20)
    assert server.ask(key, "x", max_tokens=1).status_code == 200
    assert counts(made) == (18, 0)


def test_points(server: Server, provider: FakeProvider) -> None:
    app = make_app(provider, max_tokens=10)
    factories.set_prices(factories.provider_of(app), "echo", 1_500_000, 333)
    api_key, key = factories.make_key(app=app)
    made = limit(api_key, "micropoints", "month", 10_000_000)
    response = server.ask(key, detail=True)
    # 11 prompt tokens at 1.5 points a thousand, 7 at 0.000333: rounded up to the next millionth.
    assert record_of(response).cost_micropoints == 16_503
    assert response.json()["responseData"][0]["totalPoints"] == 0.016503
    assert counts(made) == (16_503, 0)


def test_requests_at_the_same_time(server: Server, provider: FakeProvider) -> None:
    api_key, key = factories.make_key(app=make_app(provider, "slow"))
    made = limit(api_key, "open", "now", 1)
    connection, _ = open_stream(server, key, factories.unique("open"))
    assert counts(made) == (0, 1)
    refused = server.ask(key, stream=True)
    message = check_refusal(refused, "rate_limit_exceeded")
    assert message == f"Key ******{key[-4:]} may have 1 request open at the same time, and 1 is open."
    # None of them has ended, so nobody knows how long they take.
    assert refused.headers["retry-after"] == "5"
    assert "x-should-retry" not in refused.headers
    connection.close()
    wait_for(lambda: counts(made) == (0, 0), "its place is given back")
    other, _ = open_stream(server, key, factories.unique("open"))
    other.close()


def test_how_long_to_wait_for_those_under_way(server: Server, provider: FakeProvider) -> None:
    """As long as the ones before have taken."""
    app = make_app(provider, "slow")
    api_key, key = factories.make_key(app=app)
    made = limit(api_key, "open", "now", 1)
    connection, _ = open_stream(server, key, factories.unique("brief"))
    connection.close()
    wait_for(lambda: counts(made) == (0, 0), "its place is given back")
    connection, _ = open_stream(server, key, factories.unique("open"))
    refused = server.ask(key)
    check_refusal(refused, "rate_limit_exceeded")
    assert int(refused.headers["retry-after"]) < 5
    connection.close()


def test_a_request_that_no_minute_has_room_for(server: Server, provider: FakeProvider) -> None:
    api_key, key = factories.make_key(app=make_app(provider, max_tokens=100))
    made = limit(api_key, "tokens", "minute", 60)
    refused = server.ask(key, "hello")
    message = check_refusal(refused, "rate_limit_exceeded")
    assert message.endswith("may use 60 tokens a minute; 60 are left, and this request asks for up to 121.")
    assert refused.headers["x-should-retry"] == "false"
    assert server.ask(key, "hello", max_tokens=20).status_code == 200
    assert counts(made) == (18, 0)


def test_room_that_only_others_hold_is_waited_for(server: Server, provider: FakeProvider) -> None:
    """A budget that open requests have reserved is not spent: the refusal says to try again."""
    api_key, key = factories.make_key(app=make_app(provider, "slow"))
    limit(api_key, "requests", "day", 1)
    connection, _ = open_stream(server, key, factories.unique("holding"))
    message = check_refusal(server.ask(key, stream=True), "rate_limit_exceeded")
    assert message.endswith("may make 1 request a day; none are left, and 1 is reserved by open requests.")
    connection.close()
    wait_for(lambda: not Reservation.objects.filter(key=api_key).exists(), "it is settled")
    check_refusal(server.ask(key, stream=True), "insufficient_quota")


def test_a_team_limits_all_its_keys(server: Server, provider: FakeProvider) -> None:
    app = make_app(provider)
    one, first = factories.make_key(app=app)
    _, second = factories.make_key(app=app)
    of_team, of_key = limit(one, "requests", "day", 3, of_team=True), limit(one, "requests", "day", 2)
    assert [server.ask(key).status_code for key in (first, second, first)] == [200, 200, 200]
    check_refusal(server.ask(second), "insufficient_quota")
    assert counts(of_team) == (3, 0)
    assert counts(of_key) == (2, 0)
    # Refused by its team, a request costs nothing at the key's own limits.
    Limit.objects.filter(pk=of_key.pk).update(amount=9)
    check_refusal(server.ask(first), "insufficient_quota")
    assert counts(of_key) == (2, 0)


def test_a_failed_provider_costs_no_tokens(server: Server, provider: FakeProvider) -> None:
    api_key, key = factories.make_key(app=make_app(provider, "status_500"))
    tokens, requests = limit(api_key, "tokens", "day", 10_000), limit(api_key, "requests", "day", 10)
    check_refusal(server.ask(key), "upstream_error")
    assert counts(tokens) == (0, 0)
    assert counts(requests) == (1, 0)


def test_a_new_limit_counts_what_its_period_has_seen(server: Server, keyed: tuple[ApiKey, str]) -> None:
    api_key, key = keyed
    assert [server.ask(key).status_code for _ in range(2)] == [200, 200]
    made = limit(api_key, "requests", "month", 3)
    assert counts(made) == (2, 0)
    wait_for(lambda: "ratelimit" in server.ask(key).headers, "the limit is heard of", seconds=2)


def test_the_key_tells_what_is_left(server: Server, keyed: tuple[ApiKey, str]) -> None:
    api_key, key = keyed
    made = limit(api_key, "requests", "day", 10)
    server.ask(key)
    (told,) = server.get("/api/v1/key", key).json()["data"]["limits"]
    assert told.pop("since")
    assert told == {
        "id": made.pk,
        "scope": "key",
        "measure": "requests",
        "period": "day",
        "timeZone": "UTC",
        "amount": 10,
        "softAmount": None,
        "used": 1,
        "reserved": 0,
        "left": 9,
    }


def test_the_key_tells_fastgpt_s_limits(server: Server) -> None:
    ends = timezone.now() + timedelta(days=3)
    api_key, key = factories.make_key(expires_at=ends)
    assert server.get("/api/v1/key", key).json()["data"]["limit"]["maxUsagePoints"] == -1
    limit(api_key, "micropoints", "total", 2_500_000)
    told = server.get("/api/v1/key", key).json()["data"]["limit"]
    assert told["maxUsagePoints"] == 2.5
    assert datetime.fromisoformat(told["expiredTime"]) == ends


@pytest.fixture
def four_servers(tmp_path: Path) -> Iterator[list[Server]]:
    with ExitStack() as stack:
        yield [stack.enter_context(running_server(tmp_path / f"log{number}")) for number in range(4)]


def test_as_many_at_the_same_time_as_allowed(four_servers: list[Server], provider: FakeProvider) -> None:
    """400 streams that do not end by themselves, at four servers at once, and room for exactly 100."""
    api_key, key = factories.make_key(app=make_app(provider, "slow"))
    made = limit(api_key, "open", "now", 100)
    body = json.dumps({"messages": [{"role": "user", "content": "x"}], "stream": True}).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n"
    with ExitStack() as stack:
        streams = []
        for number in range(400):
            address = ("127.0.0.1", four_servers[number % 4].port)
            streams.append(stack.enter_context(socket.create_connection(address, timeout=30)))
        for stream in streams:
            stream.sendall(head.encode() + b"\r\n" + body)
        tally = Tally(stream.recv(12)[9:] for stream in streams)
        assert tally == {b"200": 100, b"429": 300}
        assert counts(made) == (0, 100)
    wait_for(lambda: counts(made) == (0, 0), "all places are given back")


def fire(servers: list[Server], key: str) -> Tally[int]:
    """400 requests at once, at four server processes."""
    with ExitStack() as stack:
        clients = [stack.enter_context(httpx2.Client(timeout=60, trust_env=False)) for _ in range(32)]

        def ask(number: int) -> int:
            return (
                clients[number % 32]
                .post(
                    servers[number % 4].url + PATH,
                    headers={"Authorization": f"Bearer {key}"},
                    json={"messages": [{"role": "user", "content": "x"}]},
                )
                .status_code
            )

        with ThreadPoolExecutor(32) as pool:
            return Tally(pool.map(ask, range(400)))


@pytest.mark.parametrize("whose", ["key", "team"])
@pytest.mark.parametrize("period", ["total", "minute"])
def test_exact_under_fire(four_servers: list[Server], provider: FakeProvider, period: str, whose: str) -> None:
    """A limit of exactly 100."""
    api_key, key = factories.make_key(app=make_app(provider))
    made = limit(api_key, "requests", period, 100, of_team=whose == "team")
    if period == "minute":
        early_in_a_minute(35)
    assert fire(four_servers, key) == {200: 100, 429: 300}
    assert counts(made) == (100, 0)
    assert UsageRecord.objects.filter(key=api_key).count() == 100


@pytest.mark.parametrize(("measure", "amount"), [("tokens", 2_000), ("micropoints", 2_000_000)])
def test_budgets_under_fire(four_servers: list[Server], provider: FakeProvider, measure: str, amount: int) -> None:
    """Each request reserves more than it uses: what is spent never exceeds the amount, and is what the ledger has."""
    app = make_app(provider, max_tokens=50)
    factories.set_prices(factories.provider_of(app), app.model.name, 1_000_000, 1_000_000)
    api_key, key = factories.make_key(app=app)
    made = limit(api_key, measure, "day", amount)
    tally = fire(four_servers, key)
    answered = UsageRecord.objects.filter(key=api_key)
    assert set(tally) == {200, 429}
    assert answered.count() == tally[200]
    spent = sum(record.cost_micropoints if measure == "micropoints" else 18 for record in answered)
    assert counts(made) == (spent, 0)
    assert 0 < spent <= amount


def forget(server_id: str) -> None:
    """Make it look as if this process had been silent for a minute."""
    past = timezone.now() - timedelta(minutes=1)
    ServerProcess.objects.filter(pk=server_id).update(heartbeat_at=past)
    Reservation.objects.filter(server_id=server_id).update(admitted_at=past)


def test_a_killed_server(server: Server, provider: FakeProvider, tmp_path: Path) -> None:
    """kill -9 in the middle of 200 streams: what a client saw complete is in the ledger, the rest is written off.

    By another server, when the heartbeat has been gone for half a minute.
    """
    app = make_app(provider, "brief", max_tokens=1000)
    api_key, key = factories.make_key(app=app)
    tokens, places = limit(api_key, "tokens", "day", 10**9), limit(api_key, "open", "now", 200)
    complete: list[str] = []
    with running_server(tmp_path / "log") as doomed:
        streams = [open_stream(doomed, key, "killed") for _ in range(200)]
        # Each ends by itself after a while; some have when the server is killed.
        readers = [threading.Thread(target=read_to_the_end, args=(*stream, complete)) for stream in streams]
        for reader in readers:
            reader.start()
        wait_for(lambda: len(complete) >= 20, "some have ended")
        doomed.process.send_signal(signal.SIGKILL)
        doomed.process.wait(30)
        for reader in readers:
            reader.join(30)
    assert 20 <= len(complete) < 200
    records = {record.pk: record for record in UsageRecord.objects.filter(key=api_key)}
    assert {records[request_id].outcome for request_id in complete} == {Outcome.COMPLETE}
    open_ones = set(Reservation.objects.filter(key=api_key).values_list("pk", flat=True))
    assert open_ones == {request_id for _, request_id in streams} - records.keys()
    assert server.is_up()
    wait_for(lambda: not Reservation.objects.filter(key=api_key).exists(), "all are written off", seconds=60)
    assert counts(places) == (0, 0)
    records = {record.pk: record for record in UsageRecord.objects.filter(key=api_key)}
    assert records.keys() == {request_id for _, request_id in streams}
    lost = [record for record in records.values() if record.pk in open_ones]
    assert {record.outcome for record in lost} == {Outcome.LOST}
    # Each of those is charged its prompt's bound: "killed" and the overhead of a message.
    assert {record.prompt_tokens for record in lost} == {6 + 16}
    assert counts(tokens) == (sum(record.prompt_tokens + record.completion_tokens for record in records.values()), 0)
    assert drifted_since(min(tokens.pk, places.pk) - 1) == []


def read_to_the_end(stream: socket.socket, request_id: str, complete: list[str]) -> None:
    """Add the id of an answer that was seen whole."""
    received = b""
    with stream, contextlib.suppress(OSError):
        while piece := stream.recv(65536):
            received += piece
            if received.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"):
                complete.append(request_id)
                return


def test_a_late_settlement_replaces_what_was_written_off(server: Server, provider: FakeProvider) -> None:
    api_key, key = factories.make_key(app=make_app(provider, "slow"))
    tokens = limit(api_key, "tokens", "day", 10**9)
    stream, request_id = open_stream(server, key, "late", chatId="c")
    (server_id,) = set(Reservation.objects.filter(key=api_key).values_list("server_id", flat=True))
    Reservation.objects.filter(pk=request_id).update(server_id="gone")
    forget("gone")
    with connection.cursor() as cursor:
        cursor.execute("SELECT apikeys_expire_reservations(interval '30 s')")
    assert UsageRecord.objects.get(pk=request_id).outcome == Outcome.LOST
    assert counts(tokens) == (4 + 16, 0)
    stream.close()
    record = wait_for(
        lambda: UsageRecord.objects.filter(pk=request_id, outcome=Outcome.CANCELLED).first(), "it is settled"
    )
    assert counts(tokens) == (record.prompt_tokens + record.completion_tokens, 0)
    assert server_id


def test_processes_that_are_alive_are_known(server: Server) -> None:
    assert ServerProcess.objects.filter(heartbeat_at__gt=timezone.now() - timedelta(seconds=15)).exists()
