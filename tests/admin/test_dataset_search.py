"""The page that searches a dataset in all three modes."""

import html
import re

import pytest
from asgiref.sync import async_to_sync

from datasets.data import NewDatum, insert
from datasets.models import Dataset, Datum
from datasets.vectors import sets
from tests.admin.test_try import headers_of
from tests.support import factories
from tests.support.pages import FilledForm, staff, text, url

RIGHTS = ("datasets.view_dataset", "datasets.view_datum")


@pytest.fixture
def dataset():
    collection = factories.make_collection(name="The film")
    pairs = (("导演是谁", "导演是李安"), ("Who wrote the music?", "Tan Dun"), ("Where was it shot?", "In Anhui"))
    insert(collection, [NewDatum(q, a) for q, a in pairs])
    async_to_sync(sets.embed_pending)(collection.dataset_id)
    return collection.dataset


@pytest.fixture
def client(dataset):
    return staff(dataset.team, *RIGHTS)[1]


def ask(client, dataset, question, **fields):
    form = {"text": question, "limit": "5000", "similarity": "0", **fields}
    return client.post(url(Dataset, "search", dataset.pk), form)


def columns(page):
    """Return what each mode found."""
    found = re.split(r'<section class="page-card" aria-labelledby="mode-(\w+)">', page)
    return {mode: body.partition("</section>")[0] for mode, body in zip(found[1::2], found[2::2], strict=True)}


def test_it_works(dataset, client):
    page = client.get(url(Dataset, "search", dataset.pk)).content.decode()
    filled = FilledForm(page, "search-form").fields
    assert (filled["limit"], filled["similarity"]) == (["5000"], ["0"])
    found = columns(text(ask(client, dataset, "导演是谁")))
    assert list(found) == ["embedding", "fullTextRecall", "mixedRecall"]
    datum = Datum.objects.get(dataset=dataset, q="导演是谁")
    for body in found.values():
        assert body.index("导演是李安") < body.find("Tan Dun") or "Tan Dun" not in body
        assert url(Datum, "change", datum.pk) in body
        assert "The film, 0" in body
    assert re.search(r"similarity <strong>1\.000</strong> <span[^>]*>#1", found["embedding"])
    assert re.search(r"words <strong>\d", found["fullTextRecall"])
    assert re.search(r"both ranks <strong>0\.0328</strong> <span[^>]*>#1", found["mixedRecall"])


def test_similarity_and_limit(dataset, client):
    body = columns(text(ask(client, dataset, "导演是谁", similarity="0.99")))["embedding"]
    assert "1 hit in" in body
    # The first quote is given whatever it takes.
    body = columns(text(ask(client, dataset, "Who wrote the music?", limit="1")))["embedding"]
    assert "1 hit in" in body
    assert "Tan Dun" in body


def test_nothing_found(dataset, client):
    found = columns(text(ask(client, dataset, "zzzz", similarity="1")))
    assert "Nothing was found." in found["fullTextRecall"]
    assert "0 hits in" in found["fullTextRecall"]


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"question": ""}, "This field is required."),
        ({"question": " "}, "This field is required."),
        ({"question": "x" * 8_001}, "at most 8000 characters"),
        ({"question": "x", "limit": "0"}, "greater than or equal to 1"),
        ({"question": "x", "limit": "20001"}, "less than or equal to 20000"),
        ({"question": "x", "limit": "many"}, "Enter a whole number."),
        ({"question": "x", "similarity": "1.1"}, "less than or equal to 1"),
        ({"question": "x", "similarity": "NaN"}, "Enter a number."),
        ({"question": "x", "similarity": "-1"}, "greater than or equal to 0"),
    ],
)
def test_wrong_field(dataset, client, fields, complaint):
    page = text(ask(client, dataset, **fields))
    assert complaint in page
    assert columns(page) == {}


def test_nothing_of_a_text_is_markup(dataset, client):
    insert(dataset.collections.get(), [NewDatum("<script>alert(1)</script> zebra")])
    page = ask(client, dataset, "<b>zebra</b>").content.decode()
    assert "<script>alert" not in page
    assert "<b>zebra" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_words_alone_where_a_provider_fails(server, dataset):
    """Nothing listens at its address. The search runs in a server process, whose connections are its own."""
    user = factories.make_user(dataset.team, permissions=RIGHTS)
    provider = factories.make_provider(dataset.team, "http://127.0.0.1:9/v1")
    dataset.vector_sets.update(provider=provider, model="gone")
    form = {"text": "导演是谁", "limit": "5000", "similarity": "0"}
    response = server.post(url(Dataset, "search", dataset.pk), headers=headers_of(user), data=form)
    assert response.status_code == 200
    found = columns(html.unescape(response.text))
    for mode in ("embedding", "mixedRecall"):
        assert "The model's provider failed." in found[mode]
    assert "导演是李安" in found["fullTextRecall"]
    assert "127.0.0.1" not in "".join(found.values())


def test_rerank_is_offered_only_with_a_model(dataset, client):
    assert "The dataset has no rerank model." in text(client.get(url(Dataset, "search", dataset.pk)))
    found = columns(text(ask(client, dataset, "导演是谁", uses_rerank="on")))
    assert "rerank" not in found["embedding"]
    dataset.rerank_provider, dataset.rerank_model = factories.make_provider(dataset.team), "rerank-1"
    dataset.save()
    assert "no rerank model" not in text(client.get(url(Dataset, "search", dataset.pk)))


def test_foreign_dataset_looks_absent(client):
    answers = []
    for pk in (factories.make_dataset().pk, "0" * 24):
        for response in (
            client.get(url(Dataset, "search", pk)),
            client.post(url(Dataset, "search", pk), {"text": "x"}),
        ):
            answers.append((response.status_code, response.get("Location")))
    assert set(answers) == {(302, "/admin/")}


def test_without_the_permission(dataset):
    for right in RIGHTS:
        _, client = staff(dataset.team, right)
        response = ask(client, dataset, "导演是谁")
        assert response.status_code == 403
        assert "导演是李安" not in text(response)
