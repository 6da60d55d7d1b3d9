"""What the jobs' worker does for datasets: it reads sources and makes vectors. Importing this registers its tasks."""

from asgiref.sync import sync_to_async
from django.db import transaction
from django.db.models import Exists, OuterRef, TextField, Value
from django.db.models.functions import Concat
from procrastinate.contrib.django import app
from procrastinate.contrib.django.models import ProcrastinateJob
from procrastinate.exceptions import AlreadyEnqueued

from apikeys.worker import BackOff
from datasets.imports import runs
from datasets.models import UNREAD, Collection, PendingVector
from datasets.vectors import indexes, sets

# They look for what is waited for while no job makes it: a provider failed, or a process died; and for sets of vectors
# that have grown so large that they need an index.
SCHEDULE = {
    "embed_what_waits": "* * * * *",
    "import_what_waits": "* * * * *",
    "index_vectors": "*/10 * * * *",
}
# How many sources one look takes on.
BATCH = 500


@app.task(name="embed", queue="embed")
async def embed(dataset_id: str) -> None:
    if await sets.embed_pending(dataset_id):
        await sync_to_async(queue_embedding)(dataset_id)


@app.task(name="import", queue="import", retry=BackOff())
async def import_source(collection_id: str) -> None:
    await runs.run(collection_id)


def queue_embedding(dataset_id: str) -> None:
    """One run at a time for a dataset, and at most one more that waits."""
    name = f"embed:{dataset_id}"
    try:
        with transaction.atomic():
            embed.configure(lock=name, queueing_lock=name).defer(dataset_id=dataset_id)
    except AlreadyEnqueued:
        return


def queue_import(collection: Collection) -> None:
    """One run at a time for a collection."""
    name = lock_of(collection.pk)
    try:
        with transaction.atomic():
            import_source.configure(lock=name, queueing_lock=name).defer(collection_id=collection.pk)
    except AlreadyEnqueued:
        return


def lock_of(collection_id: str) -> str:
    return f"import:{collection_id}"


@app.periodic(cron=SCHEDULE["embed_what_waits"])
@app.task(name="embed_what_waits", lock="embed_what_waits", queueing_lock="embed_what_waits")
def embed_what_waits(timestamp: int) -> None:
    pending = PendingVector.objects.open()
    for dataset_id in pending.order_by().values_list("vector_set__dataset", flat=True).distinct():
        queue_embedding(dataset_id)


@app.periodic(cron=SCHEDULE["import_what_waits"])
@app.task(name="import_what_waits", lock="import_what_waits", queueing_lock="import_what_waits")
def import_what_waits(timestamp: int) -> None:
    """Sources without a job: theirs failed in a way of its own, or was removed."""
    lock = Concat(Value(lock_of("")), OuterRef("pk"), output_field=TextField())
    waiting = Collection.objects.filter(state__in=UNREAD)
    for collection in waiting.exclude(Exists(ProcrastinateJob.objects.filter(lock=lock))).order_by("pk")[:BATCH]:
        queue_import(collection)


@app.periodic(cron=SCHEDULE["index_vectors"])
@app.task(name="index_vectors", lock="index_vectors", queueing_lock="index_vectors")
def index_vectors(timestamp: int) -> None:
    indexes.build_missing()
