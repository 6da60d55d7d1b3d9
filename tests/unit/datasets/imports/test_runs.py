"""Runs of one import that meet each other, or never get anywhere."""

import asyncio
import io

import pytest
from asgiref.sync import async_to_sync
from procrastinate.contrib.django.models import ProcrastinateJob

from apikeys.errors import RateLimited
from datasets.imports import runs, sources
from datasets.models import Collection, Datum, ImportState, SourcePiece
from tests.support import factories


def import_file(content: bytes, name: str = "a.csv") -> Collection:
    return sources.from_file(factories.make_dataset(), io.BytesIO(content), name, sources.ImportOptions())


def table(rows: int) -> bytes:
    return b"q,a\n" + b"".join(b"question %d,answer\n" % number for number in range(rows))


def test_two_at_once() -> None:
    """This happens when a worker was thought dead, and is not."""
    collection = import_file(table(3_000))

    async def both() -> None:
        await asyncio.gather(runs.run(collection.pk), runs.run(collection.pk))

    async_to_sync(both)()
    collection.refresh_from_db()
    assert (collection.state, collection.chunks_read, collection.repeated) == (ImportState.READY, 3_000, 0)
    rows = Datum.objects.filter(collection=collection).order_by("chunk_index").values_list("chunk_index", "q")
    assert list(rows) == [(number, f"question {number}") for number in range(3_000)]


def test_the_bytes_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAXIMUM_WAITING_BYTES", 10)
    dataset = factories.make_dataset()
    first = sources.from_text(dataset, "0123456", sources.ImportOptions())
    with pytest.raises(RateLimited):
        sources.from_text(dataset, "0123", sources.ImportOptions())
    sources.from_text(dataset, "012", sources.ImportOptions())
    assert Collection.objects.filter(dataset=dataset).count() == 2
    async_to_sync(runs.run)(first.pk)
    sources.from_text(dataset, "0123456", sources.ImportOptions())


def test_one_that_never_gets_anywhere_is_given_up() -> None:
    collection = import_file(table(1))
    Collection.objects.filter(pk=collection.pk).update(attempts=runs.MAXIMUM_ATTEMPTS)
    async_to_sync(runs.run)(collection.pk)
    collection.refresh_from_db()
    assert collection.state == ImportState.FAILED
    assert collection.failure == "Reading it ended 5 times without getting any further."
    assert not SourcePiece.objects.filter(collection=collection).exists()


def test_one_that_has_ended_is_not_begun_again() -> None:
    collection = import_file(table(1))
    for _ in range(2):
        async_to_sync(runs.run)(collection.pk)
    collection.refresh_from_db()
    assert (collection.state, collection.chunks_read, collection.attempts) == (ImportState.READY, 1, 0)


def test_one_whose_dataset_is_gone() -> None:
    collection = import_file(table(1))
    collection.dataset.delete()
    async_to_sync(runs.run)(collection.pk)
    assert not Datum.objects.filter(collection=collection.pk).exists()


def test_one_whose_dataset_goes_in_the_middle() -> None:
    collection = import_file(table(20_000))

    async def both() -> None:
        run = asyncio.create_task(runs.run(collection.pk))
        while not (run.done() or await Datum.objects.filter(collection=collection).aexists()):
            continue
        await collection.dataset.adelete()
        await run

    async_to_sync(both)()
    assert not Datum.objects.filter(collection=collection.pk).exists()


def test_a_damaged_file_keeps_what_was_read_before() -> None:
    collection = import_file(table(600) + b"x," * 30)
    async_to_sync(runs.run)(collection.pk)
    collection.refresh_from_db()
    assert (collection.state, collection.chunks_read) == (ImportState.FAILED, 512)
    assert collection.failure.startswith("Row 602 has 31 columns")
    assert Datum.objects.filter(collection=collection).count() == 512


def test_teams_take_turns_and_small_texts_wait_for_few():
    busy, quiet = factories.make_dataset(), factories.make_dataset()
    large = b"A line of a long document.\n" * (sources.SMALL_BYTES // 20)

    def send(dataset, content: bytes) -> str:
        return sources.from_file(dataset, io.BytesIO(content), "a.txt", sources.ImportOptions()).pk

    first = [send(busy, large) for _ in range(6)]
    later = send(quiet, large)
    small_of_busy, small_of_quiet = send(busy, b"small"), send(quiet, b"small")
    waiting = ProcrastinateJob.objects.filter(queue_name="import", status="todo").order_by("-priority", "id")
    sent = {*first, later, small_of_busy, small_of_quiet}
    order = [job.args["collection_id"] for job in waiting if job.args["collection_id"] in sent]
    assert order == [small_of_quiet, first[0], later, first[1], first[2], small_of_busy, *first[3:]]
