"""`core/dataset/update`: another name, intro or model."""

from typing import Any

import pytest

from apikeys.audit.models import AuditEntry
from datasets.models import Dataset, VectorSet
from datasets.texts import STATIC_MODEL
from datasets.vectors import sets
from tests.conftest import Server
from tests.support import factories
from tests.support.datasets import ABSENT, Library, data_of
from tests.support.refusals import check_refusal


@pytest.fixture
def library(server: Server) -> Library:
    return Library(server)


@pytest.fixture
def dataset(library: Library) -> Dataset:
    return factories.make_dataset(library.team, name="before", intro="about")


def update(library: Library, dataset: Dataset, method: str = "PUT", **body: Any) -> Any:
    return library.call(method, "update", {"id": dataset.pk, **body})


def models(dataset: Dataset) -> list[tuple[str, Any, bool]]:
    rows = VectorSet.objects.filter(dataset=dataset).order_by("-is_current")
    return list(rows.values_list("model", "provider", "is_current"))


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_it_works(library: Library, dataset: Dataset, method: str) -> None:
    before = dataset.updated_at
    assert data_of(update(library, dataset, method, name=" after ", avatar="x", parentId=None)) is None
    dataset.refresh_from_db()
    assert (dataset.name, dataset.intro) == ("after", "about")
    assert dataset.updated_at > before
    entry = AuditEntry.objects.get_for_object(dataset).latest("pk")
    assert entry.changes == {"name": ["before", "after"]}
    assert library.api_key.name in entry.actor_name


def test_what_is_not_named_stays(library: Library, dataset: Dataset) -> None:
    entries = AuditEntry.objects.get_for_object(dataset)
    before = entries.count()
    data_of(update(library, dataset, name=None, intro=None, vectorModel=None, rerankModel=None))
    data_of(update(library, dataset))
    dataset.refresh_from_db()
    assert (dataset.name, dataset.intro) == ("before", "about")
    assert entries.count() == before
    data_of(update(library, dataset, intro=""))
    dataset.refresh_from_db()
    assert dataset.intro == ""


def test_another_model(library: Library, dataset: Dataset) -> None:
    provider = factories.make_provider(library.team)
    data_of(update(library, dataset, vectorModel="ada", providerId=provider.pk))
    assert models(dataset) == [("wordllama-256", None, True), ("ada", provider.pk, False)]
    entry = AuditEntry.objects.get_for_object(dataset).latest("pk")
    assert entry.changes == {"vector_model": ["wordllama-256", "ada"], "vector_provider": [None, provider.pk]}
    # Another model of the provider is to take over, then that of this server, which has them already.
    data_of(update(library, dataset, vectorModel="ada-2"))
    assert models(dataset)[1:] == [("ada-2", provider.pk, False)]
    data_of(update(library, dataset, vectorModel="wordllama-256"))
    assert models(dataset) == [("wordllama-256", None, True)]


def test_back_to_this_server(library: Library) -> None:
    provider = factories.make_provider(library.team)
    dataset = factories.make_dataset(library.team, provider, "ada")
    data_of(update(library, dataset, providerId=""))
    assert models(dataset) == [("ada", provider.pk, True), ("wordllama-256", None, False)]


def test_allowed_models(library: Library, dataset: Dataset) -> None:
    provider = factories.make_provider(library.team)
    _, library.key = factories.make_key(library.team, allowed_models=["ada", "judge"])
    other = {"vectorModel": "large", "providerId": provider.pk}
    rerank = {"rerankModel": "large", "rerankProviderId": provider.pk}
    for refused in (other, {"vectorModel": "", "providerId": ""}, rerank, {"vectorModel": STATIC_MODEL}):
        check_refusal(update(library, dataset, name="after", **refused), "model_not_allowed")
    dataset.refresh_from_db()
    assert (dataset.name, dataset.rerank_model, models(dataset)) == ("before", "", [(STATIC_MODEL, None, True)])
    data_of(update(library, dataset, **other | {"vectorModel": "ada"}))
    data_of(update(library, dataset, **rerank | {"rerankModel": "judge"}))
    # A model that it leaves as it is may be one that it could not choose, and no model is none.
    Dataset.objects.filter(pk=dataset.pk).update(rerank_model="large")
    data_of(update(library, dataset, name="after"))
    check_refusal(update(library, dataset, rerankProviderId=provider.pk), "model_not_allowed")
    data_of(update(library, dataset, rerankModel="", rerankProviderId=""))


def test_the_same_model(library: Library) -> None:
    provider = factories.make_provider(library.team)
    dataset = factories.make_dataset(library.team, provider, "ada")
    entries = AuditEntry.objects.get_for_object(dataset)
    before = entries.count()
    data_of(update(library, dataset, vectorModel="ada"))
    data_of(update(library, dataset, vectorModel="ada", providerId=provider.pk))
    assert models(dataset) == [("ada", provider.pk, True)]
    assert entries.count() == before


def test_rerank(library: Library, dataset: Dataset) -> None:
    provider = factories.make_provider(library.team)
    data_of(update(library, dataset, rerankProviderId=provider.pk, rerankModel="rerank-1"))
    dataset.refresh_from_db()
    assert (dataset.rerank_provider, dataset.rerank_model) == (provider, "rerank-1")
    data_of(update(library, dataset, rerankModel="rerank-2"))
    check_refusal(update(library, dataset, rerankModel=""), "invalid_parameter", param="rerankModel")
    dataset.refresh_from_db()
    assert (dataset.rerank_provider, dataset.rerank_model) == (provider, "rerank-2")
    data_of(update(library, dataset, rerankProviderId="", rerankModel=""))
    dataset.refresh_from_db()
    assert (dataset.rerank_provider, dataset.rerank_model) == (None, "")


@pytest.mark.parametrize(("field", "of"), [("providerId", "vectorModel"), ("rerankProviderId", "rerankModel")])
def test_a_foreign_provider(library: Library, dataset: Dataset, field: str, of: str) -> None:
    foreign = factories.make_provider(factories.make_team()).pk
    answers = [update(library, dataset, name="x", **{of: "m", field: one}) for one in (foreign, ABSENT, "\0")]
    assert len({check_refusal(answer, "invalid_parameter", param=field) for answer in answers}) == 1
    dataset.refresh_from_db()
    assert (dataset.name, dataset.rerank_provider) == ("before", None)
    assert len(models(dataset)) == 1


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": ""}, "name"),
        ({"name": "a\u2028b"}, "name"),
        ({"intro": 1}, "intro"),
        ({"parentId": ABSENT}, "parentId"),
        ({"vectorModel": "ada"}, "vectorModel"),
        ({"providerId": ABSENT}, "vectorModel"),
        ({"rerankModel": "rerank-1"}, "rerankModel"),
        ({"rerankModel": "a\0"}, "rerankModel"),
    ],
)
def test_bad_input(library: Library, dataset: Dataset, body: dict[str, Any], param: str) -> None:
    check_refusal(update(library, dataset, **body), "invalid_parameter", param=param)
    dataset.refresh_from_db()
    assert (dataset.name, dataset.intro, dataset.rerank_model) == ("before", "about", "")
    assert len(models(dataset)) == 1


def test_a_model_in_the_making_that_is_asked_for_again(library: Library, dataset: Dataset) -> None:
    provider = factories.make_provider(library.team)
    coming = sets.change_model(dataset, provider, "ada")
    data_of(update(library, dataset, vectorModel="ada", providerId=provider.pk))
    assert VectorSet.objects.get(dataset=dataset, is_current=False) == coming
