"""Datasets in the admin: creation, change, another model, deletion."""

import re

import pytest
from asgiref.sync import async_to_sync
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apikeys.admin import long_lists
from apikeys.audit.models import AuditEntry
from datasets.admin import base
from datasets.data import NewDatum, insert
from datasets.models import MAXIMUM_ATTEMPTS, Collection, Dataset, Datum, PendingVector, Vector, VectorSet
from datasets.texts import STATIC_MODEL
from datasets.vectors import sets
from tests.support import factories
from tests.support.pages import FilledForm, browser, staff, text, url

RIGHTS = tuple(f"datasets.{right}_dataset" for right in ("view", "add", "change", "delete"))
RIGHTS += ("datasets.view_collection", "chat.view_provider")
LIST, ADD = url(Dataset, "changelist"), url(Dataset, "add")


@pytest.fixture
def team():
    return factories.make_team()


@pytest.fixture
def client(team):
    return staff(team, *RIGHTS)[1]


def dataset_form(**fields):
    return {"name": factories.unique("dataset"), "intro": "", **fields}


def make_filled(team, count=3, **fields):
    collection = factories.make_collection(factories.make_dataset(team, **fields))
    insert(collection, [NewDatum(f"q{number}") for number in range(count)])
    return collection.dataset


def row_of(page, dataset):
    """Return the cells of a dataset in the list."""
    (row,) = [row for row in re.findall(r"<tr.*?</tr>", page, re.DOTALL) if dataset.pk in row]
    return dict(re.findall(r'<t[dh] class="field-(\w+)[^>]*>(.*?)</t[dh]>', row, re.DOTALL))


def test_it_works(team, client):
    form = dataset_form(team=team.pk, intro="Films.")
    assert client.post(ADD, form).status_code == 302
    dataset = Dataset.objects.get(team=team)
    assert (dataset.name, dataset.intro) == (form["name"], "Films.")
    (vector_set,) = dataset.vector_sets.all()
    assert (vector_set.provider, vector_set.model, vector_set.is_current) == (None, STATIC_MODEL, True)
    page = text(client.get(url(Dataset, "change", dataset.pk)))
    assert f"Search uses the vectors of {STATIC_MODEL}." in page
    assert "There is nothing in it yet." in page


def test_with_models_of_a_provider(team, client):
    provider = factories.make_provider(team)
    models = {"embedding_provider": provider.pk, "embedding_model": "embed-1"}
    models |= {"rerank_provider": provider.pk, "rerank_model": "rerank-1"}
    assert client.post(ADD, dataset_form(team=team.pk, **models)).status_code == 302
    dataset = Dataset.objects.get(team=team)
    assert (dataset.rerank_provider, dataset.rerank_model) == (provider, "rerank-1")
    (vector_set,) = dataset.vector_sets.all()
    assert (vector_set.provider, vector_set.model, vector_set.dimension) == (provider, "embed-1", None)
    page = client.get(url(Dataset, "change", dataset.pk)).content.decode()
    filled = FilledForm(page, "dataset_form").fields
    assert (filled["embedding_provider"], filled["embedding_model"]) == ([provider.pk], ["embed-1"])


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"name": ""}, "This field is required."),
        ({"name": "x" * 101}, "at most 100 characters"),
        ({"name": "a\u2028b"}, "Give a name without control characters."),
        ({"embedding_model": "m"}, "An embedding provider and its model must be given together."),
        ({"embedding_provider": "own"}, "An embedding provider and its model must be given together."),
        ({"embedding_provider": "foreign", "embedding_model": "m"}, "not one of the available choices"),
        ({"embedding_provider": "x", "embedding_model": "m"}, "not one of the available choices"),
        ({"embedding_provider": "own", "embedding_model": "m" * 201}, "at most 200 characters"),
        ({"rerank_provider": "foreign", "rerank_model": "m"}, "not one of the available choices"),
        ({"rerank_model": "m"}, "A rerank provider and its model must be given together."),
    ],
)
def test_wrong_field(team, client, fields, complaint):
    providers = {"own": factories.make_provider(team).pk, "foreign": factories.make_provider(factories.make_team()).pk}
    fields = {name: providers.get(value, value) for name, value in fields.items()}
    assert complaint in text(client.post(ADD, dataset_form(team=team.pk, **fields)))
    assert not Dataset.objects.filter(team=team).exists()


@pytest.mark.parametrize("kind", ["embedding", "rerank"])
def test_provider_of_another_team_that_a_superuser_may_see(team, kind):
    client = browser(factories.make_user(is_superuser=True))
    foreign = factories.make_provider(factories.make_team())
    models = {f"{kind}_provider": foreign.pk, f"{kind}_model": "m"}
    dataset = factories.make_dataset(team)
    for page, form in ((ADD, {"team": team.pk}), (url(Dataset, "change", dataset.pk), {})):
        assert "The provider belongs to another team." in text(client.post(page, dataset_form(**form, **models)))
    assert VectorSet.objects.filter(dataset__team=team).count() == 1


def test_team_stays(team, client):
    dataset = factories.make_dataset(team)
    form = dataset_form(team=factories.make_team().pk, name="renamed")
    assert client.post(url(Dataset, "change", dataset.pk), form).status_code == 302
    dataset.refresh_from_db()
    assert (dataset.team, dataset.name) == (team, "renamed")


def test_change_of_name_leaves_the_vectors(team, client):
    provider = factories.make_provider(team)
    dataset = factories.make_dataset(team, provider, "embed-1")
    (before,) = dataset.vector_sets.all()
    page = client.get(url(Dataset, "change", dataset.pk)).content.decode()
    form = FilledForm(page, "dataset_form").fields | {"name": "renamed"}
    assert client.post(url(Dataset, "change", dataset.pk), form).status_code == 302
    assert list(dataset.vector_sets.all()) == [before]
    assert Dataset.objects.get(pk=dataset.pk).name == "renamed"


def test_another_model_and_back(team, client):
    dataset = make_filled(team)
    async_to_sync(sets.embed_pending)(dataset.pk)
    provider = factories.make_provider(team)
    page = url(Dataset, "change", dataset.pk)
    form = dataset_form(name=dataset.name, embedding_provider=provider.pk, embedding_model="embed-1")
    shown = text(client.post(page, form, follow=True))
    assert "All vectors are being rebuilt." in shown
    current, made = dataset.vector_sets.order_by("-is_current")
    assert (current.model, made.model, made.pending.count()) == (STATIC_MODEL, "embed-1", 3)
    shown = text(client.get(page))
    assert f"Search uses the vectors of {STATIC_MODEL}." in shown
    assert "Vectors of embed-1 are being made, and will take over when they are complete." in shown
    assert "0 of 3" in shown
    assert 'hx-trigger="load delay:2s"' in shown
    entry = AuditEntry.objects.filter(object_pk=dataset.pk).latest("pk")
    assert entry.changes == {"vector_model": [STATIC_MODEL, "embed-1"], "vector_provider": [None, provider.pk]}
    # The chosen model is shown, not the one that search still uses; sent again, nothing begins anew.
    filled = FilledForm(shown, "dataset_form").fields
    assert filled["embedding_model"] == ["embed-1"]
    assert "being rebuilt" not in text(client.post(page, filled, follow=True))
    assert dataset.vector_sets.get(is_current=False) == made
    # The one in the making is given up.
    client.post(page, dataset_form(name=dataset.name))
    assert list(dataset.vector_sets.all()) == [current]
    assert not PendingVector.objects.filter(vector_set__dataset=dataset).exists()


def test_progress_tells_of_a_provider_that_fails(team, client):
    dataset = make_filled(team)
    VectorSet.objects.filter(dataset=dataset).update(failure="The provider of embeddings failed.")
    page = text(client.get(url(Dataset, "progress", dataset.pk)))
    assert "The provider of embeddings failed." in page
    assert "0 of 3" in page
    VectorSet.objects.filter(dataset=dataset).update(failure="")
    async_to_sync(sets.embed_pending)(dataset.pk)
    page = text(client.get(url(Dataset, "progress", dataset.pk)))
    assert "All 3 are ready." in page
    assert "hx-get" not in page


def test_texts_that_a_model_refuses(team, client):
    dataset = make_filled(team)
    PendingVector.objects.filter(vector_set__dataset=dataset).update(attempts=MAXIMUM_ATTEMPTS, failure="Too long.")
    page = text(client.get(url(Dataset, "progress", dataset.pk)))
    assert "The model refuses 3 texts" in page
    # Nothing more will come of these texts by itself.
    assert "hx-get" not in page
    datum = Datum.objects.filter(dataset=dataset).earliest("pk")
    _, reader = staff(team, "datasets.view_datum")
    assert "1 text; refused by the model: Too long." in text(reader.get(url(Datum, "change", datum.pk)))


def test_list_counts(team, client):
    dataset = make_filled(team)
    factories.make_collection(dataset)
    cells = row_of(text(client.get(LIST)), dataset)
    told = [re.sub(r"<[^>]*>", "", cells[name]).strip() for name in ("collections", "data", "waiting")]
    assert told == ["2", "3", "3"]
    async_to_sync(sets.embed_pending)(dataset.pk)
    assert re.sub(r"<[^>]*>", "", row_of(text(client.get(LIST)), dataset)["waiting"]).strip() == "0"


def test_counts_end_somewhere(team, client, monkeypatch):
    dataset = make_filled(team, 5)
    for module in (long_lists, base.counts):
        monkeypatch.setattr(module, "MAXIMUM_ROWS", 4)
    cells = row_of(text(client.get(LIST)), dataset)
    assert "more than 4" in cells["data"]
    assert "1" in cells["collections"]


def test_queries_do_not_grow_with_rows(team, client):
    numbers = []
    for count in (2, 6):
        for _ in range(count):
            make_filled(team, count)
        with CaptureQueriesContext(connection) as queries:
            assert client.get(LIST).status_code == 200
        numbers.append(len(queries))
    assert numbers[0] == numbers[1]


def test_delete(team, client):
    dataset = make_filled(team)
    async_to_sync(sets.embed_pending)(dataset.pk)
    page = text(client.get(url(Dataset, "delete", dataset.pk)))
    assert "Collections: 1" in re.sub(r"\s+", " ", page)
    assert "Data: 3" in re.sub(r"\s+", " ", page)
    with CaptureQueriesContext(connection) as queries:
        assert client.post(url(Dataset, "delete", dataset.pk), {"post": "yes"}).status_code == 302
    # Nobody reads the rows that go with it.
    assert [query["sql"] for query in queries if re.match(r'SELECT "datasets_(datum|vector)"', query["sql"])] == []
    assert not Dataset.objects.filter(pk=dataset.pk).exists()
    assert not Collection.objects.filter(dataset_id=dataset.pk).exists()
    assert not Datum.objects.filter(dataset_id=dataset.pk).exists()
    assert not Vector.objects.filter(vector_set__dataset_id=dataset.pk).exists()
    entry = AuditEntry.objects.filter(object_pk=dataset.pk).latest("pk")
    assert (entry.action, entry.team) == (AuditEntry.Action.DELETE, team)


def test_delete_several(team, client):
    chosen, kept = [make_filled(team), make_filled(team)], make_filled(team)
    form = {"action": "delete_selected", "_selected_action": [dataset.pk for dataset in chosen]}
    assert "Data: 6" in re.sub(r"\s+", " ", text(client.post(LIST, form)))
    client.post(LIST, form | {"post": "yes"})
    assert list(Dataset.objects.filter(team=team)) == [kept]


def test_delete_too_many(team, client, monkeypatch):
    monkeypatch.setattr(base, "MAXIMUM_DELETED", 1)
    for _ in range(2):
        factories.make_dataset(team)
    form = {"action": "delete_selected", "_selected_action": ["x" * 24], "select_across": "1", "post": "yes"}
    assert "At most 1 rows can be deleted at once." in text(client.post(LIST, form, follow=True))
    assert Dataset.objects.filter(team=team).count() == 2


def test_who_may_only_view(team):
    dataset = make_filled(team)
    _, client = staff(team, "datasets.view_dataset")
    page = text(client.get(url(Dataset, "change", dataset.pk)))
    assert 'name="embedding_model"' not in page
    for hidden in (url(Collection, "changelist"), url(Dataset, "search", dataset.pk)):
        assert hidden not in page
    assert f"Search uses the vectors of {STATIC_MODEL}." in page
    for path in (ADD, url(Dataset, "change", dataset.pk), url(Dataset, "delete", dataset.pk)):
        assert client.post(path, dataset_form(team=team.pk)).status_code == 403
    assert client.get(url(Dataset, "progress", dataset.pk)).status_code == 200
    _, other = staff(team, "datasets.view_datum")
    for page in ("progress", "search"):
        assert other.get(url(Dataset, page, dataset.pk)).status_code == 403


def test_apps_that_use_it(team):
    dataset, other = factories.make_dataset(team), factories.make_dataset(team)
    app, unrelated = factories.make_app(team), factories.make_app(team)
    app.datasets.add(dataset)
    unrelated.datasets.add(other)
    _, reader = staff(team, "datasets.view_dataset", "datasets.delete_dataset", "chat.view_app")
    page = text(reader.get(url(Dataset, "change", dataset.pk)))
    assert f'<a href="{url(type(app), "change", app.pk)}">{app.name}</a>' in page
    assert unrelated.name not in page
    _, stranger = staff(team, "datasets.view_dataset")
    page = text(stranger.get(url(Dataset, "change", dataset.pk)))
    assert app.name in page
    assert url(type(app), "change", app.pk) not in page
    # A dataset that an app answers from is not taken away from it unnoticed.
    page = text(reader.get(url(Dataset, "delete", dataset.pk)))
    assert "would require deleting the following protected related objects" in page
    reader.post(url(Dataset, "delete", dataset.pk), {"post": "yes"})
    assert Dataset.objects.filter(pk=dataset.pk).exists()


def test_progress_of_a_foreign_dataset(client):
    assert client.get(url(Dataset, "progress", factories.make_dataset().pk)).status_code == 404
    assert client.get(url(Dataset, "progress", "0" * 24)).status_code == 404
