"""`core/dataset/detail`: a dataset with its models."""

import pytest

from datasets.data import NewDatum, insert
from datasets.models import VectorSet
from datasets.vectors import sets
from tests.conftest import Server
from tests.support import factories
from tests.support.datasets import Library
from tests.support.refusals import check_refusal


@pytest.fixture
def library(server: Server) -> Library:
    return Library(server)


def test_it_works(library: Library) -> None:
    dataset = factories.make_dataset(library.team, intro="What it is about")
    detail = library.get("detail", id=dataset.pk)
    assert {name: detail[name] for name in ("_id", "name", "intro", "type", "status", "teamId", "parentId")} == {
        "_id": dataset.pk,
        "name": dataset.name,
        "intro": "What it is about",
        "type": "dataset",
        "status": "active",
        "teamId": library.team.pk,
        "parentId": None,
    }
    assert (detail["trainingAmount"], detail["error"]) == (0, "")
    assert (detail["rerankModel"], detail["nextVectorModel"]) == (None, None)


def test_models_and_what_waits_for_them(library: Library) -> None:
    provider = factories.make_provider(library.team)
    dataset = factories.make_dataset(library.team, rerank_provider=provider, rerank_model="rerank-1")
    insert(factories.make_collection(dataset), [NewDatum("one"), NewDatum("two", index_texts=["2"])])
    coming = sets.change_model(dataset, provider, "ada")
    VectorSet.objects.filter(pk=coming.pk).update(failure="The provider of embeddings failed.")
    detail = library.get("detail", id=dataset.pk)
    assert detail["trainingAmount"] == 3
    assert detail["rerankModel"] == {"model": "rerank-1", "providerId": provider.pk}
    following = detail["nextVectorModel"]
    assert (following["model"], following["providerId"], following["trainingAmount"]) == ("ada", provider.pk, 3)
    assert following["error"] == "The provider of embeddings failed."


def test_without_an_id(library: Library) -> None:
    check_refusal(library.call("GET", "detail"), "unAuthDataset")
