"""One line of JSON for each request."""

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from chat.models import Conversation, Message
from tests.conftest import Server, running_server
from tests.support import factories
from tests.support.conversations import make_app
from tests.support.fake_provider import FakeProvider
from tests.support.processes import wait_for
from tests.support.refusals import check_refusal


def line_of(server: Server, response: httpx2.Response) -> dict[str, Any]:
    request_id = response.headers["x-request-id"]

    def find() -> dict[str, Any] | None:
        lines = (json.loads(line) for line in server.log().splitlines() if line.endswith("}"))
        return next((line for line in lines if line.get("request_id") == request_id), None)

    return wait_for(find, "the request is logged")


def test_it_works(server: Server, provider: FakeProvider) -> None:
    api_key, key = factories.make_key(app=make_app(provider))
    line = line_of(server, server.ask(key, chatId="c"))
    assert line.pop("duration_ms") >= 0
    assert line.pop("time")
    assert line.pop("request_id")
    assert line == {
        "level": "info",
        "logger": "fastgpt_site.access",
        "message": "request",
        "method": "POST",
        "path": "/api/v1/chat/completions",
        "endpoint": "chat.completions",
        "key_id": api_key.pk,
        "status": 200,
        "client": "127.0.0.1",
    }


def test_a_refusal_names_its_reason_and_its_key(server: Server) -> None:
    api_key, key = factories.make_key()
    line = line_of(server, server.ask(key))
    assert (line["status"], line["error"], line["key_id"]) == (403, "wrong_key_kind", api_key.pk)


def test_no_query_string(server: Server) -> None:
    response = server.get("/api/v1/key?apiKey=do-not-log-me")
    assert line_of(server, response)["path"] == "/api/v1/key"
    assert "do-not-log-me" not in server.log()


def test_no_key_that_somebody_put_into_a_path(server: Server) -> None:
    _, key = factories.make_key()
    for path in (f"/api/v1/{key}/models", f"/{key}", "/api/v1/sk-of-another-system-0123456789/x"):
        line_of(server, server.get(path))
    assert key not in server.log()
    assert "sk-of-another-system" not in server.log()


@pytest.mark.parametrize(
    "key", ["sk-proj-AbCdEfGhIjKlMnOpQr12", "0123456789abcdef0123456789abcdef", "AKIA_0123456789abcdefg"]
)
def test_no_key_of_another_system_that_somebody_put_into_a_path(server: Server, key: str) -> None:
    for path in (f"/{key}", f"/admin/{key}/change/", f"/api/v1/{key}"):
        assert key not in str(line_of(server, server.get(path)))
    assert key not in server.log()


def test_ids_in_a_path_are_logged(server: Server) -> None:
    api_key, _ = factories.make_key()
    path = f"/admin/apikeys/apikey/{api_key.pk}/change/"
    assert line_of(server, server.get(path))["path"] == path


def test_lines_keep_the_order_of_their_requests(server: Server) -> None:
    ids = [server.get("/nothing").headers["x-request-id"] for _ in range(20)]
    logged = server.log()
    places = [logged.index(request_id) for request_id in ids[:-1]]
    assert places == sorted(places)


def test_a_level_above_that_of_requests(tmp_path: Path) -> None:
    with running_server(tmp_path / "log", {"LOG_LEVEL": "WARNING"}, is_ready=False) as server:
        for _ in range(20):
            assert server.get("/nothing").status_code == 404
    assert "fastgpt_site.access" not in server.log()


def test_what_is_not_foreseen_is_a_500_that_quotes_the_request(server: Server, provider: FakeProvider) -> None:
    """A row that no code of ours writes: the caller learns the id, the log has the rest."""
    app = make_app(provider)
    _, key = factories.make_key(app=app)
    conversation = Conversation.objects.create(app=app, chat_id="broken")
    Message.objects.create(conversation=conversation, data_id="d", role="user", content={"no": "text"}, request_id="r")
    response = server.ask(key, chatId="broken")
    message = check_refusal(response, "internal_error")
    assert response.headers["x-request-id"] in message
    assert "Traceback" not in response.text
    assert f"request {response.headers['x-request-id']} failed" in server.log()
    assert server.ask(key).status_code == 200
