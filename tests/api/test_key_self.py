"""`GET v1/key`: a key about itself."""

from datetime import timedelta

from django.utils import timezone

from tests.conftest import Server
from tests.support import factories

PATH = "/api/v1/key"


def test_it_works_for_a_global_key(server: Server) -> None:
    expires_at = timezone.now() + timedelta(days=30)
    api_key, key = factories.make_key(expires_at=expires_at, allowed_networks=["127.0.0.0/8"], allowed_models=["m"])
    response = server.get(PATH, key)
    data = response.json()["data"]
    assert data["id"] == api_key.pk
    assert data["kind"] == "global"
    assert data["appId"] is None
    assert data["team"] == api_key.team.name
    assert data["allowedNetworks"] == ["127.0.0.0/8"]
    assert data["allowedModels"] == ["m"]
    assert data["expiresAt"].startswith(expires_at.isoformat()[:19])
    assert [name for name in data["endpoints"] if not name.startswith("dataset.")] == [
        "app.list",
        "billing.subscription",
        "billing.usage",
        "embeddings.create",
        "key.self",
        "models.list",
        "rerank.create",
    ]
    assert {"dataset.create", "dataset.data.push", "dataset.search"} < set(data["endpoints"])
    assert key not in response.text


def test_it_works_for_an_app_key(server: Server) -> None:
    app = factories.make_app(factories.make_team())
    _, key = factories.make_key(app=app)
    data = server.get(PATH, key).json()["data"]
    assert (data["kind"], data["appId"]) == ("app", app.pk)
    assert data["endpoints"] == [
        *("billing.subscription", "billing.usage", "chat.completions", "completions.create", "key.self", "models.list"),
        "responses.create",
    ]
    assert data["models"] == ["echo"]


def test_a_key_that_may_name_an_app(server: Server) -> None:
    _, key = factories.make_key(can_name_app=True)
    data = server.get(PATH, key).json()["data"]
    assert data["kind"] == "global_naming_app"
    assert "chat.completions" in data["endpoints"]


def test_its_own_list_narrows_what_it_says(server: Server) -> None:
    _, key = factories.make_key(allowed_endpoints=["key.self"])
    assert server.get(PATH, key).json()["data"]["endpoints"] == ["key.self"]
