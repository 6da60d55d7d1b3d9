"""The worker's tasks for datasets: to read sources and make vectors. Importing this registers them."""

from asgiref.sync import sync_to_async
from django.db.models import Exists, OuterRef, TextField, Value
from django.db.models.functions import Concat
from procrastinate.contrib.django import app
from procrastinate.contrib.django.models import ProcrastinateJob

from apikeys.worker import BackOff
from datasets.imports import runs
from datasets.models import UNREAD, Collection, PendingVector
from datasets.queue import EMBED, IMPORT, import_lock, queue_embedding, queue_import
from datasets.vectors import indexes, sets

# These tasks look for work that waits without a job, since a provider failed or a process died, and for sets of vectors
# that have grown so large that they need an index.
SCHEDULE = {
    "embed_what_waits": "* * * * *",
    "import_what_waits": "* * * * *",
    "index_vectors": "*/10 * * * *",
}
# One look takes on so many sources at most.
BATCH = 500


@app.task(name=EMBED, queue=EMBED)
async def embed(dataset_id: str) -> None:
    if await sets.embed_pending(dataset_id):
        await sync_to_async(queue_embedding)(dataset_id)


@app.task(name=IMPORT, queue=IMPORT, retry=BackOff())
async def import_source(collection_id: str) -> None:
    await runs.run(collection_id)


@app.periodic(cron=SCHEDULE["embed_what_waits"])
@app.task(name="embed_what_waits", lock="embed_what_waits", queueing_lock="embed_what_waits")
def embed_what_waits(timestamp: int) -> None:
    pending = PendingVector.objects.open()
    for dataset_id in pending.order_by().values_list("vector_set__dataset", flat=True).distinct():
        queue_embedding(dataset_id)


@app.periodic(cron=SCHEDULE["import_what_waits"])
@app.task(name="import_what_waits", lock="import_what_waits", queueing_lock="import_what_waits")
def import_what_waits(timestamp: int) -> None:
    lock = Concat(Value(import_lock("")), OuterRef("pk"), output_field=TextField())
    waiting = Collection.objects.filter(state__in=UNREAD)
    # A source has no job when its job failed in a way of its own, or was removed.
    for collection in waiting.exclude(Exists(ProcrastinateJob.objects.filter(lock=lock))).order_by("pk")[:BATCH]:
        queue_import(collection.pk)


@app.periodic(cron=SCHEDULE["index_vectors"])
@app.task(name="index_vectors", lock="index_vectors", queueing_lock="index_vectors")
def index_vectors(timestamp: int) -> None:
    indexes.build_missing()
