"""`v1/models`: what a key may name as `model`, in OpenAI's form inside FastGPT's envelope."""

from typing import Any

import openai
import pytest

from datasets.texts import STATIC_MODEL
from tests.conftest import Server
from tests.support import factories
from tests.support.refusals import check_refusal

PATH = "/api/v1/models"


def ids(server: Server, key: str) -> list[str]:
    response = server.get(PATH, key)
    assert response.status_code == 200, response.text
    return [model["id"] for model in response.json()["data"]]


def test_it_works(server: Server) -> None:
    team = factories.make_team()
    app = factories.make_app(team)
    factories.make_app(factories.make_team())
    _, key = factories.make_key(team, can_name_app=True)
    body = server.get(PATH, key).json()
    assert (body["code"], body["object"]) == (200, "list")
    mine: dict[str, Any] = next(model for model in body["data"] if model["id"] == app.pk)
    assert mine == {
        "id": app.pk,
        "object": "model",
        "created": int(app.created_at.timestamp()),
        "owned_by": team.pk,
        "name": "echo",
        "kind": "chat",
        "app": app.name,
    }
    assert [model["id"] for model in body["data"] if model["kind"] == "chat"] == [app.pk]


def test_the_openai_client_reads_it(server: Server) -> None:
    app = factories.make_app(factories.make_team())
    _, key = factories.make_key(app.team, can_name_app=True)
    with openai.OpenAI(base_url=f"{server.base_url}/v1", api_key=key) as client:
        assert [model.id for model in client.models.list()] == [app.pk, STATIC_MODEL]
        assert client.models.retrieve(app.pk).id == app.pk
        assert client.models.retrieve(STATIC_MODEL).owned_by == app.team_id


def test_an_app_key_lists_the_model_that_it_opens(server: Server) -> None:
    team = factories.make_team()
    app = factories.make_app(team, model="mine")
    factories.make_app(team, model="other")
    _, key = factories.make_key(app=app)
    assert ids(server, key) == ["mine"]
    assert ids(server, f"{key}-{app.pk}") == ["mine"]
    assert server.get(f"{PATH}/mine", key).json()["id"] == "mine"


def test_a_key_with_the_id_of_an_app(server: Server) -> None:
    """Some clients can send nothing else."""
    team = factories.make_team()
    app, other = factories.make_app(team), factories.make_app(team)
    _, key = factories.make_key(team, can_name_app=True)
    assert ids(server, f"{key}-{app.pk}") == [app.pk, STATIC_MODEL]
    _, own = factories.make_key(app=app)
    check_refusal(server.get(PATH, f"{own}-{other.pk}"), "wrong_key_kind")
    _, plain = factories.make_key(team)
    check_refusal(server.get(PATH, f"{plain}-{app.pk}"), "wrong_key_kind")


def test_a_global_key_lists_what_needs_no_app(server: Server) -> None:
    team = factories.make_team()
    provider = factories.make_provider(team)
    factories.make_app(team, provider)
    factories.make_model(provider, "ranker", kind="rerank")
    factories.make_model(provider, "old", kind="embedding", archived_at=team.created_at)
    factories.make_dataset(team, provider, "embed-1")
    factories.make_dataset(factories.make_team())
    _, key = factories.make_key(team)
    assert sorted(ids(server, key)) == sorted([STATIC_MODEL, "embed-1", "ranker"])


def test_a_key_bound_to_models_names_only_those(server: Server) -> None:
    team = factories.make_team()
    app = factories.make_app(team, model="one")
    factories.make_app(team, model="two")
    _, key = factories.make_key(team, can_name_app=True, allowed_models=["one"])
    assert ids(server, key) == [app.pk]


@pytest.mark.parametrize("name", ["ech", "%00", "nonsense", "a/b", "x" * 5000])
def test_no_such_model(server: Server, name: str) -> None:
    app = factories.make_app(factories.make_team())
    _, key = factories.make_key(app=app)
    response = server.get(f"{PATH}/{name}", key)
    check_refusal(response, "model_not_found")
    message = response.json()["error"]["message"]
    assert message == "There is no such model." + (" Did you mean echo?" if name == "ech" else "")


def test_it_is_never_refused_for_limits(server: Server) -> None:
    app = factories.make_app(factories.make_team())
    api_key, key = factories.make_key(app=app)
    api_key.limits.create(team=app.team, measure="requests", period="day", amount=0)
    assert ids(server, key) == ["echo"]
