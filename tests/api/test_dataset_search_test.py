"""`core/dataset/searchTest`: what a search finds, in which order, and with which scores."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from asgiref.sync import async_to_sync
from django.db import connection

from apikeys.accounting.ledger import UsageRecord
from apikeys.errors import UpstreamTimeout
from apikeys.outbound import client
from datasets.data import NewDatum, insert
from datasets.models import Collection, VectorSet
from datasets.search import retrieval
from datasets.search.retrieval import MAXIMUM_HOLDING, Query
from datasets.vectors import sets
from tests.api.test_policy import session_of
from tests.conftest import Server
from tests.support import factories
from tests.support.fake_models import FakeModels
from tests.support.loopback import loopback_allowed
from tests.support.processes import wait_for
from tests.support.refusals import check_refusal

PATH = "/api/core/dataset/searchTest"
FILM = [
    NewDatum("《卧虎藏龙》是一部二零零零年上映的武侠电影，导演是李安。", "李安"),
    NewDatum("Crouching Tiger, Hidden Dragon is a film of the year 2000. Its director is Ang Lee."),
    NewDatum("影片由周润发、杨紫琼和章子怡主演。"),
    NewDatum("The film stars Chow Yun-fat, Michelle Yeoh and Zhang Ziyi."),
    NewDatum("配乐由谭盾创作，大提琴独奏是马友友。"),
    NewDatum("The score was composed by Tan Dun, with cello solos by Yo-Yo Ma."),
]


async def embed(dataset_id: str) -> None:
    """Embed as the job does."""
    await sets.embed_pending(dataset_id)
    await client.close()


def fill(collection: Collection, *items: NewDatum) -> None:
    insert(collection, items)
    async_to_sync(embed)(collection.dataset_id)


@pytest.fixture(scope="module")
def film(database: None) -> Collection:
    collection = factories.make_collection()
    fill(collection, *FILM)
    return collection


def ask(server: Server, collection: Collection, text: str, **body: Any) -> httpx2.Response:
    _, key = factories.make_key(collection.dataset.team)
    return server.post(PATH, key, json={"datasetId": collection.dataset_id, "text": text, **body})


def search(server: Server, collection: Collection, text: str, **body: Any) -> dict[str, Any]:
    response = ask(server, collection, text, **body)
    assert response.status_code == 200, response.text
    data: dict[str, Any] = response.json()["data"]
    return data


@pytest.fixture(scope="module", autouse=True)
def loopback_is_allowed() -> Iterator[None]:
    """Allow it in this process, which embeds the texts that the tests insert."""
    with loopback_allowed():
        yield


@pytest.fixture(scope="module")
def models() -> Iterator[FakeModels]:
    with FakeModels() as models:
        yield models


def make_embedded(models: FakeModels, model: str = "letters", **provider: Any) -> Collection:
    """Make a collection whose vectors a provider makes."""
    team = factories.make_team()
    provider = factories.make_provider(team, models.url, **provider)
    return factories.make_collection(factories.make_dataset(team, provider, model))


def make_reranked(models: FakeModels, model: str) -> Collection:
    team = factories.make_team()
    provider = factories.make_provider(team, models.url)
    collection = factories.make_collection(factories.make_dataset(team, rerank_provider=provider, rerank_model=model))
    fill(collection, *FILM)
    return collection


MODES = ["embedding", "fullTextRecall", "mixedRecall"]


@pytest.mark.parametrize("mode", MODES)
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


def texts(data: dict[str, Any]) -> list[str]:
    return [quote["q"] for quote in data["list"]]


def test_what_is_answered(server: Server, film: Collection) -> None:
    data = search(server, film, "Who is the director?", searchMode="mixedRecall")
    quote = data["list"][0]
    assert quote | {"id": "", "score": []} == {
        "id": "",
        "q": FILM[1].q,
        "a": "",
        "chunkIndex": 1,
        "datasetId": film.dataset_id,
        "collectionId": film.pk,
        "sourceName": film.name,
        "sourceId": film.pk,
        "score": [],
    }
    assert {name: data[name] for name in ("limit", "searchMode", "usingReRank", "similarity")} == {
        "limit": 5000,
        "searchMode": "mixedRecall",
        "usingReRank": False,
        "similarity": 0.0,
    }
    assert float(data["duration"].removesuffix("s")) > 0


def test_it_is_recorded(server: Server, film: Collection) -> None:
    response = ask(server, film, "cello")
    record = UsageRecord.objects.get(pk=response.headers["x-request-id"])
    assert (record.endpoint, record.status, record.cost_micropoints) == ("dataset.search", 200, 0)


@pytest.mark.parametrize(("mode", "kind"), [("embedding", "embedding"), ("fullTextRecall", "fullText")])
def test_scores_of_one_kind(server: Server, film: Collection, mode: str, kind: str) -> None:
    found = search(server, film, "the film and its cello", searchMode=mode)["list"]
    scores = [score for quote in found for score in quote["score"]]
    assert [(score["type"], score["index"]) for score in scores] == [(kind, index) for index in range(len(found))]
    values = [score["value"] for score in scores]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) > 1
    assert kind == "fullText" or all(-1.001 < value < 1.001 for value in values)


def test_both_kinds_are_fused(server: Server, film: Collection) -> None:
    found = search(server, film, "the film and its cello", searchMode="mixedRecall")["list"]
    for rank, quote in enumerate(found):
        scores = {score["type"]: score for score in quote["score"]}
        ranks = [score["index"] for kind, score in scores.items() if kind != "rrf"]
        assert scores["rrf"]["index"] == rank
        assert scores["rrf"]["value"] == pytest.approx(sum(1 / (61 + index) for index in ranks))
    assert {len(quote["score"]) for quote in found} == {2, 3}


def test_as_many_as_have_room(server: Server, film: Collection) -> None:
    everything = texts(search(server, film, "the film"))
    assert len(everything) == len(FILM)
    some = texts(search(server, film, "the film", limit=60))
    assert 1 < len(some) < len(everything)
    assert some == everything[: len(some)]
    assert texts(search(server, film, "the film", limit=1)) == everything[:1]


def test_what_is_not_similar_enough(server: Server, film: Collection) -> None:
    assert texts(search(server, film, FILM[5].q, similarity=0.99)) == [FILM[5].q]
    assert texts(search(server, film, "xylophone", similarity=1)) == []
    # A datum that is found by its words has no such score.
    assert texts(search(server, film, "cello", similarity=1, searchMode="mixedRecall")) == [FILM[5].q]


@pytest.mark.parametrize("mode", MODES)
def test_a_dataset_without_data(server: Server, mode: str) -> None:
    assert search(server, factories.make_collection(), "anything", searchMode=mode)["list"] == []


def test_what_waits_for_its_vector_is_found_by_its_words(server: Server) -> None:
    collection = factories.make_collection()
    insert(collection, [NewDatum("a harpsichord")])
    assert texts(search(server, collection, "harpsichord")) == []
    assert texts(search(server, collection, "harpsichord", searchMode="fullTextRecall")) == ["a harpsichord"]
    assert texts(search(server, collection, "harpsichord", searchMode="mixedRecall")) == ["a harpsichord"]


def test_a_datum_is_quoted_once(server: Server) -> None:
    """This holds however many of its texts are found, and however often the dataset has it."""
    collection = factories.make_collection()
    datum = NewDatum("the opening hours", "from nine to five", index_texts=["when are you open", "open today"])
    fill(collection, datum, NewDatum("parking"))
    fill(factories.make_collection(collection.dataset), datum)
    found = search(server, collection, "when are you open")["list"]
    assert [(quote["q"], quote["a"]) for quote in found] == [(datum.q, datum.a), ("parking", "")]
    assert found[0]["score"][0]["value"] == pytest.approx(1, abs=0.001)


@pytest.mark.parametrize("mode", MODES)
def test_nothing_of_other_datasets(server: Server, film: Collection, mode: str) -> None:
    collection = factories.make_collection(factories.make_dataset(film.dataset.team))
    fill(collection, NewDatum("The director of the opera"))
    assert texts(search(server, collection, "director", searchMode=mode)) == ["The director of the opera"]


def test_foreign_and_absent_datasets_look_alike(server: Server, film: Collection) -> None:
    _, key = factories.make_key()
    ids = [film.dataset_id, "0" * 24, "x", "", "\0", film.dataset_id.upper() + " "]
    answers = [server.post(PATH, key, json={"datasetId": dataset_id, "text": "director"}) for dataset_id in ids]
    assert len({check_refusal(answer, "unAuthDataset") for answer in answers}) == 1


def ask_as_staff(server: Server, film: Collection, right: str) -> httpx2.Response:
    cookies = session_of(factories.make_user(film.dataset.team, permissions=(right,)))
    headers = {
        "Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items()),
        "X-CSRFToken": cookies["csrftoken"],
    }
    return server.post(PATH, headers=headers, json={"datasetId": film.dataset_id, "text": "cello solos"})


def test_signed_in_staff(server: Server, film: Collection) -> None:
    response = ask_as_staff(server, film, "datasets.view_datum")
    assert response.json()["data"]["list"][0]["q"] == FILM[5].q


def test_staff_who_may_not_see_data(server: Server, film: Collection) -> None:
    check_refusal(ask_as_staff(server, film, "datasets.view_dataset"), "permission_denied")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("datasetId", 1),
        ("datasetId", None),
        ("text", None),
        ("text", ["cello"]),
        ("text", " \n"),
        ("limit", 0),
        ("limit", 20_001),
        ("limit", "5"),
        ("limit", 1.5),
        ("similarity", -0.1),
        ("similarity", 1.1),
        ("similarity", True),
        ("searchMode", "both"),
        ("searchMode", 1),
        ("usingReRank", "yes"),
    ],
)
def test_a_wrong_field_is_named(server: Server, film: Collection, field: str, value: Any) -> None:
    response = ask(server, film, "cello", **{field: value}) if field != "text" else ask(server, film, value)
    if field == "datasetId":
        _, key = factories.make_key(film.dataset.team)
        response = server.post(PATH, key, json={"datasetId": value, "text": "cello"})
    check_refusal(response, "invalid_parameter", param=field)


def test_null_means_absent(server: Server, film: Collection) -> None:
    absent = {"limit": None, "similarity": None, "searchMode": None, "usingReRank": None, "unknown": 1}
    data = search(server, film, "cello", **absent)
    assert (data["limit"], data["similarity"], data["searchMode"]) == (5000, 0.0, "embedding")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "text",
    [
        "cello\0solos",
        "\u202ecello\u2066",
        "cello & | ! <-> ( ' \\ :* -- ; % $1 %s {}",
        "'' \\' :A",
        "😀 cello",
        "cello " * 100_000,
        " ".join(f"word{number}" for number in range(20_000)),
        "。，：",
        "the of and",
    ],
    ids=["nul", "direction", "syntax", "quotes", "emoji", "long", "many words", "no words", "empty words"],
)
def test_any_text(server: Server, film: Collection, text: str, mode: str) -> None:
    found = texts(search(server, film, text, searchMode=mode))
    if "cello" in text:
        assert FILM[5].q in found


def test_half_of_a_character(server: Server, film: Collection) -> None:
    _, key = factories.make_key(film.dataset.team)
    body = f'{{"datasetId": "{film.dataset_id}", "text": "cello \\ud83d"}}'.encode()
    check_refusal(server.post(PATH, key, content=body), "invalid_parameter")


def test_a_provider_embeds(server: Server, models: FakeModels) -> None:
    collection = make_embedded(models)
    fill(collection, NewDatum("aaaa"), NewDatum("bbbb"), NewDatum("cccc"))
    assert texts(search(server, collection, "bbb"))[0] == "bbbb"
    assert models.calls[-1][1]["input"] == ["bbb"]


@pytest.mark.parametrize(
    ("model", "refusal"),
    [
        ("status_500", "upstream_error"),
        ("other_dimension", "upstream_error"),
        ("nan", "upstream_error"),
        ("fewer", "upstream_error"),
        ("never", "upstream_timeout"),
    ],
)
def test_a_provider_fails(server: Server, models: FakeModels, model: str, refusal: str) -> None:
    collection = make_embedded(models, total_seconds=1 if model == "never" else 60)
    fill(collection, NewDatum("aaaa"))
    VectorSet.objects.filter(dataset=collection.dataset).update(model=model)
    message = check_refusal(ask(server, collection, "aaa"), refusal)
    assert models.url not in message
    assert texts(search(server, collection, "aaaa", searchMode="fullTextRecall")) == ["aaaa"]


def test_providers_that_hang_hold_few_threads(server: Server) -> None:
    with FakeModels() as models, ThreadPoolExecutor(MAXIMUM_HOLDING) as pool:
        collection = make_embedded(models)
        fill(collection, NewDatum("aaaa"))
        VectorSet.objects.filter(dataset=collection.dataset).update(model="never")
        _, key = factories.make_key(collection.dataset.team)
        body = {"datasetId": collection.dataset_id, "text": "aaa"}
        before = len(models.calls)
        hanging = [pool.submit(server.post, PATH, key, json=body) for _ in range(MAXIMUM_HOLDING)]
        wait_for(lambda: len(models.calls) == before + MAXIMUM_HOLDING, "they wait for the provider")
        check_refusal(ask(server, collection, "aaa"), "service_unavailable")
        # A search that asks no provider is not concerned.
        assert texts(search(server, collection, "aaaa", searchMode="fullTextRecall")) == ["aaaa"]
        assert search(server, factories.make_collection(), "aaaa")["list"] == []
        models.is_over.set()
        for answer in hanging:
            check_refusal(answer.result(), "upstream_error")
        VectorSet.objects.filter(dataset=collection.dataset).update(model="letters")
        assert texts(search(server, collection, "aaa")) == ["aaaa"]


def test_rerankers_that_hang_hold_few_threads(server: Server) -> None:
    with FakeModels() as models, ThreadPoolExecutor(MAXIMUM_HOLDING) as pool:
        collection = make_reranked(models, "never")
        _, key = factories.make_key(collection.dataset.team)
        body = {"datasetId": collection.dataset_id, "text": "the film", "usingReRank": True}
        hanging = [pool.submit(server.post, PATH, key, json=body) for _ in range(MAXIMUM_HOLDING)]
        wait_for(lambda: len(models.calls) == MAXIMUM_HOLDING, "they wait for the provider")
        check_refusal(ask(server, collection, "the film", usingReRank=True), "service_unavailable")
        assert search(server, collection, "the film")["list"]
        models.is_over.set()
        for answer in hanging:
            check_refusal(answer.result(), "upstream_error")


@pytest.mark.parametrize("waits_for", ["embedding", "rerank"])
def test_a_provider_that_may_take_long(
    server: Server, models: FakeModels, monkeypatch: pytest.MonkeyPatch, waits_for: str
) -> None:
    """A search waits for it no longer than a search may take."""
    monkeypatch.setattr(retrieval, "PROVIDER_SECONDS", 1)
    team = factories.make_team()
    provider = factories.make_provider(team, models.url, total_seconds=600)
    rerank = {"rerank_provider": provider, "rerank_model": "never"}
    collection = factories.make_collection(factories.make_dataset(team, provider, "letters", **rerank))
    fill(collection, NewDatum("aaaa"))
    if waits_for == "embedding":
        VectorSet.objects.filter(dataset=collection.dataset).update(model="never")
    query = Query(team.pk, (collection.dataset_id,), "aaa", uses_rerank=True)

    async def ask() -> None:
        try:
            await asyncio.wait_for(retrieval.search(query), 20)
        finally:
            await client.close()

    with pytest.raises(UpstreamTimeout):
        async_to_sync(ask)()
    assert models.calls[-1][0] == ("/v1/embeddings" if waits_for == "embedding" else "/v1/rerank")


def test_a_reranker_decides(server: Server, models: FakeModels) -> None:
    collection = make_reranked(models, "by length")
    data = search(server, collection, "the film", usingReRank=True, searchMode="mixedRecall")
    assert data["usingReRank"] is True
    lengths = [len(quote["q"]) + (len(quote["a"]) and len(quote["a"]) + 1) for quote in data["list"]]
    assert lengths == sorted(lengths)
    for rank, (quote, length) in enumerate(zip(data["list"], lengths, strict=True)):
        assert quote["score"][-1] == {"type": "reRank", "value": pytest.approx(1 / (1 + length)), "index": rank}
    path, body = models.calls[-1]
    assert (path, body["model"], body["query"]) == ("/v1/rerank", "by length", "the film")
    assert f"{FILM[0].q}\n{FILM[0].a}" in body["documents"]


def test_similarity_is_the_rerankers(server: Server, models: FakeModels) -> None:
    collection = make_reranked(models, "by length")
    least = 1 / (1 + len(FILM[4].q))
    found = texts(search(server, collection, "the film", usingReRank=True, similarity=least - 0.0001))
    assert found == sorted([FILM[4].q, FILM[2].q], key=len)


def test_nobody_reranks(server: Server, film: Collection) -> None:
    data = search(server, film, FILM[5].q, usingReRank=True, similarity=0.99)
    assert data["usingReRank"] is False
    assert texts(data) == [FILM[5].q]


@pytest.mark.parametrize("model", ["status_500", "nan", "fewer"])
def test_a_reranker_fails(server: Server, models: FakeModels, model: str) -> None:
    collection = make_reranked(models, model)
    check_refusal(ask(server, collection, "the film", usingReRank=True), "upstream_error")
    assert search(server, collection, "the film")["list"]


def test_a_model_in_the_making(server: Server, models: FakeModels) -> None:
    """Search goes on with the vectors there are, until the others are complete."""
    collection = factories.make_collection()
    fill(collection, NewDatum("aaaa"), NewDatum("bbbb"))
    provider = factories.make_provider(collection.dataset.team, models.url)
    sets.change_model(collection.dataset, provider, "letters")
    asked = len(models.calls)
    assert len(texts(search(server, collection, "bbbb"))) == 2
    assert len(models.calls) == asked
    async_to_sync(embed)(collection.dataset_id)
    assert texts(search(server, collection, "bbb"))[0] == "bbbb"
    assert models.calls[-1][1]["input"] == ["bbb"]


def test_a_model_takes_over_in_the_middle(server: Server) -> None:
    """The old one embeds the query meanwhile: then the new one is asked as well."""
    with FakeModels() as models:
        collection = make_embedded(models)
        fill(collection, NewDatum("aaaa"), NewDatum("bbbb"))
        sets.change_model(collection.dataset, None, "")
        dataset_id = collection.dataset_id

        def take_over() -> None:
            async_to_sync(embed)(dataset_id)
            connection.close()

        models.on_call = take_over
        assert len(texts(search(server, collection, "bbbb"))) == 2
    assert VectorSet.objects.get(dataset=dataset_id).provider is None
