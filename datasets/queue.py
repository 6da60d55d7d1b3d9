"""Jobs for the worker, queued by the names of their tasks, so that nothing needs to import `jobs`."""

from django.db import transaction
from procrastinate.contrib.django import app
from procrastinate.exceptions import AlreadyEnqueued

# These name the tasks, and the queues that they wait in.
EMBED, IMPORT = "embed", "import"


def queue_embedding(dataset_id: str) -> None:
    _queue(EMBED, f"embed:{dataset_id}", dataset_id=dataset_id)


def queue_embedding_on_commit(dataset_id: str) -> None:
    transaction.on_commit(lambda: queue_embedding(dataset_id))


def queue_import(collection_id: str, priority: int = 0) -> None:
    """Queue the reading of a source. Of those that wait, a worker takes the one with the highest priority first."""
    _queue(IMPORT, import_lock(collection_id), priority, collection_id=collection_id)


def import_lock(collection_id: str) -> str:
    return f"import:{collection_id}"


def _queue(name: str, lock: str, priority: int = 0, **arguments: str) -> None:
    """Queue a job, unless one waits with this lock. One with it runs at a time, and at most one more waits."""
    try:
        with transaction.atomic():
            task = app.configure_task(name, queue=name, lock=lock, queueing_lock=lock, priority=priority)
            task.defer(**arguments)
    except AlreadyEnqueued:
        return
