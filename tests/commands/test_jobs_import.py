"""Imports by the real worker, which may be killed at any moment."""

import io
import os
import signal
from functools import partial
from typing import Any

import pytest
from django.db import connection
from django.db.models import Count
from procrastinate.contrib.django.models import ProcrastinateJob

from datasets import jobs, queue
from datasets.data import NewDatum, insert
from datasets.imports import sources
from datasets.models import Collection, Datum, ImportState, PendingVector, SourcePiece, Vector
from tests.commands.test_jobs import forget, worker, workers
from tests.support import factories, source_files
from tests.support.processes import wait_for


def table(rows: int) -> bytes:
    return b"q,a\n" + b"".join(b"Which film has the number %d?,The film number %d\n" % (n, n) for n in range(rows))


def import_file(content: bytes, name: str = "a.csv", **wish: Any) -> Collection:
    return sources.from_file(factories.make_dataset(), io.BytesIO(content), name, sources.ImportOptions(**wish))


def state_of(collection: Collection) -> str:
    collection.refresh_from_db()
    return collection.state


def has_read(collection: Collection, chunks: int) -> bool:
    collection.refresh_from_db()
    return collection.chunks_read > chunks


def has_ended(collection: Collection) -> bool:
    return state_of(collection) in (ImportState.READY, ImportState.FAILED)


def has_all_vectors(collection: Collection) -> bool:
    return not PendingVector.objects.filter(collection=collection).exists()


def look() -> None:
    """Have the worker rescue now; by itself it does so every ten seconds."""
    from apikeys.jobs import rescue

    rescue.defer(timestamp=0)


def test_it_works() -> None:
    collection = import_file(table(1_000))
    with worker() as running:
        wait_for(lambda: state_of(collection) == ImportState.READY, "it is read: " + running.all_output, seconds=60)
        wait_for(lambda: has_all_vectors(collection), "it has its vectors", seconds=60)
        assert running.end() == 0
    assert (collection.chunks_read, collection.repeated) == (1_000, 0)
    assert Vector.objects.filter(index_text__datum__collection=collection).count() == 1_000


def test_kill_9_in_the_middle() -> None:
    """Every chunk is there once, none is missing, all are in order; and so is every vector."""
    rows = 8_000
    collection = import_file(table(rows))
    kills = []
    for part in (1, 2):
        with worker() as running:
            middle = partial(has_read, collection, rows * part // 4)
            wait_for(middle, "it is being read", seconds=120)
            dying = workers()
            os.kill(running.process.pid, signal.SIGKILL)
            running.process.wait(30)
        kills.append(collection.chunks_read)
        forget(dying)
        look()
    with worker() as running:
        wait_for(lambda: state_of(collection) == ImportState.READY, "it is read to its end", seconds=240)
        kills.append(collection.chunks_read)
        wait_for(lambda: has_all_vectors(collection), "it has its vectors", seconds=240)
    data = Datum.objects.filter(collection=collection)
    found = list(data.order_by("chunk_index").values_list("chunk_index", "q"))
    assert found == [(number, f"Which film has the number {number}?") for number in range(rows)]
    vectors = data.annotate(vectors=Count("index_texts__vectors"))
    assert set(vectors.values_list("vectors", flat=True)) == {1}
    assert (collection.chunks_read, collection.repeated, collection.left_out) == (rows, 0, 0)
    assert not SourcePiece.objects.filter(collection=collection).exists()
    print(f"killed with {kills[0]:,} and {kills[1]:,} of {rows:,} chunks read; then {len(found):,} data, each once")


def test_the_end_of_a_worker_is_not_the_end_of_an_import() -> None:
    """SIGTERM in the middle: it goes on with the next worker, without waiting for a rescue."""
    collection = import_file(table(8_000))
    with worker() as running:
        wait_for(lambda: has_read(collection, 0), "it is being read", seconds=60)
        assert running.end() == 0
    with worker():
        wait_for(lambda: state_of(collection) == ImportState.READY, "it is read to its end", seconds=240)
    assert Datum.objects.filter(collection=collection).count() == collection.chunks_read == 8_000


def test_what_cannot_be_read_fails_and_harms_nothing() -> None:
    bomb = import_file(source_files.docx("<w:p/>" * 45_000_000), "bomb.docx")
    locked = import_file(source_files.pdf(["x"], password="x"), "locked.pdf")
    fine = import_file(b"fine", "fine.txt")
    with worker() as running:
        for collection in (bomb, locked, fine):
            wait_for(partial(has_ended, collection), "it ends", seconds=120)
        assert running.process.poll() is None
    assert (fine.state, fine.failure) == (ImportState.READY, "")
    assert bomb.state == locked.state == ImportState.FAILED
    assert bomb.failure == "The docx unpacks to more than 256 MiB."
    assert locked.failure == "The PDF is encrypted with a password."
    assert not SourcePiece.objects.filter(collection__in=[bomb, locked, fine]).exists()


def test_what_lost_its_job_is_queued_again() -> None:
    collection = import_file(b"one", "a.txt")
    ProcrastinateJob.objects.filter(lock=queue.import_lock(collection.pk)).delete()
    for _ in range(2):
        jobs.import_what_waits(0)
        assert ProcrastinateJob.objects.filter(lock=queue.import_lock(collection.pk), status="todo").count() == 1


def test_what_is_in_hand_does_not_hide_what_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs.import_what_waits(0)
    monkeypatch.setattr(jobs, "BATCH", 1)
    import_file(b"one", "a.txt")
    lost = import_file(b"two", "b.txt")
    ProcrastinateJob.objects.filter(lock=queue.import_lock(lost.pk)).delete()
    jobs.import_what_waits(0)
    assert ProcrastinateJob.objects.filter(lock=queue.import_lock(lost.pk), status="todo").count() == 1


def test_a_dead_job_does_not_block_the_one_behind_it() -> None:
    """A job of vectors whose worker was killed, and another for the same dataset that was queued meanwhile."""
    collection = factories.make_collection()
    insert(collection, [NewDatum("one")])
    lock = f"embed:{collection.dataset_id}"
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH dead AS (INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now() - interval '1 hour')"
            " RETURNING id) UPDATE procrastinate_jobs SET status = 'doing', worker_id = dead.id FROM dead"
            " WHERE lock = %s",
            [lock],
        )
    queue.queue_embedding(collection.dataset_id)
    assert ProcrastinateJob.objects.filter(lock=lock).count() == 2
    look()
    with worker():
        wait_for(lambda: has_all_vectors(collection), "it has its vectors", seconds=60)
        wait_for(lambda: not ProcrastinateJob.objects.filter(lock=lock).exists(), "no job is left", seconds=60)
