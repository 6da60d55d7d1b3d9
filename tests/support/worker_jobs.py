"""The work of the jobs' worker for a dataset, done at once."""

from concurrent.futures import ThreadPoolExecutor

from asgiref.sync import async_to_sync
from django.db import connection

from datasets.imports import runs
from datasets.models import Dataset, ImportState
from datasets.vectors import sets


def work(dataset: Dataset) -> None:
    """Work in a thread of its own, since Playwright keeps an event loop running in a test's thread."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(_work, dataset).result()


def _work(dataset: Dataset) -> None:
    try:
        for collection in dataset.collections.filter(state=ImportState.WAITING):
            async_to_sync(runs.run)(collection.pk)
        async_to_sync(sets.embed_pending)(dataset.pk)
    finally:
        connection.close()
