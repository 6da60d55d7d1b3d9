"""Calls that make a collection from a source, and the collections that they make."""

import json
from typing import Any

import httpx2
from asgiref.sync import async_to_sync

from apikeys.outbound import client, sites
from datasets.imports import runs
from datasets.models import Collection, Datum
from tests.conftest import Server

ROOT = "/api/core/dataset/collection/create"
RESULTS = {"insertLen": 0, "overToken": [], "repeat": [], "error": []}


def upload(server: Server, key: str | None, file_name: str, content: Any, **fields: Any) -> httpx2.Response:
    headers = fields.pop("headers", {})
    return server.post(
        f"{ROOT}/localFile",
        key,
        files={"file": (file_name, content)},
        data={"data": json.dumps(fields)},
        headers=headers,
    )


def made_by(response: httpx2.Response) -> Collection:
    """Return the collection that a response names."""
    assert response.status_code == 200, response.text
    data = response.json()["data"]
    assert data["results"] == RESULTS
    return Collection.objects.get(pk=data["collectionId"])


def read(collection: Collection) -> Collection:
    """Read a collection's source as the job does."""

    async def run() -> None:
        try:
            await runs.run(collection.pk)
        finally:
            await client.close()
            await sites.close()

    async_to_sync(run)()
    collection.refresh_from_db()
    return collection


def texts_of(collection: Collection) -> list[tuple[str, str]]:
    rows = Datum.objects.filter(collection=collection).order_by("chunk_index")
    assert [row.chunk_index for row in rows] == sorted({row.chunk_index for row in rows})
    return [(row.q, row.a) for row in rows]
