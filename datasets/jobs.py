"""What the jobs' worker does for datasets: it makes vectors. Importing this registers its tasks."""

from django.db import transaction
from procrastinate.contrib.django import app
from procrastinate.exceptions import AlreadyEnqueued

from datasets import vector_indexes, vector_sets
from datasets.models import PendingVector

# Looks for vectors that are waited for while no job makes them: their provider failed, or a process died; and for sets
# that have grown so large that they need an index.
SCHEDULE = {"embed_what_waits": "* * * * *", "index_vectors": "*/10 * * * *"}


@app.task(name="embed")
async def embed(dataset_id: str) -> None:
    await vector_sets.embed_pending(dataset_id)


def queue_embedding(dataset_id: str) -> None:
    """One run at a time for a dataset, and at most one more that waits."""
    name = f"embed:{dataset_id}"
    try:
        with transaction.atomic():
            embed.configure(lock=name, queueing_lock=name).defer(dataset_id=dataset_id)
    except AlreadyEnqueued:
        return


@app.periodic(cron=SCHEDULE["embed_what_waits"])
@app.task(name="embed_what_waits", lock="embed_what_waits", queueing_lock="embed_what_waits")
def embed_what_waits(timestamp: int) -> None:
    for dataset_id in PendingVector.objects.order_by().values_list("vector_set__dataset", flat=True).distinct():
        queue_embedding(dataset_id)


@app.periodic(cron=SCHEDULE["index_vectors"])
@app.task(name="index_vectors", lock="index_vectors", queueing_lock="index_vectors")
def index_vectors(timestamp: int) -> None:
    vector_indexes.build_missing()
