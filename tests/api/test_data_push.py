"""`core/dataset/data/pushData`: many data at once, with an account of those that were not taken."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from datasets.data import MAXIMUM_INDEX_TEXTS
from datasets.models import Collection, Datum, IndexText, Kind, PendingVector
from datasets.texts import MAXIMUM_TOKENS, token_counts
from tests.conftest import Server
from tests.support import factories
from tests.support.datasets import Library, data_of, staff_call
from tests.support.refusals import check_refusal


@pytest.fixture
def library(server: Server) -> Library:
    return Library(server)


@pytest.fixture
def collection(library: Library) -> Collection:
    return factories.make_collection(factories.make_dataset(library.team))


def push(library: Library, collection: Collection, *items: Any, **body: Any) -> Any:
    return library.call("POST", "data/pushData", {"collectionId": collection.pk, "data": items, **body})


def rows_in(collection: Collection) -> list[tuple[str, str, int]]:
    rows = Datum.objects.filter(collection=collection)
    return list(rows.order_by("chunk_index", "pk").values_list("q", "a", "chunk_index"))


def test_it_works(library: Library, collection: Collection) -> None:
    items = [
        {"q": "导演是谁", "a": "李安"},
        {"q": " Who is it? ", "a": None, "chunkIndex": 7, "indexes": [{"text": "director"}, {"text": " "}]},
    ]
    answer = data_of(push(library, collection, *items, trainingMode="chunk", prompt="x", billId="x"))
    assert answer == {"insertLen": 2, "overToken": [], "repeat": [], "error": []}
    assert rows_in(collection) == [("导演是谁", "李安", 0), ("Who is it?", "", 7)]
    texts = IndexText.objects.filter(dataset=collection.dataset).order_by("pk")
    assert set(texts.values_list("text", "is_default")) == {
        ("导演是谁", True),
        ("Who is it?", True),
        ("director", False),
    }
    assert PendingVector.objects.filter(collection=collection).count() == 3


def test_what_is_not_taken(library: Library, collection: Collection) -> None:
    data_of(push(library, collection, {"q": "known"}))
    long = "导演" * MAXIMUM_TOKENS
    items = [
        {"q": "", "a": "no question"},
        {"q": "new"},
        {"q": " known "},
        {"a": "no question at all"},
        {"q": long},
        {"q": "q", "a": "x" * 500_000},
        {"q": "long index", "indexes": [{"text": long}]},
        {"q": "new"},
        {"q": None},
        {"q": "new", "a": "another answer"},
        {"q": "\0"},
    ]
    answer = data_of(push(library, collection, *items))
    assert answer["insertLen"] == 3
    assert answer["repeat"] == [{"q": " known ", "a": ""}, {"q": "new", "a": ""}]
    assert answer["error"] == [
        {"q": "", "a": "no question"},
        {"q": "", "a": "no question at all"},
        {"q": "", "a": ""},
    ]
    assert [(len(one["q"]), len(one["a"])) for one in answer["overToken"]] == [(len(long), 0), (1, 500_000), (10, 0)]
    assert [(q, a) for q, a, _ in rows_in(collection)[1:]] == [("new", ""), ("new", "another answer"), ("\ufffd", "")]


def test_the_most_tokens(library: Library, collection: Collection) -> None:
    """A datum may have exactly as many as models take, and not one more."""
    words = 1
    text = "导演"
    while token_counts([f"{text} 导演\n"])[0] <= MAXIMUM_TOKENS:
        step = max(1, (MAXIMUM_TOKENS - token_counts([f"{text}\n"])[0]) // 8)
        text += " 导演" * step
        words += step
    while token_counts([f"{text}a\n"])[0] <= MAXIMUM_TOKENS:
        text += "a"
    answer = data_of(push(library, collection, {"q": text}, {"q": f"{text} 导演"}))
    assert (answer["insertLen"], len(answer["overToken"])) == (1, 1)


def test_200_items_and_no_more(library: Library, collection: Collection) -> None:
    items = [{"q": f"question {number}"} for number in range(201)]
    check_refusal(push(library, collection, *items), "invalid_parameter", param="data")
    assert rows_in(collection) == []
    assert data_of(push(library, collection, *items[:200]))["insertLen"] == 200
    assert rows_in(collection)[-1] == ("question 199", "", 199)
    assert data_of(push(library, collection, *items[:200]))["repeat"] == [{**item, "a": ""} for item in items[:200]]
    assert data_of(push(library, collection))["insertLen"] == 0


def test_staff(server: Server, library: Library, collection: Collection) -> None:
    user = factories.make_user(library.team, permissions=("datasets.add_datum",))
    body = {"collectionId": collection.pk, "data": [{"q": "one"}]}
    assert data_of(staff_call(server, user, "POST", "data/pushData", json=body))["insertLen"] == 1


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"collectionId": None}, "collectionId"),
        ({"data": None}, "data"),
        ({"data": {"q": "x"}}, "data"),
        ({"data": ["x"]}, "data[0]"),
        ({"data": [{"q": "x"}, {"q": 5}]}, "data[1].q"),
        ({"data": [{"q": "x", "a": ["x"]}]}, "data[0].a"),
        ({"data": [{"q": "x", "chunkIndex": -1}]}, "data[0].chunkIndex"),
        ({"data": [{"q": "x", "chunkIndex": 2**31}]}, "data[0].chunkIndex"),
        ({"data": [{"q": "x", "indexes": ["x"]}]}, "data[0].indexes[0]"),
        ({"data": [{"q": "x", "indexes": [{"text": None}]}]}, "data[0].indexes[0].text"),
        ({"data": [{"q": "x", "indexes": [{"text": "x"}] * (MAXIMUM_INDEX_TEXTS + 1)}]}, "indexes"),
        ({"trainingMode": "qa"}, "trainingMode"),
        ({"trainingType": "auto"}, "trainingType"),
        ({"mode": "qa"}, "mode"),
    ],
)
def test_bad_input(library: Library, collection: Collection, body: dict[str, Any], param: str) -> None:
    response = library.call("POST", "data/pushData", {"collectionId": collection.pk, "data": [{"q": "x"}], **body})
    check_refusal(response, "invalid_parameter", param=param)
    assert rows_in(collection) == []


def test_a_folder(library: Library, collection: Collection) -> None:
    folder = factories.make_collection(collection.dataset, kind=Kind.FOLDER)
    check_refusal(push(library, folder, {"q": "x"}), "invalid_parameter", param="collectionId")


def test_too_large_a_body(library: Library, collection: Collection) -> None:
    check_refusal(push(library, collection, {"q": "x" * (2 * 1024 * 1024)}), "body_too_large")


@pytest.mark.parametrize(
    "text", ["\ufeff\u202e שלום \u2066", "a\0b", "👨‍👩‍👧", "\u0001\u001f", "a" * 100_000, "' \\ \" % ?"]
)
def test_text_of_all_kinds(library: Library, collection: Collection, text: str) -> None:
    raw = {"q": text, "a": text, "indexes": [{"text": f"{text} too"}]}
    answer = data_of(push(library, collection, raw))
    if len(text) == 100_000:
        assert len(answer["overToken"]) == 1
        return
    clean = text.replace("\0", "\ufffd").strip()
    if clean:
        assert rows_in(collection) == [(clean, clean, 0)]
    else:
        assert answer["error"] == [{"q": text, "a": text}]


def test_half_a_character(library: Library, collection: Collection) -> None:
    raw = b'{"collectionId":"%s","data":[{"q":"a\\ud83d"}]}' % collection.pk.encode()
    check_refusal(library.call("POST", "data/pushData", content=raw), "invalid_parameter")


def test_the_same_from_two_at_once(library: Library, collection: Collection) -> None:
    """Each datum is taken once, whoever comes first."""
    items = [{"q": f"question {number}"} for number in range(100)]
    with ThreadPoolExecutor(4) as threads:
        pushes = [threads.submit(push, library, collection, *turned) for turned in (items, items[::-1]) * 2]
    answers = [data_of(pushed.result()) for pushed in pushes]
    assert sum(answer["insertLen"] for answer in answers) == 100
    assert sum(len(answer["repeat"]) for answer in answers) == 300
    assert len(rows_in(collection)) == 100


def test_while_its_collection_is_removed(library: Library) -> None:
    """It is taken or refused, never lost halfway."""
    dataset = factories.make_dataset(library.team)
    for _ in range(5):
        collection = factories.make_collection(dataset)
        items = [{"q": f"question {number}"} for number in range(100)]
        with ThreadPoolExecutor(2) as threads:
            pushed = threads.submit(push, library, collection, *items)
            removed = threads.submit(library.call, "POST", "collection/delete", {"collectionIds": [collection.pk]})
        assert removed.result().status_code == 200
        if pushed.result().status_code != 200:
            check_refusal(pushed.result(), "unAuthDatasetCollection")
        assert not Datum.objects.filter(collection=collection.pk).exists()
