"""A provider that fails: the right status, nothing of it or its secret leaks, nothing half-written stays."""

import pytest

from apikeys.accounting.ledger import Outcome
from chat.models import Conversation, Message
from tests.conftest import Server
from tests.support import factories
from tests.support.conversations import content_of, events_of, make_app, make_app_key, record_of, text_of
from tests.support.fake_provider import FakeProvider
from tests.support.refusals import check_body, check_refusal

SECRET = "sk-provider-secret-do-not-leak"
LIMITS = {"connect_seconds": 1, "first_byte_seconds": 1, "between_chunks_seconds": 1, "total_seconds": 2}
BEFORE_THE_FIRST_BYTE = [
    ("status_400", "refused_by_provider"),
    ("status_401", "upstream_error"),
    ("status_429", "upstream_busy"),
    ("status_500", "upstream_error"),
    ("html", "upstream_error"),
    ("redirect", "upstream_error"),
    ("nothing", "upstream_error"),
    ("never", "upstream_timeout"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("model", "error_code"), BEFORE_THE_FIRST_BYTE)
def test_failure_before_the_first_byte(
    server: Server, provider: FakeProvider, model: str, error_code: str, stream: bool
) -> None:
    app = make_app(provider, model, limits=LIMITS)
    its_provider = factories.provider_of(app)
    its_provider.set_secret(SECRET)
    its_provider.save()
    _, key = factories.make_key(app=app)
    calls = len(provider.calls)
    response = server.ask(key, chatId="c", stream=stream)
    check_refusal(response, error_code)
    for leak in (SECRET, str(provider.port), "127.0.0.1"):
        assert leak not in response.text
    assert SECRET not in server.log()
    assert len(provider.calls) == calls + 1, "a call that reached the provider is not repeated"
    assert not Conversation.objects.filter(app=app).exists()
    record = record_of(response)
    assert (record.outcome, record.status) == (Outcome.FAILED, response.status_code)


@pytest.mark.parametrize("stream", [False, True])
def test_nobody_listens_there(server: Server, stream: bool) -> None:
    team = factories.make_team()
    _, key = factories.make_key(app=factories.make_app(team, factories.make_provider(team, "http://127.0.0.1:9/v1")))
    check_refusal(server.ask(key, stream=stream), "upstream_error")


PRIVATE = ["10.1.2.3", "192.168.0.1", "169.254.169.254", "[::1]", "[fd00::1]", "0.0.0.0"]  # noqa: S104


@pytest.mark.parametrize("host", PRIVATE)
def test_a_private_address_is_never_called(server: Server, host: str) -> None:
    team = factories.make_team()
    app = factories.make_app(team, factories.make_provider(team, f"http://{host}:9/v1", connect_seconds=1))
    _, key = factories.make_key(app=app)
    check_refusal(server.ask(key), "upstream_error")


@pytest.mark.parametrize(
    ("model", "error_code", "text"),
    [
        ("half", "upstream_error", "half "),
        ("error_event", "upstream_error", "fine so far"),
        ("stall", "upstream_timeout", "one word "),
    ],
)
@pytest.mark.parametrize("detail", [False, True])
def test_failure_within_the_stream(
    server: Server, provider: FakeProvider, model: str, error_code: str, text: str, detail: bool
) -> None:
    app = make_app(provider, model, limits=LIMITS)
    _, key = factories.make_key(app=app)
    response = server.ask(key, chatId="c", stream=True, detail=detail)
    assert response.status_code == 200
    events = events_of(response.text)
    assert text_of(events) == text
    name, body = events[-1]
    assert name == "error"
    check_body(body, error_code)
    assert "[DONE]" not in response.text
    assert str(provider.port) not in response.text
    assert not Conversation.objects.filter(app=app).exists()
    assert record_of(response).outcome == Outcome.FAILED


def test_half_an_answer(server: Server, provider: FakeProvider) -> None:
    check_refusal(server.ask(make_app_key(provider, "half")), "upstream_error")


@pytest.mark.parametrize("stream", [False, True])
def test_text_that_no_database_takes(server: Server, provider: FakeProvider, stream: bool) -> None:
    app = make_app(provider, "nul")
    _, key = factories.make_key(app=app)
    response = server.ask(key, chatId="c", stream=stream)
    wanted = "a\ufffdb \ufffd c"
    assert (text_of(events_of(response.text)) if stream else content_of(response)) == wanted
    assert Message.objects.get(conversation__app=app, role="assistant").content == wanted


def test_events_in_any_pieces(server: Server, provider: FakeProvider) -> None:
    events = events_of(server.ask(make_app_key(provider, "pieces"), stream=True).text)
    assert text_of(events) == "\u5bfc\u6f14!"
    assert events[-1][1] == "[DONE]"


def test_a_provider_that_hangs_up_after_the_end(server: Server, provider: FakeProvider) -> None:
    response = server.ask(make_app_key(provider, "rude"), stream=True)
    events = events_of(response.text)
    assert text_of(events) == "complete"
    assert events[-1][1] == "[DONE]"
    assert record_of(response).outcome == Outcome.COMPLETE


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_cut_short_says_so(server: Server, provider: FakeProvider, stream: bool) -> None:
    response = server.ask(make_app_key(provider, "cut_short"), stream=stream)
    if stream:
        assert events_of(response.text)[-2][1]["choices"][0]["finish_reason"] == "length"
    else:
        assert response.json()["choices"][0]["finish_reason"] == "length"


def test_headers_do_not_wait_longer_than_ten_seconds(server: Server, provider: FakeProvider) -> None:
    """The provider takes eleven: a comment opens the stream, and what comes late comes all the same."""
    response = server.ask(make_app_key(provider, "late"), "hello", stream=True)
    assert response.text.startswith(": \n\n")
    assert text_of(events_of(response.text)) == "1 messages, the last: hello"
