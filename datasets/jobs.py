"""What the jobs' worker does for datasets: it makes vectors. Importing this registers its tasks."""

from django.db import transaction
from procrastinate.contrib.django import app
from procrastinate.exceptions import AlreadyEnqueued

from datasets import vector_sets
from datasets.models import PendingVector

# Looks for vectors that are waited for while no job makes them: their provider failed, or a process died.
SCHEDULE = {"embed_what_waits": "* * * * *"}


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
