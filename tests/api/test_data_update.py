"""`core/dataset/data/update`: another text, whose vector is made anew."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from datasets.data import MAXIMUM_INDEX_TEXTS, NewDatum, insert
from datasets.models import Collection, Datum, PendingVector, Vector
from datasets.texts import MAXIMUM_TOKENS
from datasets.vectors import sets
from tests.conftest import Server
from tests.support import factories
from tests.support.datasets import Library, data_of
from tests.support.refusals import check_refusal


@pytest.fixture
def library(server: Server) -> Library:
    return Library(server)


@pytest.fixture
def collection(library: Library) -> Collection:
    return factories.make_collection(factories.make_dataset(library.team))


@pytest.fixture
def datum(collection: Collection) -> Datum:
    datum_id = insert(collection, [NewDatum("one", "1", index_texts=["first"])]).ids[0]
    return Datum.objects.get(pk=datum_id)


def update(library: Library, datum: Datum, method: str = "PUT", **body: Any) -> Any:
    return library.call(method, "data/update", {"dataId": datum.pk, **body})


def texts(datum: Datum) -> set[tuple[str, bool]]:
    return set(datum.index_texts.values_list("text", "is_default"))


@pytest.mark.parametrize(("method", "name"), [("PUT", "dataId"), ("POST", "id")])
def test_it_works(library: Library, datum: Datum, method: str, name: str) -> None:
    async_to_sync(sets.embed_pending)(datum.dataset_id)
    body = {name: datum.pk, "q": " eins ", "a": "I", "indexes": [{"text": "primo"}]}
    assert data_of(library.call(method, "data/update", body)) is None
    datum.refresh_from_db()
    assert (datum.q, datum.a) == ("eins", "I")
    assert texts(datum) == {("eins", True), ("primo", False)}
    assert PendingVector.objects.filter(collection=datum.collection).count() == 2


def test_what_is_not_named_stays(library: Library, datum: Datum) -> None:
    data_of(update(library, datum, a="I"))
    datum.refresh_from_db()
    assert (datum.q, datum.a, texts(datum)) == ("one", "I", {("one", True), ("first", False)})
    data_of(update(library, datum, q="eins", a=None, indexes=None))
    datum.refresh_from_db()
    assert (datum.q, datum.a, texts(datum)) == ("eins", "I", {("eins", True), ("first", False)})
    data_of(update(library, datum, a="", indexes=[]))
    datum.refresh_from_db()
    assert (datum.q, datum.a, texts(datum)) == ("eins", "", {("eins", True)})


def test_indexes_sent_back_as_they_were_told(library: Library, datum: Datum) -> None:
    indexes = library.get("data/detail", id=datum.pk)["indexes"]
    data_of(update(library, datum, q="eins", indexes=[*indexes, {"text": "primo"}]))
    assert texts(datum) == {("eins", True), ("first", False), ("primo", False)}


def test_a_repeat(library: Library, collection: Collection, datum: Datum) -> None:
    insert(collection, [NewDatum("two", "2")])
    assert "already" in check_refusal(update(library, datum, q="two", a="2"), "invalid_parameter", param="q")
    datum.refresh_from_db()
    assert (datum.q, texts(datum)) == ("one", {("one", True), ("first", False)})
    data_of(update(library, datum, q="one", a="1"))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"q": ""}, "q"),
        ({"q": " "}, "q"),
        ({"q": 1}, "q"),
        ({"a": {}}, "a"),
        ({"q": "导演" * MAXIMUM_TOKENS}, "q"),
        ({"a": "导演" * MAXIMUM_TOKENS}, "q"),
        ({"indexes": [{"text": "导演" * MAXIMUM_TOKENS}]}, "q"),
        ({"indexes": [{"text": str(n)} for n in range(MAXIMUM_INDEX_TEXTS + 1)]}, "indexes"),
        ({"indexes": [{"text": "x"}] * 100}, "indexes"),
    ],
)
def test_bad_input(library: Library, datum: Datum, body: dict[str, Any], param: str) -> None:
    check_refusal(update(library, datum, **body), "invalid_parameter", param=param)
    datum.refresh_from_db()
    assert (datum.q, datum.a, texts(datum)) == ("one", "1", {("one", True), ("first", False)})


def test_two_at_once(library: Library, datum: Datum) -> None:
    """A field that one does not name stays as the other made it."""
    for number in range(5):
        with ThreadPoolExecutor(2) as threads:
            bodies = [{"q": f"q{number}"}, {"a": f"a{number}"}]
            updates = [threads.submit(update, library, datum, **body) for body in bodies]
        assert [done.result().status_code for done in updates] == [200, 200]
        datum.refresh_from_db()
        assert (datum.q, datum.a) == (f"q{number}", f"a{number}")


def test_while_its_collection_is_removed(library: Library) -> None:
    for _ in range(5):
        collection = factories.make_collection(factories.make_dataset(library.team))
        ids = insert(collection, [NewDatum(str(number)) for number in range(50)]).ids
        datum = Datum.objects.get(pk=ids[25])
        with ThreadPoolExecutor(2) as threads:
            updated = threads.submit(update, library, datum, q="new")
            removed = threads.submit(library.call, "DELETE", f"collection/delete?id={collection.pk}")
        assert removed.result().status_code == 200
        if updated.result().status_code != 200:
            check_refusal(updated.result(), "unAuthDatasetData")
        assert not Datum.objects.filter(collection=collection.pk).exists()


def test_while_vectors_are_made(library: Library, collection: Collection) -> None:
    """Neither a change or removal nor the job that makes the vectors fails for the other."""
    ids = insert(collection, [NewDatum(f"question {number}") for number in range(1_000)]).ids
    with ThreadPoolExecutor(2) as threads:
        calls = [
            threads.submit(library.call, "POST", "data/delete", {"id": ids[number]})
            if number % 8
            else threads.submit(library.call, "POST", "data/update", {"id": ids[number], "q": f"other {number}"})
            for number in range(0, 1_000, 4)
        ]
        async_to_sync(sets.embed_pending)(collection.dataset_id)
    assert {call.result().status_code for call in calls} == {200}
    async_to_sync(sets.embed_pending)(collection.dataset_id)
    assert Vector.objects.filter(vector_set__dataset=collection.dataset).count() == 875
    assert not PendingVector.objects.filter(collection=collection).exists()
