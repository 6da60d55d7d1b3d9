"""Search by words, where a dataset is so large that its words are common."""

from collections.abc import Iterator

import pytest
from django.db import connection

from apikeys.hot_path.connections import connect
from datasets.data import NewDatum, insert
from datasets.models import Collection, Datum, VectorSet
from datasets.search import nearest
from datasets.search.full_text import COMMON, MAXIMUM_WEIGHED, find_by_words
from datasets.texts import words_of
from tests.support import factories

COLORS = ("red", "blue", "green")


def texts_found(collection: Collection, text: str) -> list[str]:
    with connect() as own, own.transaction():
        nearest.prepare(own)
        found = find_by_words(own, [collection.dataset_id], words_of(text))
    texts = dict(Datum.objects.filter(pk__in=[pk for pk, _ in found]).values_list("pk", "q"))
    return [texts[pk] for pk, _ in found]


@pytest.fixture(params=[True, False], ids=["analyzed", "not yet embedded"])
def large(request: pytest.FixtureRequest) -> Iterator[Collection]:
    """Insert more films of each color than can be weighed. Those of several colors are read last."""
    collection = factories.make_collection()
    count = max(COMMON, len(COLORS) * MAXIMUM_WEIGHED) + len(COLORS)
    texts = [f"film {number} is {COLORS[number % len(COLORS)]}" for number in range(count)]
    insert(collection, [NewDatum(text) for text in [*texts, "a film of blue and green", "red, blue, green, rarely"]])
    vector_set = VectorSet.objects.get(dataset=collection.dataset)
    if request.param:
        VectorSet.objects.filter(pk=vector_set.pk).update(dimension=1)
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO datasets_vector (vector_set_id, index_text_id, embedding)"
                " SELECT %s, id, '[1]' FROM datasets_indextext WHERE dataset_id = %s",
                [vector_set.pk, collection.dataset_id],
            )
            cursor.execute("ANALYZE datasets_datum")
    yield collection
    collection.dataset.delete()


def test_it_works(large: Collection) -> None:
    assert texts_found(large, "rarely") == ["red, blue, green, rarely"]


def test_common_words_have_to_stand_together(large: Collection) -> None:
    found = texts_found(large, "red blue green")
    assert found[:2] == ["red, blue, green, rarely", "a film of blue and green"]


def test_what_has_a_rare_word_comes_before_what_has_common_ones(large: Collection) -> None:
    found = texts_found(large, "film 77 red")
    assert found[0] == "film 77 is green"


def test_a_common_word_alone_finds_some_that_have_it(large: Collection) -> None:
    found = texts_found(large, "blue")
    assert len(found) == nearest.CANDIDATES
    assert all("blue" in text for text in found)


def test_words_that_no_text_has_find_nothing(large: Collection) -> None:
    assert texts_found(large, "purple") == []
    assert texts_found(large, "") == []


def test_of_what_can_be_weighed_whole_nothing_is_left_out() -> None:
    """Each word is in more texts than could be weighed together, were there more."""
    collection = factories.make_collection()
    texts = [f"film {number}" + " red" * (number % 3 > 0) + " blue" * (number % 3 > 1) for number in range(1_500)]
    insert(collection, [NewDatum(text) for text in texts])
    found = texts_found(collection, "film red blue")
    assert all(text.endswith("red blue") for text in found)
    assert len(found) == nearest.CANDIDATES


def test_chinese_marks_are_no_words() -> None:
    collection = factories.make_collection()
    insert(collection, [NewDatum("这部电影的导演是李安。"), NewDatum("好，很好，（真的）很好？")])
    assert texts_found(collection, "导演，（是谁）？") == ["这部电影的导演是李安。"]
