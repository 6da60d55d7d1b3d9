"""`GET /metrics`: what is counted, and who may read it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from django.test import RequestFactory
from prometheus_client import CollectorRegistry
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from apikeys.accounting.reconciliation import reconcile_and_remember
from fastgpt_site.observability.exposition import AllProcesses, metrics
from fastgpt_site.process.lifespan import BATCHERS
from tests.conftest import Server, running_server
from tests.support import factories
from tests.support.conversations import content_of, make_app, make_app_key
from tests.support.fake_provider import FakeProvider
from tests.support.metrics_text import Samples, parse, value_of
from tests.support.processes import wait_for

TOKEN = "token-of-the-metrics-0123456789abcdef"
NOT_FOUND = {"endpoint": "unknown_path", "status": "404"}
# In TRUSTED_PROXIES, and not.
PROXY, STRANGER = "127.0.0.9", "127.0.0.8"


@pytest.fixture(scope="module")
def guarded_server(database: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    changes = {"METRICS_TOKEN": TOKEN, "METRICS_PER_KEY": "true", "HTTPS": "true"}
    with running_server(tmp_path_factory.mktemp("guarded") / "log", changes, is_ready=False) as server:
        yield server


def scrape(server: Server, **options: Any) -> Samples:
    response = server.get("/metrics", **options)
    assert response.status_code == 200, response.text
    return parse(response.text)


class Moves:
    """By how much series move from here on."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.before = scrape(server)

    def by(self, name: str, **labels: str) -> float:
        return value_of(scrape(self.server), name, **labels) - value_of(self.before, name, **labels)

    def wait_for(self, move: float, name: str, **labels: str) -> None:
        """An answer is counted when it has ended, which is just after its caller has it."""
        wait_for(lambda: self.by(name, **labels) >= move, f"{name} {labels} moves by {move}", seconds=5)
        assert self.by(name, **labels) == move


def test_a_process_that_has_just_begun_its_file(tmp_path: Path) -> None:
    with closing(MmapedDict(str(tmp_path / "counter_1.db"))) as counted:
        counted.write_value(mmap_key("seen", "seen_total", [], [], "Seen."), 3, 0)
    (tmp_path / "counter_2.db").touch()
    (tmp_path / "counter_3.db").symlink_to(tmp_path / "taken away")
    (metric,) = AllProcesses(None, str(tmp_path)).collect()
    assert [sample.value for sample in metric.samples] == [3]


def test_a_scrape_counts_all_that_ended_before_it(server: Server) -> None:
    moves = Moves(server)
    for count in range(1, 11):
        # The next request of a connection is not read before the last one has ended.
        server.get("/nothing")
        assert moves.by("fastgpt_requests_total", **NOT_FOUND) == count


def test_scrapes_at_the_same_time_lose_and_double_nothing(server: Server) -> None:
    moves = Moves(server)

    def ask(_: int) -> int:
        return sum(server.get("/nothing").status_code == 404 for _ in range(100))

    def read(_: int) -> list[float]:
        return [moves.by("fastgpt_requests_total", **NOT_FOUND) for _ in range(30)]

    with ThreadPoolExecutor(8) as pool:
        reads, answers = pool.map(read, range(4)), pool.map(ask, range(4))
        for counts in reads:
            assert counts == sorted(counts)
        assert sum(answers) == 400
    moves.wait_for(400, "fastgpt_requests_total", **NOT_FOUND)
    moves.wait_for(400, "fastgpt_request_duration_seconds_count", endpoint="unknown_path")


def test_a_stop_loses_nothing(tmp_path: Path) -> None:
    """No count, even where nothing but the stop writes what was counted, and no line of the log."""
    folder = tmp_path / "metrics"
    folder.mkdir()
    changes = {"PROMETHEUS_MULTIPROC_DIR": str(folder), "MEASURE_SECONDS": "3600"}
    with running_server(tmp_path / "log", changes, is_ready=False) as server, ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(lambda _: server.get("/nothing").status_code, range(200)))
        assert statuses == [404] * 200
        assert server.ask("fastgpt-nonsense").status_code == 401
        assert "fastgpt_requests" not in {family.name for family in AllProcesses(None, str(folder)).collect()}
    registry = CollectorRegistry()
    AllProcesses(registry, str(folder))
    assert registry.get_sample_value("fastgpt_requests_total", NOT_FOUND) == 200
    durations = {"endpoint": "unknown_path"}
    assert registry.get_sample_value("fastgpt_request_duration_seconds_count", durations) == 200
    assert registry.get_sample_value("fastgpt_refusals_total", {"error": "invalid_api_key"}) == 1
    assert server.log().count('"path":"/nothing"') == 200


def test_the_last_reconciliation(server: Server) -> None:
    found = reconcile_and_remember()
    samples = scrape(server)
    assert value_of(samples, "fastgpt_reconcile_limits") == found.limits
    assert value_of(samples, "fastgpt_reconcile_drifted") == found.drifted
    assert value_of(samples, "fastgpt_reconcile_timestamp_seconds") == pytest.approx(found.at.timestamp(), abs=1)


def test_it_works(server: Server, provider: FakeProvider) -> None:
    key = make_app_key(provider)
    moves = Moves(server)
    for _ in range(3):
        content_of(server.ask(key))
    assert "[DONE]" in server.ask(key, stream=True).text
    of_completions = {"endpoint": "chat.completions"}
    moves.wait_for(4, "fastgpt_requests_total", status="200", **of_completions)
    moves.wait_for(4, "fastgpt_request_duration_seconds_count", **of_completions)
    moves.wait_for(4, "fastgpt_time_to_first_byte_seconds_count", **of_completions)
    moves.wait_for(44, "fastgpt_tokens_total", kind="prompt", source="provider")
    moves.wait_for(28, "fastgpt_tokens_total", kind="completion", source="provider")
    assert moves.by("fastgpt_request_duration_seconds_sum", **of_completions) > 0
    response = server.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    assert "_created" not in response.text


def test_tokens_that_the_provider_did_not_report(server: Server, provider: FakeProvider) -> None:
    key = make_app_key(provider, "no_usage")
    moves = Moves(server)
    usage = server.ask(key).json()["usage"]
    moves.wait_for(usage["prompt_tokens"], "fastgpt_tokens_total", kind="prompt", source="bound")
    moves.wait_for(usage["completion_tokens"], "fastgpt_tokens_total", kind="completion", source="bound")


def test_refusals_are_counted_by_code(server: Server, provider: FakeProvider) -> None:
    _, global_key = factories.make_key()
    moves = Moves(server)
    for _ in range(2):
        assert server.ask(global_key).status_code == 403
    assert server.ask("fastgpt-nonsense").status_code == 401
    assert server.ask(make_app_key(provider, "status_500")).status_code == 502
    moves.wait_for(2, "fastgpt_refusals_total", error="wrong_key_kind")
    moves.wait_for(1, "fastgpt_refusals_total", error="invalid_api_key")
    moves.wait_for(1, "fastgpt_refusals_total", error="upstream_error")
    moves.wait_for(2, "fastgpt_requests_total", endpoint="chat.completions", status="403")
    # The provider gave no byte.
    assert moves.by("fastgpt_time_to_first_byte_seconds_count", endpoint="chat.completions") == 0


def test_an_error_within_a_stream_is_a_refusal_too(server: Server, provider: FakeProvider) -> None:
    key = make_app_key(provider, "error_event")
    moves = Moves(server)
    assert server.ask(key, stream=True).status_code == 200
    moves.wait_for(1, "fastgpt_refusals_total", error="upstream_error")
    moves.wait_for(1, "fastgpt_requests_total", endpoint="chat.completions", status="200")
    moves.wait_for(1, "fastgpt_time_to_first_byte_seconds_count", endpoint="chat.completions")


def test_an_open_stream(server: Server, provider: FakeProvider) -> None:
    """Counted while it runs; left by its caller, it is an answer that ended all the same."""
    key = make_app_key(provider, "stall")
    moves = Moves(server)
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    headers = {"Authorization": f"Bearer {key}"}
    with (
        httpx2.Client(base_url=server.url, timeout=30, trust_env=False) as client,
        client.stream("POST", "/api/v1/chat/completions", json=body, headers=headers) as response,
    ):
        pieces = response.iter_bytes()
        assert next(pieces)
        moves.wait_for(1, "fastgpt_open_streams")
        # The stream, and the reading itself.
        wait_for(lambda: value_of(scrape(server), "fastgpt_open_requests") >= 1, "the open request")
        assert moves.by("fastgpt_requests_total", endpoint="chat.completions", status="200") == 0
    moves.wait_for(1, "fastgpt_requests_total", endpoint="chat.completions", status="200")
    moves.wait_for(1, "fastgpt_time_to_first_byte_seconds_count", endpoint="chat.completions")
    assert moves.by("fastgpt_open_streams") == 0


def test_a_caller_that_left_before_the_answer(server: Server, provider: FakeProvider) -> None:
    key = make_app_key(provider, "never")
    body = {"messages": [{"role": "user", "content": "hi"}]}
    moves = Moves(server)
    with pytest.raises(httpx2.ReadTimeout):
        server.post("/api/v1/chat/completions", key, json=body, timeout=0.5)
    moves.wait_for(1, "fastgpt_requests_total", endpoint="chat.completions", status="gone")


def test_unknown_paths_share_one_value(server: Server) -> None:
    moves = Moves(server)
    for path in ("/invented-1", "/invented-2/metrics", "/api/invented-3", "/v1/invented-4"):
        assert server.get(path).status_code == 404
    moves.wait_for(4, "fastgpt_requests_total", endpoint="unknown_path", status="404")
    assert server.request("OPTIONS", "/api/invented-5").status_code == 204
    moves.wait_for(1, "fastgpt_requests_total", endpoint="api", status="204")
    assert server.get("/healthz").status_code == 200
    moves.wait_for(1, "fastgpt_requests_total", endpoint="healthz", status="200")
    assert "invented" not in server.get("/metrics").text


def test_the_machinery_is_told(server: Server, provider: FakeProvider) -> None:
    key = make_app_key(provider)
    server.ask(key)
    moves = Moves(server)
    server.ask(key)
    wait_for(lambda: moves.by("fastgpt_cache_hits_total", cache="key-lookup") >= 1, "a hit")
    wait_for(lambda: moves.by("fastgpt_cache_hits_total", cache="app-lookup") >= 1, "a hit")
    server.ask(make_app_key(provider))
    wait_for(lambda: moves.by("fastgpt_cache_misses_total", cache="key-lookup") >= 1, "a miss")
    samples = scrape(server)
    assert 0 <= samples["fastgpt_listener_lag_seconds", frozenset()] < 3
    batchers = {dict(labels)["batcher"] for name, labels in samples if name == "fastgpt_batcher_queue_length"}
    assert (
        batchers
        == {batcher.name for batcher in BATCHERS}
        >= {"key-lookup", "app-lookup", "reserve", "recorder", "usage"}
    )
    wait_for(lambda: value_of(scrape(server), "fastgpt_server_processes") >= 1, "the heartbeat")


def test_no_key_is_named(server: Server, provider: FakeProvider) -> None:
    api_key, key = factories.make_key(app=make_app(provider))
    moves = Moves(server)
    server.ask(key)
    moves.wait_for(1, "fastgpt_requests_total", endpoint="chat.completions", status="200")
    text = server.get("/metrics").text
    assert "key_id" not in text
    assert api_key.pk not in text


def test_each_key_is_named_where_that_is_wanted(guarded_server: Server) -> None:
    api_key, key = factories.make_key()
    headers = {"X-Forwarded-Proto": "https"}
    with client_from(PROXY, guarded_server) as client:
        for _ in range(2):
            client.get("/api/v1/key", headers={**headers, "Authorization": f"Bearer {key}"})
        assert client.get("/api/v1/key", headers=headers).status_code == 401
    of_key = {"endpoint": "key.self", "status": "200", "key_id": api_key.pk}
    of_none = {"endpoint": "key.self", "status": "401", "key_id": ""}

    def counted(labels: dict[str, str]) -> float:
        return value_of(scrape(guarded_server, key=TOKEN), "fastgpt_requests_total", **labels)

    wait_for(lambda: counted(of_key) == 2, "two requests of the key")
    wait_for(lambda: counted(of_none) == 1, "one request of no key")
    assert key not in guarded_server.get("/metrics", TOKEN).text


def test_with_a_token(guarded_server: Server) -> None:
    """Also where the site is reached over HTTPS only: the machine is asked past its proxy."""
    assert guarded_server.get("/metrics", TOKEN).status_code == 200
    assert guarded_server.get("/metrics", headers={"Authorization": f"bearer  {TOKEN}"}).status_code == 200
    with client_from(STRANGER, guarded_server, {"X-Forwarded-For": "203.0.113.9"}) as client:
        assert client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


@pytest.mark.parametrize(
    "header",
    [None, "", TOKEN, f"Basic {TOKEN}", "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer ß"],
)
def test_without_the_token(guarded_server: Server, header: str | None) -> None:
    """Not even for this machine."""
    headers = {} if header is None else {"Authorization": header.encode()}
    check_forbidden(guarded_server.request("GET", "/metrics", headers=headers), "Send METRICS_TOKEN as:")


@pytest.mark.parametrize("address", [STRANGER, PROXY])
def test_without_a_token_from_this_machine(server: Server, address: str) -> None:
    with client_from(address, server) as client:
        assert client.get("/metrics").status_code == 200


@pytest.mark.parametrize("address", [STRANGER, PROXY])
@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "203.0.113.9"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Forwarded-For": "203.0.113.9, 127.0.0.1"},
        {"X-Forwarded-For": ""},
        {"X-Forwarded-Host": "example.org"},
        {"X-Forwarded-Proto": "https"},
        {"Forwarded": "for=203.0.113.9"},
        {"X-Real-IP": "203.0.113.9"},
        {"Via": "1.1 proxy"},
    ],
    ids=str,
)
def test_through_a_proxy_on_this_machine(server: Server, address: str, headers: dict[str, str]) -> None:
    with client_from(address, server, headers) as client:
        check_forbidden(client.get("/metrics"), "only this machine may read the metrics")


@pytest.mark.parametrize("address", ["203.0.113.9", "10.0.0.1", "::ffff:203.0.113.9", "2001:db8::1", ""])
def test_from_elsewhere(address: str) -> None:
    assert metrics(RequestFactory().get("/metrics", REMOTE_ADDR=address)).status_code == 403


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_loopback_in_every_spelling(address: str) -> None:
    assert metrics(RequestFactory().get("/metrics", REMOTE_ADDR=address)).status_code == 200


def client_from(address: str, server: Server, headers: dict[str, str] | None = None) -> httpx2.Client:
    transport = httpx2.HTTPTransport(local_address=address)
    return httpx2.Client(base_url=server.url, transport=transport, headers=headers, trust_env=False, timeout=30)


def check_forbidden(response: httpx2.Response, reason: str) -> None:
    assert response.status_code == 403
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert reason in response.text
    assert "fastgpt_" not in response.text
