"""`apikey revoke`: over when every server process refuses the key; and what is being answered, cut when asked."""

import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection as django_connection
from django.utils import timezone

from apikeys.accounting.ledger import Outcome, Refusal, UsageRecord
from apikeys.accounting.limits import Counter, Limit
from apikeys.hot_path import broadcasts
from apikeys.hot_path.connections import connect
from apikeys.hot_path.listener import SILENCE_SECONDS
from apikeys.hot_path.servers import ServerProcess
from apikeys.keys.models import ApiKey
from chat.models import App
from tests.api.test_completions_leaving import PATH, open_stream, recorded
from tests.conftest import Server, running_server
from tests.support import factories
from tests.support.commands import call, manage, refusal
from tests.support.conversations import events_of, make_app, messages_of
from tests.support.fake_provider import FakeProvider
from tests.support.processes import wait_for
from tests.support.refusals import check_body, check_refusal


@pytest.fixture(scope="module", autouse=True)
def alone(database: None) -> None:
    """Processes that other tests killed with `kill -9` are forgotten: they count as alive for a while."""
    ServerProcess.objects.all().delete()


@contextmanager
def two_servers(tmp_path: Path) -> Iterator[list[Server]]:
    with ExitStack() as stack:
        both = [stack.enter_context(running_server(tmp_path / f"log{number}")) for number in range(2)]
        pids = {server.process.pid for server in both}
        wait_for(lambda: pids <= set(ServerProcess.objects.values_list("pid", flat=True)), "both are registered")
        yield both


def revoke(api_key: ApiKey, *options: str) -> str:
    out, _ = call("apikey", "revoke", api_key.pk, "--reason", "leaked", *options)
    return out


def rest_of(connection: socket.socket) -> str:
    """Whatever else comes before the connection or the answer ends."""
    received = b""
    with connection:
        connection.settimeout(30)
        while not received.endswith(b"0\r\n\r\n"):
            piece = connection.recv(65536)
            if not piece:
                break
            received += piece
    return received.decode()


def test_it_works(provider: FakeProvider, tmp_path: Path) -> None:
    """Used at both servers, revoked, and refused at both by the time the command returns: twenty times over."""
    app = make_app(provider)
    with two_servers(tmp_path) as both:
        for _ in range(20):
            api_key, key = factories.make_key(app=app)
            assert {server.ask(key).status_code for server in both} == {200}
            out = revoke(api_key)
            for server in both:
                check_refusal(server.ask(key), "revoked_api_key")
            assert "have acknowledged it." in out
    api_key.refresh_from_db()
    assert api_key.revocation_acknowledged_at is not None
    assert api_key.unacknowledged_servers == []


def test_a_process_that_does_not_answer_is_named(server: Server, provider: FakeProvider, tmp_path: Path) -> None:
    api_key, key = factories.make_key(app=make_app(provider))
    with two_servers(tmp_path) as (one, other):
        assert {one.ask(key).status_code, other.ask(key).status_code} == {200}
        other.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        try:
            result = manage("apikey", "revoke", api_key.pk, "--reason", "leaked")
            assert result.returncode == 0
            assert f"not acknowledged within 2 s: {socket.gethostname()} process {other.process.pid}." in result.stderr
            check_refusal(one.ask(key), "revoked_api_key")
            api_key.refresh_from_db()
            assert len(api_key.unacknowledged_servers) == 1
            assert api_key.revocation_acknowledged_at is None
            # It stays away for longer than it believes what it cached.
            time.sleep(max(0, began + SILENCE_SECONDS - time.monotonic()))
        finally:
            other.process.send_signal(signal.SIGCONT)
        check_refusal(other.ask(key), "revoked_api_key")


def test_a_process_that_enters_in_the_meantime_is_not_waited_for(server: Server, tmp_path: Path) -> None:
    """It has cached nothing from before, and calls made before it was counted are none of its."""
    with running_server(tmp_path / "log"):
        entering = ServerProcess.objects.filter(pid=server.process.pid)
        entering.delete()
        missing: list[str] = []
        began = time.monotonic()
        while not entering.exists():
            assert time.monotonic() - began < 10, "it did not enter again"
            for _ in range(20):
                missing += broadcasts.broadcast().missing
    assert missing == []


def test_dead_processes_drop_out(server: Server) -> None:
    past = timezone.now() - timedelta(seconds=broadcasts.LIVE_SECONDS + 1)
    ServerProcess.objects.create(id="dead", host="elsewhere", pid=1, heartbeat_at=past)
    api_key, _ = factories.make_key()
    assert "elsewhere" not in revoke(api_key)
    ServerProcess.objects.filter(pk="dead").delete()


def test_json(server: Server) -> None:
    api_key, _ = factories.make_key()
    facts = json.loads(revoke(api_key, "--json"))
    assert facts["why_unusable"] == "It was revoked."
    assert f"{socket.gethostname()} process {server.process.pid}" in facts["acknowledged_by"]
    assert facts["not_acknowledged_by"] == []


def test_streams_go_on_unless_asked(server: Server, provider: FakeProvider) -> None:
    api_key, key = factories.make_key(app=make_app(provider, "slow"))
    connection, request_id = open_stream(server, key, factories.unique("going on"))
    revoke(api_key)
    assert connection.recv(4096)
    assert connection.recv(4096)
    assert not UsageRecord.objects.filter(pk=request_id).exists()
    connection.close()


def test_streams_are_cut_when_asked(server: Server, provider: FakeProvider) -> None:
    app = make_app(provider, "slow")
    api_key, key = factories.make_key(app=app)
    other_key = factories.make_key(app=app)[1]
    made = Limit.objects.create(team=app.team, key=api_key, measure="open", period="now", amount=5)
    wait_for(lambda: "limits" in server.get("/api/v1/key", other_key).text, "limits are heard of", seconds=2)
    question = factories.unique("cut")
    connection, request_id = open_stream(server, key, question, chatId="c")
    other, _ = open_stream(server, other_key, factories.unique("other"))
    began = time.monotonic()
    revoke(api_key, "--terminate-streams")
    text = rest_of(connection)
    assert time.monotonic() - began < 1
    name, body = events_of(text.replace("\r\n", "\n"))[-1]
    assert name == "error"
    check_body(body, "revoked_api_key")
    assert "[DONE]" not in text
    record = recorded(request_id)
    assert (record.outcome, record.status) == (Outcome.TERMINATED, 200)
    assert record.completion_tokens > 0
    assert messages_of(app, "c")[1][2] == "terminated"
    wait_for(lambda: provider.left_at.get(question), "the provider's call is ended", seconds=2)
    counter = Counter.objects.get(limit=made)
    assert (counter.used, counter.reserved) == (0, 0)
    # Another key of the same app is left alone.
    assert other.recv(4096)
    other.close()


@pytest.mark.parametrize("stream", [False, True])
def test_what_has_not_begun_to_answer_is_cut_too(server: Server, provider: FakeProvider, stream: bool) -> None:
    api_key, key = factories.make_key(app=make_app(provider, "never"))
    question = factories.unique("silent")
    body = json.dumps({"messages": [{"role": "user", "content": question}], "stream": stream}).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head.encode() + b"\r\n" + body)
        wait_for(lambda: provider.calls_about(question), "the provider is asked")
        revoke(api_key, "--terminate-streams")
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")
    record = wait_for(lambda: UsageRecord.objects.filter(key=api_key).first(), "it is recorded")
    assert (record.outcome, record.status) == (Outcome.TERMINATED, 401)
    # The prompt was used, so this was no refusal that cost nothing.
    assert record.prompt_tokens > 0
    check_refusal(server.ask(key), "revoked_api_key")
    wait_for(lambda: Refusal.objects.filter(key=api_key).first(), "the next one is")
    assert not Refusal.objects.filter(pk=record.pk).exists()


def test_what_has_not_been_asked_yet_costs_nothing(server: Server, provider: FakeProvider) -> None:
    """Cut while it waits for its reservation."""
    api_key, key = factories.make_key(app=make_app(provider, "never"))
    made = Limit.objects.create(team=api_key.team, key=api_key, measure="tokens", period="total", amount=10**6)
    question = factories.unique("early")
    body = json.dumps({"messages": [{"role": "user", "content": question}]}).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as stream:
        with connect() as holder, holder.transaction():
            holder.execute("SELECT 1 FROM apikeys_counter WHERE limit_id = %s FOR UPDATE", [made.pk])
            stream.sendall(head.encode() + b"\r\n" + body)
            wait_for(lambda: waiting_for_a_lock(), "it waits for its reservation")
            broadcasts.broadcast(terminated_keys=[api_key.pk], is_revoked=True)
        assert stream.recv(65536).startswith(b"HTTP/1.1 401 ")
    record = wait_for(lambda: UsageRecord.objects.filter(key=api_key, outcome="terminated").first(), "it is kept")
    assert (record.prompt_tokens, record.completion_tokens) == (0, 0)
    assert not provider.calls_about(question)


def waiting_for_a_lock() -> bool:
    with django_connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(cursor.fetchone()[0])


def test_a_reader_that_takes_nothing_is_cut_too(server: Server, provider: FakeProvider) -> None:
    api_key, key = factories.make_key(app=make_app(provider, "flood"))
    connection, request_id = open_stream(server, key, factories.unique("stalling"))
    revoke(api_key, "--terminate-streams")
    record = recorded(request_id)
    assert record.outcome == Outcome.TERMINATED
    connection.close()


def check_a_late_body(server: Server, provider: FakeProvider, revoke: Callable[[ApiKey], object]) -> None:
    """The key was good when the head came, and is revoked before the body is whole."""
    api_key, key = factories.make_key(app=make_app(provider))
    assert server.ask(key).status_code == 200
    body = json.dumps({"messages": [{"role": "user", "content": "late"}]}).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head.encode() + b"\r\n" + body[:5])
        # Answered on another connection, so the head above has been read.
        assert server.ask(key).status_code == 200
        revoke(api_key)
        connection.sendall(body[5:])
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")
    assert UsageRecord.objects.filter(key=api_key).count() == 2


def test_a_body_that_was_still_coming(server: Server, provider: FakeProvider) -> None:
    check_a_late_body(server, provider, revoke)


def test_a_body_that_was_still_coming_to_a_process_that_hears_nothing(provider: FakeProvider, tmp_path: Path) -> None:
    changes = {"DATABASE_DIRECT_URL": "postgres://nobody@127.0.0.1:1/none"}
    with running_server(tmp_path / "log", changes, is_ready=False) as deaf:
        assert deaf.get("/readyz").json()["parts"]["listener"] != "ok"
        check_a_late_body(deaf, provider, lambda api_key: api_key.revoke(by="test", reason="leaked"))


def test_an_archived_app(server: Server, provider: FakeProvider) -> None:
    app = make_app(provider, "slow")
    _, key = factories.make_key(app=app)
    connection, request_id = open_stream(server, key, factories.unique("archived"))
    App.objects.filter(pk=app.pk).update(archived_at=timezone.now())
    broadcasts.broadcast(terminated_app=app.pk)
    name, body = events_of(rest_of(connection).replace("\r\n", "\n"))[-1]
    assert name == "error"
    check_body(body, "appUnExist")
    assert recorded(request_id).outcome == Outcome.TERMINATED


def test_a_disabled_key_is_cut_too(server: Server, provider: FakeProvider) -> None:
    api_key, key = factories.make_key(app=make_app(provider, "slow"))
    connection, _ = open_stream(server, key, factories.unique("disabled"))
    out, _ = call("apikey", "disable", api_key.pk, "--terminate-streams")
    assert "have acknowledged it." in out
    name, body = events_of(rest_of(connection).replace("\r\n", "\n"))[-1]
    assert name == "error"
    check_body(body, "disabled_api_key")


def test_revoked_already(server: Server) -> None:
    api_key, _ = factories.make_key()
    revoke(api_key)
    assert "The key was already revoked" in refusal(manage("apikey", "revoke", api_key.pk, "--reason", "again"))


def test_without_a_reason() -> None:
    api_key, _ = factories.make_key()
    assert "--reason" in refusal(manage("apikey", "revoke", api_key.pk))
