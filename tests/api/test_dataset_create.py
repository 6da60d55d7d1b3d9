"""`core/dataset/create`: a dataset, and who makes its vectors."""

import pytest

from apikeys.audit.models import AuditEntry
from datasets.models import Dataset, VectorSet
from datasets.texts import STATIC_MODEL
from tests.conftest import Server
from tests.support import factories
from tests.support.datasets import ABSENT, MALFORMED, Library, data_of, staff_call
from tests.support.refusals import check_refusal


@pytest.fixture
def library(server: Server) -> Library:
    return Library(server)


def create(library: Library, **body: object):
    return library.call("POST", "create", {"name": "films", **body})


def test_it_works(library: Library) -> None:
    dataset_id = data_of(create(library, parentId=None, type="dataset", intro=" 关于电影 ", avatar="", agentModel="x"))
    dataset = Dataset.objects.get(pk=dataset_id)
    assert (dataset.team, dataset.name, dataset.intro) == (library.team, "films", "关于电影")
    vector_set = VectorSet.objects.get(dataset=dataset)
    assert (vector_set.model, vector_set.provider, vector_set.is_current) == (STATIC_MODEL, None, True)


def test_it_is_audited_as_the_keys_deed(library: Library) -> None:
    dataset = Dataset.objects.get(pk=data_of(create(library)))
    entry = AuditEntry.objects.get_for_object(dataset).get()
    assert (entry.action, entry.team, entry.via) == (AuditEntry.Action.CREATE, library.team, "api")
    assert entry.actor_name == f"API key {library.api_key.name} ******{library.key[-4:]}"
    assert entry.actor is None


def test_staff(server: Server) -> None:
    team = factories.make_team()
    user = factories.make_user(team, permissions=("datasets.add_dataset",))
    dataset_id = data_of(staff_call(server, user, "POST", "create", json={"name": "films"}))
    dataset = Dataset.objects.for_team(team.pk).get(pk=dataset_id)
    entry = AuditEntry.objects.get_for_object(dataset).get()
    assert (entry.actor, entry.actor_name) == (user, user.username)


def test_of_a_provider(library: Library) -> None:
    provider = factories.make_provider(library.team)
    dataset_id = data_of(create(library, vectorModel="text-embedding-3-small", providerId=provider.pk))
    vector_set = VectorSet.objects.get(dataset=dataset_id)
    assert (vector_set.model, vector_set.provider) == ("text-embedding-3-small", provider)


@pytest.mark.parametrize("body", [{"vectorModel": ""}, {"vectorModel": STATIC_MODEL, "providerId": ""}])
def test_of_this_server(library: Library, body: dict[str, str]) -> None:
    assert VectorSet.objects.get(dataset=data_of(create(library, **body))).provider is None


def test_allowed_models(library: Library) -> None:
    provider = factories.make_provider(library.team)
    other = {"vectorModel": "ada", "providerId": provider.pk}
    _, library.key = factories.make_key(library.team, allowed_models=["echo", "ada"])
    check_refusal(create(library), "model_not_allowed")
    check_refusal(create(library, **other | {"vectorModel": "large"}), "model_not_allowed")
    assert not Dataset.objects.for_team(library.team.pk).exists()
    assert VectorSet.objects.get(dataset=data_of(create(library, **other))).model == "ada"
    _, library.key = factories.make_key(library.team, allowed_models=[STATIC_MODEL])
    check_refusal(create(library, **other), "model_not_allowed")
    assert VectorSet.objects.get(dataset=data_of(create(library))).model == STATIC_MODEL


def test_no_provider(library: Library) -> None:
    check_refusal(create(library, vectorModel="ada"), "invalid_parameter", param="vectorModel")
    check_refusal(create(library, vectorModel="ada", providerId=""), "invalid_parameter", param="vectorModel")
    provider = factories.make_provider(library.team)
    check_refusal(create(library, providerId=provider.pk), "invalid_parameter", param="vectorModel")


def test_a_foreign_provider(library: Library) -> None:
    foreign = factories.make_provider(factories.make_team())
    messages = {
        check_refusal(create(library, vectorModel="ada", providerId=one), "invalid_parameter", param="providerId")
        for one in (foreign.pk, ABSENT, *filter(None, MALFORMED))
    }
    assert len(messages) == 1
    assert not Dataset.objects.for_team(library.team.pk).exists()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": None}, "name"),
        ({"name": 5}, "name"),
        ({"name": " "}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "a\u202eb"}, "name"),
        ({"name": "n" * 101}, "name"),
        ({"intro": "n" * 501}, "intro"),
        ({"intro": ["x"]}, "intro"),
        ({"type": "folder"}, "type"),
        ({"parentId": ABSENT}, "parentId"),
        ({"vectorModel": "m" * 201}, "vectorModel"),
        ({"vectorModel": "a\0", "providerId": ABSENT}, "vectorModel"),
        ({"providerId": 1}, "providerId"),
    ],
)
def test_bad_input(library: Library, body: dict[str, object], param: str) -> None:
    check_refusal(create(library, **body), "invalid_parameter", param=param)
    assert not Dataset.objects.for_team(library.team.pk).exists()


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"name": "\\ud800"}', b'{"name": "\xff"}', b"[" * 100_000])
def test_what_is_no_body(library: Library, raw: bytes) -> None:
    check_refusal(library.call("POST", "create", content=raw), "invalid_parameter")


def test_text_of_all_kinds(library: Library) -> None:
    """The name has right-to-left text with its marks, joined emoji, and NULs where lines may be broken."""
    name = "\u05e9\u200c\u05dc \u200f 👨‍👩‍👧"
    dataset = Dataset.objects.get(pk=data_of(create(library, name=name, intro="a\0b\nc")))
    assert (dataset.name, dataset.intro) == (name, "a\ufffdb\nc")


def test_other_methods(library: Library) -> None:
    response = library.call("GET", "create")
    check_refusal(response, "method_not_allowed")
    assert response.headers["allow"] == "POST, OPTIONS"
