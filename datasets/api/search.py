"""`core/dataset/searchTest`: what a search of a dataset finds, with its scores."""

from typing import Annotated

import msgspec
from asgiref.sync import async_to_sync
from django.db import connection
from rest_framework.request import Request
from rest_framework.response import Response

from apikeys.access.declarations import GLOBAL, team_id_of
from apikeys.api.bodies import decode
from apikeys.api.views import ApiView, success
from apikeys.errors import InvalidParameter
from datasets.search.retrieval import MAXIMUM_LIMIT, USUAL_LIMIT, Mode, Query, search


class SearchTest(msgspec.Struct):
    datasetId: str
    text: str
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAXIMUM_LIMIT)] | None = None
    similarity: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    searchMode: Mode | None = None
    usingReRank: bool | None = None


SEARCH_TEST = msgspec.json.Decoder(SearchTest)


class SearchTestView(ApiView):
    """`POST core/dataset/searchTest`."""

    endpoint = "dataset.search"
    api_key_access = frozenset({GLOBAL})
    # The answer shows what the data say.
    staff_permission = "datasets.view_datum"

    def post(self, request: Request) -> Response:
        body = decode(request._request.body, SEARCH_TEST)
        if not body.text.strip():
            raise InvalidParameter("text: say what to search for.", param="text")
        query = Query(
            team_id=team_id_of(request),
            dataset_ids=(body.datasetId,),
            text=body.text,
            mode=body.searchMode or Mode.EMBEDDING,
            limit=USUAL_LIMIT if body.limit is None else body.limit,
            similarity=body.similarity or 0.0,
            uses_rerank=bool(body.usingReRank),
            holds_thread=True,
        )
        # This thread's own connection is not held while providers are awaited.
        connection.close()
        found = async_to_sync(search)(query)
        return success(
            {
                "list": [quote.json() for quote in found.quotes],
                "duration": f"{found.seconds:.3f}s",
                "limit": query.limit,
                "searchMode": query.mode,
                "usingReRank": found.has_reranked,
                "similarity": query.similarity,
            }
        )
