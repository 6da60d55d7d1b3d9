"""`core/dataset/collection/create/text`: a collection from a text."""

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from typing import Any

import pytest
from procrastinate.contrib.django.models import ProcrastinateJob

from datasets.models import Collection, Dataset, ImportState, Kind, PendingVector, SourcePiece
from tests.api.test_policy import session_of
from tests.conftest import Server
from tests.support import factories
from tests.support.refusals import check_refusal
from tests.support.sources import ROOT, made_by, read, texts_of

PATH = f"{ROOT}/text"


def fill(dataset: Dataset, count: int) -> None:
    """Fill a dataset with collections that wait to be read."""
    rows = [
        Collection(dataset=dataset, name=str(number), kind=Kind.LINK, state=state)
        for number, state in zip(range(count), cycle((ImportState.WAITING, ImportState.READING)), strict=False)
    ]
    Collection.objects.bulk_create(rows)


def test_what_waits_is_bounded(server: Server) -> None:
    """The bound is a team's, over all its datasets, and holds where several come at the same moment."""
    dataset, other = (factories.make_dataset(team) for team in [factories.make_team()] * 2)
    _, key = factories.make_key(dataset.team)
    fill(dataset, 196)
    fill(other, 3)
    with ThreadPoolExecutor(6) as threads:
        calls = [
            threads.submit(server.post, PATH, key, json={"datasetId": dataset.pk, "name": "x", "text": "x"})
            for _ in range(6)
        ]
    answers = [call.result() for call in calls]
    (made,) = [answer for answer in answers if answer.status_code == 200]
    for answer in answers:
        if answer is not made:
            assert "at most 200" in check_refusal(answer, "rate_limit_exceeded")
            assert int(answer.headers["retry-after"]) > 0
    assert Collection.objects.filter(dataset=dataset).count() == 197
    foreign = factories.make_dataset()
    _, foreign_key = factories.make_key(foreign.team)
    made_by(server.post(PATH, foreign_key, json={"datasetId": foreign.pk, "name": "x", "text": "x"}))
    read(made_by(made))
    made_by(server.post(PATH, key, json={"datasetId": dataset.pk, "name": "x", "text": "x"}))


def test_it_works(server: Server) -> None:
    dataset = factories.make_dataset()
    folder = factories.make_collection(dataset, kind=Kind.FOLDER)
    _, key = factories.make_key(dataset.team)
    body = {
        "datasetId": dataset.pk,
        "parentId": folder.pk,
        "name": "卧虎藏龙",
        "text": "# 导演\n\n导演是李安。\n\n# Music\n\nBy Tan Dun.",
        "trainingType": "chunk",
        "chunkSize": 64,
        "metadata": {"year": 2000},
        "qaPrompt": "ignored",
    }
    collection = made_by(server.post(PATH, key, json=body))
    assert (collection.name, collection.kind, collection.state) == ("卧虎藏龙", Kind.TEXT, ImportState.WAITING)
    assert (collection.parent, collection.chunk_size, collection.metadata) == (folder, 64, {"year": 2000})
    assert ProcrastinateJob.objects.filter(task_name="import", lock=f"import:{collection.pk}", status="todo").exists()
    read(collection)
    assert (collection.state, collection.chunks_read) == (ImportState.READY, 1)
    assert texts_of(collection) == [("# 导演\n\n导演是李安。\n\n# Music\n\nBy Tan Dun.", "")]
    assert not SourcePiece.objects.filter(collection=collection).exists()


def test_its_detail_tells_how_far_it_is(server: Server) -> None:
    dataset = factories.make_dataset()
    _, key = factories.make_key(dataset.team)
    body = {"datasetId": dataset.pk, "name": "x", "text": "a word " * 300, "chunkSize": 64}
    collection = made_by(server.post(PATH, key, json=body))

    def detail() -> dict[str, Any]:
        data: dict[str, Any] = server.get(f"/api/core/dataset/collection/detail?id={collection.pk}", key).json()["data"]
        names = ("state", "trainingAmount", "chunksRead", "repeat", "leftOut", "refused", "refusal")
        return {name: data[name] for name in names}

    empty = {"chunksRead": 0, "repeat": 0, "leftOut": 0, "refused": 0, "refusal": ""}
    assert detail() == {"state": "waiting", "trainingAmount": 1, **empty}
    read(collection)
    pieces, repeated = collection.chunks_read, collection.repeated
    waiting = pieces - repeated
    assert pieces > 5
    assert waiting > 1
    assert detail() == {
        **empty,
        "state": "ready",
        "trainingAmount": waiting,
        "chunksRead": pieces,
        "repeat": repeated,
    }
    PendingVector.objects.filter(collection=collection).update(attempts=3, failure="no")
    assert detail() | {"repeat": 0, "chunksRead": 0} == {
        **empty,
        "state": "ready",
        "trainingAmount": 0,
        "refused": waiting,
        "refusal": "no",
    }


def test_staff(server: Server) -> None:
    dataset = factories.make_dataset()
    user = factories.make_user(dataset.team, permissions=("datasets.add_collection",))
    cookies = session_of(user)
    headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
    body = {"datasetId": dataset.pk, "name": "x", "text": "y"}
    check_refusal(server.post(PATH, json=body, headers=headers), "csrf_failed")
    made_by(server.post(PATH, json=body, headers=headers | {"X-CSRFToken": cookies["csrftoken"]}))


def test_an_app_key_is_refused(server: Server) -> None:
    app = factories.make_app(factories.make_team())
    _, key = factories.make_key(app=app)
    check_refusal(server.post(PATH, key, json={}), "wrong_key_kind")


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"text": ""}, "text"),
        ({"text": " \n\t"}, "text"),
        ({"text": None}, "text"),
        ({"text": 5}, "text"),
        ({"name": ""}, None),
        ({"name": 7}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"datasetId": None}, "datasetId"),
        ({"chunkSize": 31}, "chunkSize"),
        ({"chunkSize": 4097}, "chunkSize"),
        ({"chunkSize": "512"}, "chunkSize"),
        ({"trainingType": "qa"}, "trainingType"),
        ({"metadata": []}, "metadata"),
        ({"metadata": {"x": "y" * 20_000}}, "metadata"),
    ],
)
def test_what_is_wrong_is_named(server: Server, changes: dict[str, Any], param: str | None) -> None:
    dataset = factories.make_dataset()
    _, key = factories.make_key(dataset.team)
    response = server.post(PATH, key, json={"datasetId": dataset.pk, "name": "x", "text": "y", **changes})
    if param is None:
        # The text's first words name it.
        assert made_by(response).name == "y"
        return
    check_refusal(response, "invalid_parameter", param=param)
    assert not Collection.objects.filter(dataset=dataset).exists()


@pytest.mark.parametrize("dataset_id", ["", "x", "0" * 24, "\0", "foreign"])
def test_foreign_and_absent_datasets_look_alike(server: Server, dataset_id: str) -> None:
    _, key = factories.make_key()
    if dataset_id == "foreign":
        dataset_id = factories.make_dataset().pk
    message = check_refusal(
        server.post(PATH, key, json={"datasetId": dataset_id, "name": "x", "text": "y"}), "unAuthDataset"
    )
    assert message == "There is no such dataset."


@pytest.mark.parametrize("parent", ["absent", "foreign", "of another dataset", "malformed"])
def test_foreign_and_absent_parents_look_alike(server: Server, parent: str) -> None:
    dataset = factories.make_dataset()
    _, key = factories.make_key(dataset.team)
    others = {
        "absent": lambda: "0" * 24,
        "malformed": lambda: "x\0",
        "foreign": lambda: factories.make_collection(kind=Kind.FOLDER).pk,
        "of another dataset": lambda: (
            factories.make_collection(factories.make_dataset(dataset.team), kind=Kind.FOLDER).pk
        ),
    }
    body = {"datasetId": dataset.pk, "name": "x", "text": "y", "parentId": others[parent]()}
    check_refusal(server.post(PATH, key, json=body), "unAuthDatasetCollection")


def test_a_parent_that_is_no_folder(server: Server) -> None:
    parent = factories.make_collection()
    _, key = factories.make_key(parent.dataset.team)
    body = {"datasetId": parent.dataset_id, "name": "x", "text": "y", "parentId": parent.pk}
    check_refusal(server.post(PATH, key, json=body), "invalid_parameter", param="parentId")


def test_what_no_column_can_hold(server: Server) -> None:
    dataset = factories.make_dataset()
    _, key = factories.make_key(dataset.team)
    body = {"datasetId": dataset.pk, "name": "x", "text": "a\0b \u202e c", "metadata": {"\0": "\0"}}
    collection = read(made_by(server.post(PATH, key, json=body)))
    assert texts_of(collection) == [("a\ufffdb \u202e c", "")]
    assert collection.metadata == {"\ufffd": "\ufffd"}
    # Half a character is no JSON to begin with.
    raw = json.dumps(body | {"text": "\ud83d"}).encode()
    check_refusal(server.post(PATH, key, content=raw), "invalid_parameter")


def test_the_same_again_is_counted(server: Server) -> None:
    dataset = factories.make_dataset()
    _, key = factories.make_key(dataset.team)
    text = "\n\n".join(["# A heading\n\n" + "The same words again. " * 12] * 5)
    body = {"datasetId": dataset.pk, "name": "x", "text": text, "chunkSize": 64}
    collection = read(made_by(server.post(PATH, key, json=body)))
    assert len(texts_of(collection)) + collection.repeated == collection.chunks_read
    assert collection.repeated > 0
