"""Callers that leave, stall, or come at once; and a server that is told to end."""

import http.client
import json
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from apikeys.accounting.ledger import Outcome, UsageRecord
from tests.conftest import Server, running_server
from tests.support import factories
from tests.support.conversations import content_of, make_app, messages_of, record_of
from tests.support.fake_provider import FakeProvider
from tests.support.processes import wait_for
from tests.support.refusals import check_refusal

PATH = "/api/v1/chat/completions"


def open_stream(server: Server, key: str, question: str, **body: object) -> tuple[socket.socket, str]:
    """Ask for a stream, read its head and its first text; return the connection and the request's id."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    raw = json.dumps({"messages": [{"role": "user", "content": question}], "stream": True, **body}).encode()
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(raw)}\r\n\r\n"
    )
    connection.sendall(head.encode() + raw)
    received = b""
    while b'"content":"w' not in received and b'"content":"x' not in received:
        piece = connection.recv(4096)
        assert piece, received
        received += piece
    _, _, rest = received.partition(b"x-request-id: ")
    return connection, rest[:24].decode()


def recorded(request_id: str) -> UsageRecord:
    return wait_for(lambda: UsageRecord.objects.filter(pk=request_id).first(), "the request is recorded")


def test_a_client_that_leaves_in_the_middle(server: Server, provider: FakeProvider) -> None:
    app = make_app(provider, "slow")
    _, key = factories.make_key(app=app)
    question = factories.unique("leaving")
    connection, request_id = open_stream(server, key, question, chatId="c")
    left = time.monotonic()
    connection.close()
    provider_left = wait_for(lambda: provider.left_at.get(question), "the provider's call is cancelled")
    assert provider_left - left < 1
    record = recorded(request_id)
    assert (record.outcome, record.status) == (Outcome.CANCELLED, 200)
    assert record.completion_tokens > 0
    (asked, answered) = messages_of(app, "c")
    assert asked == ("user", question, "cancelled")
    assert answered[1].startswith("word0 ")
    assert answered[2] == "cancelled"
    # To leave is no fault of the server.
    assert "CancelledError" not in server.log()


@pytest.mark.parametrize("length", [0, 200_000], ids=["", "after a long question"])
def test_a_client_that_leaves_before_the_answer(server: Server, provider: FakeProvider, length: int) -> None:
    for stream in (False, True):
        app = make_app(provider, "never")
        api_key, key = factories.make_key(app=app)
        question = factories.unique("leaving early") + "." * length
        body = json.dumps({"messages": [{"role": "user", "content": question}], "stream": stream, "chatId": "c"})
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("POST", PATH, body, {"Authorization": f"Bearer {key}"})
        wait_for(lambda question=question: provider.calls_about(question), "the provider is asked")
        connection.close()
        wait_for(lambda question=question: provider.left_at.get(question), "the call is cancelled", seconds=2)
        record = wait_for(lambda api_key=api_key: UsageRecord.objects.filter(key=api_key).first(), "it is recorded")
        assert record.outcome == Outcome.CANCELLED
        assert messages_of(app, "c") == []


def test_a_client_that_asked_for_more_before_it_left(server: Server, provider: FakeProvider) -> None:
    """Two requests in one packet: the server is told of the end by the second one only."""
    app = make_app(provider, "never")
    api_key, key = factories.make_key(app=app)
    question = factories.unique("pipelined")
    body = json.dumps({"messages": [{"role": "user", "content": question}]}).encode()
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    connection.sendall(head.encode() + body + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    wait_for(lambda: provider.calls_about(question), "the provider is asked")
    connection.close()
    wait_for(lambda: provider.left_at.get(question), "the call is cancelled", seconds=3)
    record = wait_for(lambda: UsageRecord.objects.filter(key=api_key).first(), "it is recorded")
    assert record.outcome == Outcome.CANCELLED


def test_a_reader_that_takes_nothing_is_ended(server: Server, provider: FakeProvider) -> None:
    """Two seconds in these tests. Meanwhile the provider is slowed down, and the server's memory does not grow."""
    app = make_app(provider, "flood")
    _, key = factories.make_key(app=app)
    connection, request_id = open_stream(server, key, "flood me")
    before = memory_of(server)
    record = recorded(request_id)
    assert record.outcome == Outcome.CANCELLED
    assert record.duration_ms >= 2000
    assert memory_of(server) - before < 30 * 1024 * 1024
    connection.close()


def test_readers_that_take_nothing_take_little(provider: FakeProvider, tmp_path: Path) -> None:
    """Megabytes come at once from the provider for each of them."""
    _, key = factories.make_key(app=make_app(provider, "flood"))
    body = json.dumps({"messages": [{"role": "user", "content": "flood me"}], "stream": True})
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    number = 40
    with running_server(tmp_path / "log", {"STREAM_STALL_SECONDS": "60"}) as server, ExitStack() as stack:
        before = memory_of(server)
        for _ in range(number):
            reader = stack.enter_context(socket.socket())
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect(("127.0.0.1", server.port))
            reader.sendall((head + body).encode())
        sizes = []
        # Until it grows no more.
        while len(sizes) < 4 or sizes[-1] > sizes[-4] + 2**20:
            time.sleep(1)
            sizes.append(memory_of(server))
        assert sizes[-1] > before
        assert (sizes[-1] - before) / number < 1024 * 1024


def memory_of(server: Server) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def test_two_requests_on_one_chat_at_once(server: Server, provider: FakeProvider) -> None:
    app = make_app(provider)
    _, key = factories.make_key(app=app)
    questions = [f"question {number}" for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(lambda question: ask_alone(server, key, question), questions))
    answers = {question: content_of(response) for question, response in zip(questions, responses, strict=True)}
    stored = messages_of(app, "shared")
    assert len(stored) == 48
    for asked, answered in zip(stored[::2], stored[1::2], strict=True):
        assert (asked[0], answered[0]) == ("user", "assistant")
        assert answered[1] == answers[asked[1]]


def ask_alone(server: Server, key: str, question: str, **body: object) -> httpx2.Response:
    with httpx2.Client(timeout=30, trust_env=False) as client:
        return client.post(
            server.url + PATH,
            headers={"Authorization": f"Bearer {key}"},
            json={"messages": [{"role": "user", "content": question}], "chatId": "shared", **body},
        )


def test_racing_for_one_answer_id(server: Server, provider: FakeProvider) -> None:
    """Both passed the check before either was stored: both are stored, one of them under an id of ours."""
    app = make_app(provider)
    _, key = factories.make_key(app=app)
    with ThreadPoolExecutor(8) as pool:
        responses = list(
            pool.map(lambda number: ask_alone(server, key, f"q{number}", responseChatItemId="mine"), range(8))
        )
    accepted = [response for response in responses if response.status_code == 200]
    assert {response.status_code for response in responses} <= {200, 400}
    assert accepted
    stored = messages_of(app, "shared")
    assert len(stored) == 2 * len(accepted)


def test_racing_for_one_answer_id_in_two_processes(server: Server, provider: FakeProvider, tmp_path: Path) -> None:
    app = make_app(provider)
    _, key = factories.make_key(app=app)
    with running_server(tmp_path / "log") as other, ThreadPoolExecutor(12) as pool:
        for round_number in range(4):
            each = [server, other] * 6
            responses = list(
                pool.map(lambda s, n=round_number: ask_alone(s, key, "q", responseChatItemId=f"mine{n}"), each)
            )
            for response in responses:
                if response.status_code == 200:
                    assert record_of(response).outcome == Outcome.COMPLETE
                else:
                    check_refusal(response, "invalid_parameter", param="responseChatItemId")


def test_a_server_told_to_end_records_what_is_open(provider: FakeProvider, tmp_path: Path) -> None:
    app = make_app(provider, "slow")
    _, key = factories.make_key(app=app)
    with running_server(tmp_path / "log") as server:
        connection, request_id = open_stream(server, key, factories.unique("outcome"), chatId="c")
        server.process.send_signal(signal.SIGTERM)
        # uvicorn ends by the signal that ended it, once everything is done.
        assert server.process.wait(60) in (0, -signal.SIGTERM)
        assert "Traceback" not in server.log()
    connection.close()
    record = UsageRecord.objects.get(pk=request_id)
    assert record.outcome == Outcome.CANCELLED
    assert len(messages_of(app, "c")) == 2


def test_a_second_server_process_hears_of_a_revocation(server: Server, provider: FakeProvider, tmp_path: Path) -> None:
    api_key, key = factories.make_key(app=make_app(provider))
    with running_server(tmp_path / "log") as other:
        assert record_of(server.ask(key)).key_id == record_of(other.ask(key)).key_id == api_key.pk
        api_key.revoke(by="test", reason="leaked")
        for each in (server, other):
            wait_for(lambda each=each: each.ask(key).status_code == 401, "the revocation acts", seconds=2)


def test_a_full_server_refuses_and_recovers(provider: FakeProvider, tmp_path: Path) -> None:
    """Room for a record is held from the start: what could not be recorded is not begun."""
    _, slow = factories.make_key(app=make_app(provider, "slow"))
    _, quick = factories.make_key(app=make_app(provider))
    with running_server(tmp_path / "log", {"RECORDER_QUEUE_SIZE": "1"}) as server:
        connection, _ = open_stream(server, slow, factories.unique("occupying"))
        check_refusal(server.ask(quick), "service_unavailable")
        check_refusal(server.ask(quick, stream=True), "service_unavailable")
        connection.close()
        wait_for(lambda: server.ask(quick).status_code == 200, "there is room again")


def test_no_team_takes_the_room_of_others(provider: FakeProvider, tmp_path: Path) -> None:
    app = make_app(provider, "slow")
    greedy = [factories.make_key(app=app)[1] for _ in range(2)]
    _, other = factories.make_key(app=make_app(provider))
    with running_server(tmp_path / "log", {"RECORDER_QUEUE_SIZE": "4"}) as server:
        held = [open_stream(server, key, factories.unique("greedy"))[0] for key in greedy]
        check_refusal(server.ask(greedy[0]), "service_unavailable")
        assert server.ask(other).status_code == 200
        for connection in held:
            connection.close()


def test_no_key_has_too_many_requests_under_way(provider: FakeProvider, tmp_path: Path) -> None:
    app = make_app(provider, "slow")
    (_, greedy), (_, other) = factories.make_key(app=app), factories.make_key(app=app)
    with running_server(tmp_path / "log", {"MAX_OPEN_REQUESTS_PER_KEY": "3"}) as server:
        held = [open_stream(server, greedy, factories.unique("greedy"))[0] for _ in range(3)]
        refused = server.ask(greedy)
        check_refusal(refused, "too_many_open_requests")
        assert refused.headers["retry-after"] == "5"
        assert server.get("/api/v1/key", greedy).json()["data"]["maxOpenRequests"] == 3
        held.append(open_stream(server, other, factories.unique("other"))[0])
        held.pop(0).close()
        wait_for(lambda: server.ask(greedy, stream=True).status_code == 200, "there is room again")
        for connection in held:
            connection.close()
