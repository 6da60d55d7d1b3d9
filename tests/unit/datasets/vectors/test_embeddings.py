"""Vectors of a provider that does what providers do, and of the static model. A text that is refused stops no other."""

import asyncio
import itertools
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from apikeys.errors import ServiceUnavailable, UpstreamBusy, UpstreamError, UpstreamTimeout
from apikeys.outbound import client
from apikeys.outbound.service import Service
from datasets import jobs
from datasets.data import NewDatum, insert
from datasets.models import Collection, PendingVector, Vector, VectorSet
from datasets.texts import LONGEST_TOKEN, token_counts, tokenizer
from datasets.vectors import sets, static_model
from datasets.vectors.embeddings import MAXIMUM_WAITING, Embedded, count_tokens, embed, normalize
from datasets.vectors.provider_models import ProviderModel, TextsRefused
from tests.environment import PROJECT
from tests.support import factories
from tests.support.fake_provider import POISON, FakeProvider
from tests.support.loopback import loopback_allowed


@pytest.fixture(autouse=True)
def loopback() -> Iterator[None]:
    with loopback_allowed():
        yield


def ask(provider: FakeProvider, behavior: str, texts: list[str], seconds: int = 20) -> Any:
    async def asked() -> Any:
        try:
            return await embed(ProviderModel(behavior, Service(provider.url, total_seconds=seconds)), texts)
        finally:
            await client.close()

    return asyncio.run(asked())


def make_collection(provider: FakeProvider, behavior: str) -> Collection:
    """Make a collection in a dataset whose vectors this provider makes."""
    team = factories.make_team()
    dataset = factories.make_dataset(team, factories.make_provider(team, provider.url, total_seconds=5), behavior)
    return factories.make_collection(dataset)


def run(collection: Collection) -> None:
    async def embedded() -> None:
        try:
            await sets.embed_pending(collection.dataset_id)
        finally:
            await client.close()

    async_to_sync(embedded)()


def pending(collection: Collection) -> list[tuple[str, int, str]]:
    rows = PendingVector.objects.filter(collection=collection).order_by("pk")
    return list(rows.values_list("index_text__text", "attempts", "failure"))


def failure_of(collection: Collection) -> str:
    return VectorSet.objects.get(dataset=collection.dataset).failure


def test_it_works(provider: FakeProvider) -> None:
    texts = [f"text {number}" for number in range(130)]
    embedded = ask(provider, "embed", texts)
    assert len(embedded.vectors) == 130
    assert embedded.prompt_tokens == 390
    assert all(math.isclose(math.hypot(*vector), 1) for vector in embedded.vectors)
    assert [len(call) for call in provider.embedded_by("embed")[-3:]] == [64, 64, 2]
    # Vectors come in the order in which they were asked for.
    assert ask(provider, "embed", texts[7:8]).vectors == embedded.vectors[7:8]


def test_the_static_model() -> None:
    async def asked() -> Any:
        return await embed(ProviderModel.of(None, ""), ["导演是谁", "who is the director", ""])

    vectors = asyncio.run(asked()).vectors
    assert [len(vector) for vector in vectors] == [256, 256, 256]


@pytest.mark.parametrize(
    "behavior",
    ["embed_nan", "embed_huge", "embed_zero", "embed_fewer", "embed_twice", "embed_mixed", "half", "status_500"],
)
def test_answers_that_are_no_vectors_of_the_texts(provider: FakeProvider, behavior: str) -> None:
    with pytest.raises(TextsRefused) as caught:
        ask(provider, behavior, ["one", "two"])
    assert provider.url not in str(caught.value)


@pytest.mark.parametrize("behavior", ["html", "redirect", "status_401", "status_429"])
def test_a_provider_that_takes_nothing(provider: FakeProvider, behavior: str) -> None:
    with pytest.raises(UpstreamBusy if behavior == "status_429" else UpstreamError) as caught:
        ask(provider, behavior, ["one", "two"])
    assert not isinstance(caught.value, TextsRefused)


def test_a_provider_that_does_not_answer(provider: FakeProvider) -> None:
    with pytest.raises(UpstreamTimeout):
        ask(provider, "never", ["one"], seconds=1)


def test_nobody_there() -> None:
    team = factories.make_team()
    collection = factories.make_collection(factories.make_dataset(team, factories.make_provider(team), "x"))
    insert(collection, [NewDatum("one")])
    run(collection)
    assert pending(collection) == [("one", 0, "")]
    assert failure_of(collection) != ""


@pytest.mark.parametrize("behavior", ["embed_poisoned", "embed_broken"])
def test_a_refused_text_stops_no_other(provider: FakeProvider, behavior: str) -> None:
    collection = make_collection(provider, behavior)
    insert(collection, [NewDatum(f"{POISON if number in (3, 77, 299) else 'text'} {number}") for number in range(300)])
    for attempts in (1, 2, 3):
        run(collection)
        found = pending(collection)
        assert {text: count for text, count, _ in found} == {f"{POISON} {number}": attempts for number in (3, 77, 299)}
        assert all("refused a text: HTTP" in failure and provider.url not in failure for _, _, failure in found)
    assert Vector.objects.filter(index_text__dataset=collection.dataset).count() == 297
    assert failure_of(collection) == ""
    calls = len(provider.embedded_by(behavior))
    # After the third time they are left alone, by the task of every minute too.
    run(collection)
    assert len(provider.embedded_by(behavior)) == calls
    assert not PendingVector.objects.open().filter(collection=collection).exists()


def test_a_refused_text_that_is_alone(provider: FakeProvider) -> None:
    collection = make_collection(provider, "embed_poisoned")
    insert(collection, [NewDatum(POISON)])
    run(collection)
    assert [attempts for _, attempts, _ in pending(collection)] == [1]


def test_new_texts_go_on_beside_refused_ones(provider: FakeProvider) -> None:
    collection = make_collection(provider, "embed_poisoned")
    insert(collection, [NewDatum(POISON)])
    run(collection)
    insert(collection, [NewDatum("fine")])
    run(collection)
    assert [(text, attempts) for text, attempts, _ in pending(collection)] == [(POISON, 2)]
    assert Vector.objects.filter(index_text__text="fine", index_text__dataset=collection.dataset).exists()


@pytest.mark.parametrize(("behavior", "most"), [("status_500", 12), ("status_429", 1), ("embed_nan", 12)])
def test_a_provider_that_is_down_is_not_asked_for_each_text(provider: FakeProvider, behavior: str, most: int) -> None:
    collection = make_collection(provider, behavior)
    insert(collection, [NewDatum(f"text {number}") for number in range(1_000)])
    before = len(provider.embedded_by(behavior))
    run(collection)
    assert 0 < len(provider.embedded_by(behavior)) - before <= most
    assert {(attempts, failure) for _, attempts, failure in pending(collection)} == {(0, "")}
    assert failure_of(collection) != ""


def test_another_dimension_than_before(provider: FakeProvider) -> None:
    collection = make_collection(provider, "embed_changing")
    insert(collection, [NewDatum("one")])
    run(collection)
    insert(collection, [NewDatum("two")])
    run(collection)
    assert failure_of(collection) == "The model returned vectors of 9 numbers, but 8 before."
    assert pending(collection) == [("two", 0, "")]


def test_a_new_model_takes_over_without_what_it_refuses(provider: FakeProvider) -> None:
    collection = make_collection(provider, "embed")
    insert(collection, [NewDatum(POISON), NewDatum("fine")])
    run(collection)
    dataset = collection.dataset
    after = sets.change_model(dataset, dataset.vector_sets.get().provider, "embed_poisoned")
    assert after is not None
    for is_current in (False, False, True):
        run(collection)
        assert VectorSet.objects.get(pk=after.pk).is_current is is_current


def test_the_look_for_what_waits_leaves_out_what_is_given_up(provider: FakeProvider) -> None:
    from procrastinate.contrib.django.models import ProcrastinateJob

    open_one, given_up = (make_collection(provider, "embed_poisoned") for _ in range(2))
    for collection in (open_one, given_up):
        insert(collection, [NewDatum(POISON)])
    for _ in range(3):
        run(given_up)
    ProcrastinateJob.objects.filter(lock__in=[f"embed:{c.dataset_id}" for c in (open_one, given_up)]).delete()
    jobs.embed_what_waits(0)
    queued = ProcrastinateJob.objects.filter(task_name="embed").values_list("lock", flat=True)
    assert f"embed:{open_one.dataset_id}" in queued
    assert f"embed:{given_up.dataset_id}" not in queued


def test_the_static_model_averages_its_tokens() -> None:
    """It does so as its package does, which pads its texts."""
    import wordllama

    folder = Path(wordllama.__file__).parent
    package = wordllama.WordLlama.load(cache_dir=folder, dim=256, disable_download=True)
    texts = ["导演是谁", "Who directed it?", "", "a", "<s> \0 🎬", "the film and its cello " * 90, "x" * 20_000]
    for vector, expected in zip(static_model.embed(texts), package.embed(texts, return_np=False), strict=True):
        assert vector == pytest.approx(expected, abs=1e-6)
    assert static_model.embed(texts) == [static_model.embed([text])[0] for text in texts]


IN_LITTLE_MEMORY = """
import resource
from datasets.vectors.static_model import embed
embed(["to load it"])
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 384 * 1024 * 1024
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
assert len(embed(["the film and its cello " * 10_000] + ["x"] * 63)) == 64
"""


def test_one_long_text_among_short_ones_takes_little_memory() -> None:
    """Padded to the longest, they would take 8 GB."""
    one_thread = {"TOKENIZERS_PARALLELISM": "false", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", IN_LITTLE_MEMORY],
        cwd=PROJECT,
        env=os.environ | one_thread,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_long_and_many_texts_in_their_order() -> None:
    texts = [f"{number} " * (20_000 if number % 50 == 7 else 1) for number in range(150)]

    async def ask() -> tuple[list[list[float]], list[int]]:
        return (await embed(ProviderModel.of(None, ""), texts)).vectors, await count_tokens(texts)

    vectors, counts = asyncio.run(ask())
    assert vectors == [normalize(vector) for text in texts for vector in static_model.embed([text])]
    assert counts == [token_counts([text])[0] for text in texts]


def test_a_short_text_overtakes_a_long_list() -> None:
    async def order() -> list[str]:
        ended: list[str] = []

        async def ask(name: str, texts: list[str]) -> None:
            await embed(ProviderModel.of(None, ""), texts)
            ended.append(name)

        await asyncio.gather(ask("long", ["the film and its cello " * 200] * 500), ask("short", ["x"]))
        return ended

    assert asyncio.run(order()) == ["short", "long"]


def test_too_many_wait_for_the_static_model() -> None:
    async def ask(count: int) -> list[Any]:
        long = embed(ProviderModel.of(None, ""), ["the film and its cello " * 40_000])
        rest = [embed(ProviderModel.of(None, ""), ["x"]) for _ in range(count)]
        return await asyncio.gather(long, *rest, return_exceptions=True)

    answers = asyncio.run(ask(MAXIMUM_WAITING + 9))
    refused = [answer for answer in answers if isinstance(answer, ServiceUnavailable)]
    assert len(refused) == 10
    assert sum(isinstance(answer, Embedded) for answer in answers) == MAXIMUM_WAITING
    # Calls that have ended or were given up leave their places.
    answers = asyncio.run(ask(MAXIMUM_WAITING - 1))
    assert all(isinstance(answer, Embedded) for answer in answers)


def test_no_token_is_longer() -> None:
    """A text of very many characters is refused by this, without counting."""
    assert max(map(len, tokenizer().get_vocab())) == LONGEST_TOKEN


def queued_jobs(collection: Collection) -> Any:
    from procrastinate.contrib.django.models import ProcrastinateJob

    return ProcrastinateJob.objects.filter(lock=f"embed:{collection.dataset_id}", status="todo")


def turns_of(collection: Collection) -> list[int]:
    """Count the vectors after each run of the job, until it does not queue itself again."""

    async def turn() -> None:
        try:
            await jobs.embed(collection.dataset_id)
        finally:
            await client.close()

    counts = []
    queued_jobs(collection).delete()
    while len(counts) < 20:
        async_to_sync(turn)()
        counts.append(Vector.objects.filter(vector_set__dataset=collection.dataset).count())
        if not queued_jobs(collection).delete()[0]:
            break
    return counts


@pytest.mark.parametrize(("batches", "seconds", "counts"), [(2, 60, [4, 7]), (40, 0, [2, 4, 6, 7]), (40, 60, [7])])
def test_much_to_do_lets_others_have_their_turn(
    monkeypatch: pytest.MonkeyPatch, batches: int, seconds: int, counts: list[int]
) -> None:
    monkeypatch.setattr(sets, "BATCH", 2)
    monkeypatch.setattr(sets, "BUDGET_BATCHES", batches)
    monkeypatch.setattr(sets, "BUDGET_SECONDS", seconds)
    collection = factories.make_collection()
    insert(collection, [NewDatum(f"text {number}") for number in range(7)])
    assert turns_of(collection) == counts


def test_each_turn_gets_further(provider: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the provider is that refuses a text."""
    monkeypatch.setattr(sets, "BUDGET_SECONDS", 0)
    collection = make_collection(provider, "embed_poisoned")
    insert(collection, [NewDatum(text) for text in ("one", "two", POISON, "three")])
    assert turns_of(collection)[-1] == 3
    ((text, attempts, _),) = pending(collection)
    assert (text, attempts) == (POISON, 3)


def test_a_provider_that_may_take_longer_elsewhere(provider: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sets, "CALL_SECONDS", 1)
    team = factories.make_team()
    patient = factories.make_provider(team, provider.url, total_seconds=600)
    collection = factories.make_collection(factories.make_dataset(team, patient, "never"))
    insert(collection, [NewDatum("one")])
    run(collection)
    assert failure_of(collection) == "The model's provider did not answer in time."


def test_the_event_loop_goes_on_while_the_static_model_works() -> None:
    """Jobs share one loop with it: the worker must say that it lives, and tell alerts."""

    async def turns() -> tuple[int, float]:
        loop = asyncio.get_running_loop()
        texts = [f"The film was directed by number {number}. " * 20 for number in range(4_000)]
        embedding = asyncio.create_task(embed(ProviderModel.of(None, ""), texts))
        longest, last = 0.0, loop.time()
        for count in itertools.count(1):
            await asyncio.sleep(0.01)
            longest, last = max(longest, loop.time() - last), loop.time()
            if embedding.done():
                return count, longest
        raise AssertionError("it ends")

    count, longest = asyncio.run(turns())
    assert count > 5
    assert longest < 2
