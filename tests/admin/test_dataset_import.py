"""The page that fills a dataset: texts and links by its form, and what it says of every import. Files: tests/e2e."""

import json

import pytest
from asgiref.sync import async_to_sync
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apikeys.audit.models import AuditEntry
from datasets.data import NewDatum, insert
from datasets.imports import runs, sources
from datasets.models import (
    MAXIMUM_ATTEMPTS,
    Collection,
    Dataset,
    Datum,
    ImportState,
    Kind,
    PendingVector,
)
from datasets.vectors import sets
from tests.support import factories
from tests.support.pages import FilledForm, staff, text, url

RIGHTS = ("datasets.view_dataset", "datasets.add_collection", "datasets.view_collection")


@pytest.fixture
def dataset():
    return factories.make_dataset()


@pytest.fixture
def client(dataset):
    return staff(dataset.team, *RIGHTS)[1]


def send(client, dataset, what="import_text", **fields):
    page = client.get(url(Dataset, "import", dataset.pk)).content.decode()
    form = FilledForm(page, "import-form").fields | {what: "yes"} | fields
    return client.post(url(Dataset, "import", dataset.pk), form, follow=True)


def state_of(client, dataset, *collections):
    response = client.get(url(Dataset, "import_state", dataset.pk), {"collection": [one.pk for one in collections]})
    return [one["text"] for one in json.loads(response.content)["collections"]]


def test_it_works(dataset, client):
    folder = factories.make_collection(dataset, kind=Kind.FOLDER)
    words = "# The film\r\n\r\nThe director is Ang Lee. 导演是李安。"
    page = text(send(client, dataset, text=words, name="Notes", parent=folder.pk, chunk_size="64"))
    assert "“Notes” is being imported." in page
    collection = Collection.objects.get(dataset=dataset, kind=Kind.TEXT)
    assert (collection.name, collection.parent, collection.chunk_size) == ("Notes", folder, 64)
    assert AuditEntry.objects.filter(object_pk=collection.pk, team=dataset.team).exists()
    assert f'data-collection="{collection.pk}"' in page
    assert "waiting to be read" in page
    assert state_of(client, dataset, collection) == ["waiting to be read"]
    async_to_sync(runs.run)(collection.pk)
    count = Datum.objects.filter(collection=collection).count()
    assert state_of(client, dataset, collection) == [f"{count} piece, {count} are waiting for their vectors"]
    async_to_sync(sets.embed_pending)(dataset.pk)
    assert state_of(client, dataset, collection) == [f"{count} piece"]


def test_link(dataset, client):
    page = text(send(client, dataset, "import_link", link=" https://example.org/film ", name="of a text"))
    assert "“https://example.org/film” is being imported." in page
    collection = Collection.objects.get(dataset=dataset)
    assert (collection.kind, collection.url) == (Kind.LINK, "https://example.org/film")


@pytest.mark.parametrize(
    ("what", "fields", "complaint"),
    [
        ("import_text", {"text": ""}, "The text is empty."),
        ("import_text", {"text": " \r\n "}, "The text is empty."),
        ("import_text", {"text": "x", "name": "x" * 201}, "at most 200 characters"),
        ("import_text", {"text": "x", "chunk_size": "31"}, "greater than or equal to 32"),
        ("import_text", {"text": "x", "chunk_size": "4097"}, "less than or equal to 4096"),
        ("import_text", {"text": "x", "chunk_size": "9" * 30}, "less than or equal to 4096"),
        ("import_text", {"text": "x", "parent": "foreign"}, "not one of the available choices"),
        ("import_text", {"text": "x", "parent": "elsewhere"}, "not one of the available choices"),
        ("import_text", {"text": "x", "parent": "no folder"}, "not one of the available choices"),
        ("import_link", {"link": ""}, "Give a URL that begins with http:// or https://."),
        ("import_link", {"link": "file:///etc/passwd"}, "Give a URL that begins with http:// or https://."),
        ("import_link", {"link": "https://user:word@example.org/"}, "username or password"),
        ("import_link", {"link": "https://example.org/" + "x" * 2_000}, "at most 2000 characters"),
        ("import_link", {"link": "https://[::1/"}, "This is not a URL."),
    ],
)
def test_wrong_field(dataset, client, what, fields, complaint):
    places = {
        "foreign": lambda: factories.make_collection(kind=Kind.FOLDER),
        "elsewhere": lambda: factories.make_collection(factories.make_dataset(dataset.team), kind=Kind.FOLDER),
        "no folder": lambda: factories.make_collection(dataset),
    }
    fields = {name: places[value]().pk if value in places else value for name, value in fields.items()}
    assert complaint in text(send(client, dataset, what, **fields))


@pytest.mark.parametrize(("what", "fields"), [("import_text", {"text": "x"}), ("import_link", {"link": "https://a.b"})])
def test_too_much_waits(dataset, client, monkeypatch, what, fields):
    monkeypatch.setattr(sources, "MAXIMUM_WAITING", 0)
    assert "at most 0 may" in text(send(client, dataset, what, **fields))
    assert not Collection.objects.filter(dataset=dataset).exists()
    assert not Collection.objects.filter(dataset=dataset, kind__in=(Kind.TEXT, Kind.LINK)).exists()


def test_nul(dataset, client):
    for name in ("text", "link", "name", "parent"):
        assert send(client, dataset, **{"text": "x", name: "a\0b"}).status_code == 400
    response = client.get(url(Dataset, "import_state", dataset.pk), {"collection": "\0"})
    assert response.status_code == 400


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"state": ImportState.READING}, "being read, 2 pieces, 2 are waiting for their vectors"),
        ({"state": ImportState.FAILED, "failure": "The pdf is encrypted."}, "failed: The pdf is encrypted."),
        ({"repeated": 3, "left_out": 4}, "2 pieces, 2 are waiting for their vectors, 3 already there, 4 left out"),
    ],
)
def test_what_is_said_of_an_import(dataset, client, columns, told):
    collection = factories.make_collection(dataset, kind=Kind.FILE, **columns)
    insert(collection, [NewDatum("one"), NewDatum("two")])
    assert state_of(client, dataset, collection) == [told]


def test_texts_that_a_model_refuses_are_not_waited_for(dataset, client):
    collection = factories.make_collection(dataset, kind=Kind.FILE)
    insert(collection, [NewDatum("one"), NewDatum("two")])
    async_to_sync(sets.embed_pending)(dataset.pk)
    insert(collection, [NewDatum("three")])
    PendingVector.objects.filter(collection=collection).update(attempts=MAXIMUM_ATTEMPTS, failure="too long")
    response = client.get(url(Dataset, "import_state", dataset.pk), {"collection": collection.pk})
    (told,) = json.loads(response.content)["collections"]
    assert (told["text"], told["is_over"], told["waiting"]) == ("3 pieces, 1 refused by the model", True, 0)


def test_state_of_what_is_elsewhere(dataset, client):
    others = [factories.make_collection(), factories.make_collection(factories.make_dataset(dataset.team))]
    assert state_of(client, dataset, *others) == []
    query = {"collection": ["x", "0" * 24, "9" * 5_000, ""]}
    response = client.get(url(Dataset, "import_state", dataset.pk), query)
    assert json.loads(response.content) == {"collections": []}


def test_queries_do_not_grow_with_imports(dataset, client):
    numbers = []
    for count in (2, 6):
        for number in range(count):
            insert(factories.make_collection(dataset, kind=Kind.FILE), [NewDatum(f"{number}")])
        with CaptureQueriesContext(connection) as queries:
            assert client.get(url(Dataset, "import", dataset.pk)).status_code == 200
        numbers.append(len(queries))
    assert numbers[0] == numbers[1]


def test_names_are_no_markup(dataset, client):
    factories.make_collection(dataset, kind=Kind.FILE, name="<script>alert(1)</script>", failure="<b>", state="failed")
    page = client.get(url(Dataset, "import", dataset.pk)).content.decode()
    assert "<script>alert" not in page
    assert "failed: &lt;b&gt;" in page


def test_without_the_permissions(dataset):
    for lacking in RIGHTS:
        _, client = staff(dataset.team, *(right for right in RIGHTS if right != lacking))
        for page in ("import", "import_state"):
            assert client.get(url(Dataset, page, dataset.pk)).status_code == 403
            assert client.post(url(Dataset, page, dataset.pk), {"text": "x"}).status_code == 403
    assert not dataset.collections.exists()
    _, client = staff(dataset.team, "datasets.view_dataset")
    assert url(Dataset, "import", dataset.pk) not in text(client.get(url(Dataset, "change", dataset.pk)))


def test_foreign_dataset_looks_absent(client):
    for pk in (factories.make_dataset().pk, "0" * 24):
        assert client.get(url(Dataset, "import", pk))["Location"] == "/admin/"
        assert client.post(url(Dataset, "import", pk), {"text": "x"})["Location"] == "/admin/"
        assert client.get(url(Dataset, "import_state", pk)).status_code == 404
