"""What the jobs' worker would do for a dataset, done at once."""

from concurrent.futures import ThreadPoolExecutor

from asgiref.sync import async_to_sync
from django.db import connection

from datasets import import_runs, vector_sets
from datasets.models import Dataset, ImportState


def work(dataset: Dataset) -> None:
    """In a thread of its own: in a test's own thread Playwright keeps an event loop."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(_work, dataset).result()


def _work(dataset: Dataset) -> None:
    try:
        for collection in dataset.collections.filter(state=ImportState.WAITING):
            async_to_sync(import_runs.run)(collection.pk)
        async_to_sync(vector_sets.embed_pending)(dataset.pk)
    finally:
        connection.close()
