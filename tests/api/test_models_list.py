"""`v1/models`: what a key may name as `model`, in OpenAI's form inside FastGPT's envelope."""

import openai

from tests.conftest import Server
from tests.support import factories

PATH = "/api/v1/models"


def test_it_works(server: Server) -> None:
    team = factories.make_team()
    app = factories.make_app(team)
    factories.make_app(factories.make_team())
    _, key = factories.make_key(team, can_name_app=True)
    body = server.get(PATH, key).json()
    assert (body["code"], body["object"]) == (200, "list")
    assert body["data"] == [
        {"id": app.pk, "object": "model", "created": int(app.created_at.timestamp()), "owned_by": team.pk}
    ]


def test_the_openai_client_reads_it(server: Server) -> None:
    app = factories.make_app(factories.make_team())
    _, key = factories.make_key(app.team, can_name_app=True)
    with openai.OpenAI(base_url=f"{server.base_url}/v1", api_key=key) as client:
        assert [model.id for model in client.models.list()] == [app.pk]


def test_a_global_key_that_may_name_no_app_may_name_nothing(server: Server) -> None:
    app = factories.make_app(factories.make_team())
    _, key = factories.make_key(app.team)
    assert server.get(PATH, key).json()["data"] == []


def test_a_key_bound_to_models_names_only_apps_with_them(server: Server) -> None:
    team = factories.make_team()
    app = factories.make_app(team, model="one")
    factories.make_app(team, model="two")
    _, key = factories.make_key(team, can_name_app=True, allowed_models=["one"])
    assert [model["id"] for model in server.get(PATH, key).json()["data"]] == [app.pk]
