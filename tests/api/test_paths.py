"""The BaseURL, its other spellings, and everything that is not routed."""

import pytest

from tests.conftest import Server
from tests.support import factories
from tests.support.conversations import make_app_key
from tests.support.fake_provider import FakeProvider
from tests.support.refusals import check_refusal

USER = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize("root", ["/api/v1", "/v1", "/api/openapi/v1"])
@pytest.mark.parametrize("slash", ["", "/"])
def test_every_root_with_and_without_a_slash(server: Server, provider: FakeProvider, root: str, slash: str) -> None:
    key = make_app_key(provider)
    response = server.post(f"{root}/chat/completions{slash}", key, json=USER)
    assert response.status_code == 200
    assert server.get(f"{root}/key{slash}", key).status_code == 200


@pytest.mark.parametrize("path", ["/api", "/api/"])
def test_the_base_url_is_no_endpoint(server: Server, path: str) -> None:
    message = check_refusal(server.get(path), "not_found")
    assert "BaseURL" in message
    assert "docs/api.md" in message


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/api/nothing", "/api/core/chat/init", "/v1/nothing", "/api/v1/images", "/v1"])
def test_unknown_paths_answer_json(server: Server, method: str, path: str) -> None:
    check_refusal(server.request(method, path), "not_found")


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/api/chat/completions", "/api/v1/chat/completions"),
        ("/v1/v1/chat/completions", "/api/v1/chat/completions"),
        ("/api//v1//chat/completions", "/api/v1/chat/completions"),
        ("/api/v1/chat/completion", "/api/v1/chat/completions"),
        ("/api/v1/core/dataset/list", "/api/core/dataset/list"),
        ("/v1/model", "/api/v1/models"),
    ],
)
def test_a_path_that_is_nearly_right_is_told_which_was_meant(server: Server, path: str, meant: str) -> None:
    assert check_refusal(server.post(path), "not_found").endswith(f"Did you mean {meant}?")


@pytest.mark.parametrize("path", ["/api/nothing", "/v1/images", "/api/v1/" + "chat/completions/" * 20])
def test_a_path_that_is_like_none_is_told_nothing(server: Server, path: str) -> None:
    assert "mean" not in check_refusal(server.post(path), "not_found")


def test_a_key_in_a_url_is_told_where_to_go(server: Server) -> None:
    _, key = factories.make_key()
    response = server.get(f"/api/support/openapi/health?apiKey={key}")
    message = check_refusal(response, "not_found")
    assert "v1/key" in message
    assert key not in response.text


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/api/v1/chat/completions", {"POST", "OPTIONS"}),
        ("DELETE", "/api/v1/chat/completions", {"POST", "OPTIONS"}),
        ("POST", "/api/v1/key", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_method_not_allowed(server: Server, provider: FakeProvider, method: str, path: str, allowed: set[str]) -> None:
    response = server.request(method, path, make_app_key(provider))
    check_refusal(response, "method_not_allowed")
    assert set(response.headers["allow"].replace(" ", "").split(",")) == allowed


def test_the_request_id_is_ours(server: Server) -> None:
    response = server.get("/api", headers={"X-Request-Id": "mine"})
    assert response.headers["x-request-id"] != "mine"
    assert server.get("/api").headers["x-request-id"] != response.headers["x-request-id"]
    assert len(server.get("/healthz").headers["x-request-id"]) == 24


def test_options_needs_no_key(server: Server) -> None:
    response = server.request("OPTIONS", "/api/v1/chat/completions")
    assert response.status_code == 204
    assert "access-control-allow-origin" not in response.headers


def test_cors_for_a_configured_origin(server: Server) -> None:
    headers = {"Origin": "https://chat.example", "Access-Control-Request-Method": "POST"}
    response = server.request("OPTIONS", "/api/v1/chat/completions", headers=headers)
    assert response.headers["access-control-allow-origin"] == "https://chat.example"
    assert response.headers["access-control-allow-headers"] == "Authorization, Content-Type"
    assert "access-control-allow-credentials" not in response.headers
    # A refusal can be read too, or nobody learns what was wrong.
    refusal = server.post("/api/v1/chat/completions", headers={"Origin": "https://chat.example"})
    check_refusal(refusal, "missing_api_key")
    assert refusal.headers["access-control-allow-origin"] == "https://chat.example"


def test_the_headers_of_a_browser_client_are_allowed(server: Server) -> None:
    """OpenAI's sends a dozen of its own, and a browser asks for each."""
    asked = "authorization, content-type,x-stainless-lang, x-stainless-retry-count"
    headers = {"Origin": "https://chat.example", "Access-Control-Request-Headers": asked}
    response = server.request("OPTIONS", "/api/v1/chat/completions", headers=headers)
    allowed = response.headers["access-control-allow-headers"]
    assert allowed == "authorization, content-type, x-stainless-lang, x-stainless-retry-count"
    headers["Access-Control-Request-Headers"] = "x-good, x bad, x-(worse), " + "x" * 200
    response = server.request("OPTIONS", "/api/v1/chat/completions", headers=headers)
    assert response.headers["access-control-allow-headers"] == "x-good"


def test_no_cors_for_others(server: Server) -> None:
    for origin in ("https://evil.example", "https://chat.example.evil", "null"):
        response = server.request("OPTIONS", "/api/v1/chat/completions", headers={"Origin": origin})
        assert "access-control-allow-origin" not in response.headers
        assert response.headers["vary"] == "Origin"


@pytest.mark.parametrize("accept", ["text/html", "text/event-stream", "application/xml", "*/*"])
def test_json_whatever_is_accepted(server: Server, accept: str) -> None:
    _, key = factories.make_key()
    response = server.get("/api/v1/key", key, headers={"Accept": accept})
    assert response.json()["code"] == 200


@pytest.mark.parametrize("path", ["/api/v1/%00", "/api/%ff", "/api/v1/chat/completions%0a", "/api/../api"])
def test_strange_paths(server: Server, path: str) -> None:
    assert server.get(path).status_code in (400, 404)
