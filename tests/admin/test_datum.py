"""Data in the admin: search by words, entries and changes by hand, and new vectors for them."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from asgiref.sync import async_to_sync
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from datasets.data import MAXIMUM_INDEX_TEXTS, NewDatum, insert
from datasets.models import Datum, IndexText, Kind, PendingVector
from datasets.vectors import sets
from tests.support import factories
from tests.support.locks import is_waited_for
from tests.support.pages import FilledForm, browser, staff, text, url
from tests.support.processes import wait_for

RIGHTS = tuple(f"datasets.{right}_datum" for right in ("view", "add", "change", "delete"))
RIGHTS += ("datasets.view_collection",)
LIST, ADD = url(Datum, "changelist"), url(Datum, "add")


@pytest.fixture
def collection():
    return factories.make_collection()


@pytest.fixture
def client(collection):
    return staff(collection.dataset.team, *RIGHTS)[1]


def make_datum(collection, q, a="", *index_texts):
    (datum_id,) = insert(collection, [NewDatum(q, a, index_texts=index_texts)]).ids.values()
    return Datum.objects.get(pk=datum_id)


def texts_of(datum):
    return set(IndexText.objects.filter(datum=datum).values_list("text", flat=True))


def change(client, datum, **fields):
    """Send the form again as it is shown, with these fields changed."""
    page = client.get(url(Datum, "change", datum.pk)).content.decode()
    return client.post(url(Datum, "change", datum.pk), FilledForm(page, "datum_form").fields | fields)


def test_it_works(collection, client):
    page = client.get(f"{ADD}?collection={collection.pk}").content.decode()
    filled = FilledForm(page, "datum_form").fields
    assert filled["collection"] == [collection.pk]
    form = filled | {"q": "导演是谁", "a": "李安", "index_texts": "谁拍的\r\n\r\nwho directed\r\nit?"}
    assert client.post(ADD, form).status_code == 302
    datum = Datum.objects.get(collection=collection)
    assert (datum.q, datum.a, datum.dataset) == ("导演是谁", "李安", collection.dataset)
    assert texts_of(datum) == {"导演是谁", "谁拍的", "who directed\nit?"}
    page = text(client.get(url(Datum, "change", datum.pk)))
    assert "3 texts; 3 are waiting for their vectors" in page
    async_to_sync(sets.embed_pending)(collection.dataset_id)
    page = text(client.get(url(Datum, "change", datum.pk)))
    assert "3 texts" in page
    assert "wait" not in page


def test_another_into_the_same_collection(collection, client):
    response = client.post(ADD, {"collection": collection.pk, "q": "one", "_addanother": "yes"})
    assert response["Location"] == f"{ADD}?collection={collection.pk}"


def test_change_makes_vectors_anew(collection, client):
    datum = make_datum(collection, "one", "1", "eins", "two\nlines")
    async_to_sync(sets.embed_pending)(collection.dataset_id)
    assert change(client, datum, q="uno").status_code == 302
    datum.refresh_from_db()
    assert (datum.q, datum.a) == ("uno", "1")
    assert texts_of(datum) == {"uno", "eins", "two\nlines"}
    waiting = PendingVector.objects.filter(collection=collection)
    assert [one.index_text.text for one in waiting] == ["uno"]
    assert change(client, datum, index_texts="eins").status_code == 302
    assert texts_of(datum) == {"uno", "eins"}


def test_sent_unchanged(collection, client):
    datum = make_datum(collection, "one", "1", "eins\nzwei", "drei")
    async_to_sync(sets.embed_pending)(collection.dataset_id)
    assert change(client, datum).status_code == 302
    assert not PendingVector.objects.filter(collection=collection).exists()
    assert texts_of(datum) == {"one", "eins\nzwei", "drei"}


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"q": ""}, "This field is required."),
        ({"q": " \r\n "}, "This field is required."),
        ({"q": "the same", "a": "answer"}, "The collection has this question with this answer already."),
        ({"q": " the same ", "a": "answer "}, "The collection has this question with this answer already."),
        ({"q": "long " * 9_000}, "longer than 8192 tokens"),
        ({"q": "long " * 5_000, "a": "long " * 5_000}, "longer than 8192 tokens"),
        ({"index_texts": "long " * 9_000}, "longer than 8192 tokens"),
        ({"index_texts": "\n\n".join(map(str, range(MAXIMUM_INDEX_TEXTS + 1)))}, "At most 20."),
    ],
    ids=range(8),
)
def test_wrong_field(collection, client, fields, complaint):
    make_datum(collection, "the same", "answer")
    form = {"collection": collection.pk, "q": "q", "a": "", "index_texts": "", **fields}
    assert complaint in text(client.post(ADD, form))
    assert Datum.objects.filter(collection=collection).count() == 1
    datum = make_datum(collection, "another")
    assert complaint in text(change(client, datum, **fields))
    datum.refresh_from_db()
    assert datum.q == "another"


def test_right_to_left_and_zero_width(collection, client):
    q = "\u202eevil\u202c \u200f שלום \u200b 🎬"
    assert client.post(ADD, {"collection": collection.pk, "q": q}).status_code == 302
    datum = Datum.objects.get(collection=collection)
    assert datum.q == q
    assert client.get(url(Datum, "change", datum.pk)).status_code == 200


def test_nul(collection, client):
    for name in ("q", "a", "index_texts", "collection"):
        assert client.post(ADD, {"collection": collection.pk, "q": "q", name: "\0"}).status_code == 400
    assert not Datum.objects.filter(collection=collection).exists()


@pytest.mark.parametrize("what", ["foreign", "folder", "absent", "x"])
def test_wrong_collection(collection, client, what):
    rows = {
        "foreign": lambda: factories.make_collection().pk,
        "folder": lambda: factories.make_collection(collection.dataset, kind=Kind.FOLDER).pk,
        "absent": lambda: "0" * 24,
    }
    chosen = rows[what]() if what in rows else what
    assert "not one of the available choices" in text(client.post(ADD, {"collection": chosen, "q": "q"}))
    page = client.get(f"{ADD}?collection={chosen}").content.decode()
    assert FilledForm(page, "datum_form").fields["collection"] == [""]


def test_collection_stays(collection, client):
    datum = make_datum(collection, "one")
    other = factories.make_collection(collection.dataset)
    assert change(client, datum, q="two", collection=other.pk).status_code == 302
    datum.refresh_from_db()
    assert (datum.q, datum.collection) == ("two", collection)


def test_somebody_is_quicker(collection, client):
    """An equal datum is entered at the same time and committed first: the form is validated again, and says so."""
    is_entered = Event()

    def enter() -> None:
        with transaction.atomic():
            insert(collection, [NewDatum("new")])
            is_entered.set()
            wait_for(lambda: is_waited_for(connection), "the form waits for it")
        connection.close()

    with ThreadPoolExecutor(1) as pool:
        entered = pool.submit(enter)
        assert is_entered.wait(30)
        page = text(client.post(ADD, {"collection": collection.pk, "q": "new", "index_texts": ""}))
        entered.result()
    assert "The collection has this question with this answer already." in page
    assert Datum.objects.filter(collection=collection).count() == 1


@pytest.mark.parametrize(
    ("sought", "found"),
    [
        ("导演", ["导演是谁"]),
        ("谁导演 李安", ["导演是谁"]),
        ("directing", ["Who directed it?"]),
        ("director zebra", []),
        ("fox's & | ! ( :*", []),
        ("the", []),
    ],
)
def test_search_by_words(collection, client, sought, found):
    for q, a in (("导演是谁", "李安"), ("Who directed it?", "Ang Lee"), ("Who wrote the music?", "")):
        make_datum(collection, q, a)
    foreign = make_datum(factories.make_collection(), "导演是谁 directed foreign")
    for query in ({}, {"collection__id__exact": collection.pk}):
        page = text(client.get(LIST, {"q": sought, **query}))
        assert [q for q in ("导演是谁", "Who directed it?", "Who wrote the music?") if f">{q}</a>" in page] == found
        assert foreign.q not in page


def test_search_by_id(collection, client):
    datum, other = make_datum(collection, "one"), make_datum(collection, "two")
    page = text(client.get(LIST, {"q": datum.pk}))
    assert url(Datum, "change", datum.pk) in page
    assert url(Datum, "change", other.pk) not in page
    foreign = make_datum(factories.make_collection(), "foreign")
    assert url(Datum, "change", foreign.pk) not in text(client.get(LIST, {"q": foreign.pk}))


def test_superuser_searches_everything(collection):
    word = factories.unique("zebra").replace("-", "")
    datum, other = make_datum(collection, word), make_datum(factories.make_collection(), word)
    client = browser(factories.make_user(is_superuser=True))
    page = text(client.get(LIST, {"q": word}))
    assert all(url(Datum, "change", one.pk) in page for one in (datum, other))
    page = text(client.get(LIST, {"q": word, "collection__id__exact": collection.pk}))
    assert url(Datum, "change", other.pk) not in page


def test_list_in_the_order_of_the_source(collection, client):
    insert(collection, [NewDatum(f"piece {number}", chunk_index=9 - number) for number in range(10)])
    page = text(client.get(LIST, {"collection__id__exact": collection.pk}))
    places = [page.index(f">piece {number}</a>") for number in range(10)]
    assert places == sorted(places, reverse=True)


def test_queries_do_not_grow_with_rows(collection, client):
    numbers = []
    for count in (3, 9):
        for number in range(count):
            make_datum(factories.make_collection(collection.dataset), f"{count} {number}")
        with CaptureQueriesContext(connection) as queries:
            assert client.get(LIST).status_code == 200
        numbers.append(len(queries))
        statements = [query["sql"] for query in queries if 'FROM "datasets_datum"' in query["sql"]]
        assert [sql for sql in statements if "LIMIT" not in sql and " IN (" not in sql] == []
    assert numbers[0] == numbers[1]


def test_delete(collection, client):
    datum, kept = make_datum(collection, "one", "", "1"), make_datum(collection, "two")
    assert client.post(url(Datum, "delete", datum.pk), {"post": "yes"}).status_code == 302
    assert list(Datum.objects.filter(collection=collection)) == [kept]
    assert not IndexText.objects.filter(datum_id=datum.pk).exists()
    client.post(LIST, {"action": "delete_selected", "_selected_action": [kept.pk], "post": "yes"})
    assert not Datum.objects.filter(collection=collection).exists()


def test_who_may_only_view(collection):
    datum = make_datum(collection, "one", "1", "eins")
    _, client = staff(collection.dataset.team, "datasets.view_datum")
    page = text(client.get(url(Datum, "change", datum.pk)))
    assert "eins" in page
    assert 'name="index_texts"' not in page
    for path in (ADD, url(Datum, "change", datum.pk), url(Datum, "delete", datum.pk)):
        assert client.post(path, {"q": "x", "post": "yes"}).status_code == 403
