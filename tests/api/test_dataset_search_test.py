"""`core/dataset/searchTest`: what a search finds, in which order, and with which scores."""

from typing import Any

import pytest
from asgiref.sync import async_to_sync

from datasets import vector_sets
from datasets.data import NewDatum, insert
from datasets.models import Collection
from tests import factories
from tests.conftest import Server

PATH = "/api/core/dataset/searchTest"
FILM = [
    NewDatum("《卧虎藏龙》是一部二零零零年上映的武侠电影，导演是李安。", "李安"),
    NewDatum("Crouching Tiger, Hidden Dragon is a film of the year 2000. Its director is Ang Lee."),
    NewDatum("影片由周润发、杨紫琼和章子怡主演。"),
    NewDatum("The film stars Chow Yun-fat, Michelle Yeoh and Zhang Ziyi."),
    NewDatum("配乐由谭盾创作，大提琴独奏是马友友。"),
    NewDatum("The score was composed by Tan Dun, with cello solos by Yo-Yo Ma."),
]


def fill(collection: Collection, *items: NewDatum) -> None:
    insert(collection, items)
    async_to_sync(vector_sets.embed_pending)(collection.dataset_id)


@pytest.fixture(scope="module")
def film(database: None) -> Collection:
    collection = factories.make_collection()
    fill(collection, *FILM)
    return collection


def search(server: Server, collection: Collection, text: str, **body: Any) -> dict[str, Any]:
    _, key = factories.make_key(collection.dataset.team)
    response = server.post(PATH, key, json={"datasetId": collection.dataset_id, "text": text, **body})
    assert response.status_code == 200, response.text
    data: dict[str, Any] = response.json()["data"]
    return data


@pytest.mark.parametrize("mode", ["embedding", "fullTextRecall", "mixedRecall"])
@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("这部武侠电影的导演是谁", FILM[0].q),
        ("Who is the director?", FILM[1].q),
        ("谁主演了这部影片", FILM[2].q),
        ("cello solos", FILM[5].q),
    ],
)
def test_it_works(server: Server, film: Collection, mode: str, text: str, answer: str) -> None:
    data = search(server, film, text, searchMode=mode)
    assert data["list"][0]["q"] == answer, data["list"]
