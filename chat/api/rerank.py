"""`POST v1/rerank`: documents by their relevance, in the form that Jina, Cohere and others have."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from apikeys.access.declarations import GLOBAL, ApiCredential
from apikeys.accounting.metered import Caller, count_refused
from apikeys.api.answers import Answer
from apikeys.api.bodies import decode
from apikeys.api.limit_headers import limit_headers
from apikeys.api.views import AsyncApiView
from apikeys.errors import InvalidParameter
from apikeys.hot_path.in_flight import InFlight
from apikeys.hot_path.request import AsyncRequest
from apikeys.storable_text import storable
from chat.catalog import ModelKind
from chat.model_names import MAX_NAME_LENGTH, rerank_refusal
from chat.reranking.calls import RerankCall
from chat.team_models import TeamModel, find_model

MAX_DOCUMENTS = 1_000
# It counts once for each document.
MAX_QUERY_CHARACTERS = 16_384

Text = Annotated[str, Meta(min_length=1)]


class Document(Struct, frozen=True):
    text: Text


class RerankRequest(Struct, frozen=True):
    """null means absent; unknown fields are ignored."""

    model: Annotated[str, Meta(max_length=MAX_NAME_LENGTH)]
    query: Annotated[str, Meta(min_length=1, max_length=MAX_QUERY_CHARACTERS)]
    documents: Annotated[list[Text | Document], Meta(min_length=1, max_length=MAX_DOCUMENTS)]
    top_n: Annotated[int, Meta(ge=1)] | None = None
    return_documents: bool | None = None


DECODER = msgspec.json.Decoder(RerankRequest)


class RerankView(AsyncApiView):
    """`POST v1/rerank`: by a rerank model of the team's catalog or datasets."""

    endpoint = "rerank.create"
    api_key_access = frozenset({GLOBAL})
    staff_permission = None

    async def post(self, request: AsyncRequest) -> Answer:
        credential: ApiCredential = request.auth  # type: ignore[assignment]
        trace = request.trace
        caller = Caller(trace, credential.policy, self.endpoint)
        try:
            body = decode(request.body, DECODER)
        except InvalidParameter:
            await count_refused(caller, len(request.body))
            raise
        documents = [storable(item if isinstance(item, str) else item.text) for item in body.documents]
        flight = InFlight(credential.policy.key_id, trace.reader)
        try:
            model = await self.model_of(credential, body)
            call = RerankCall(model, storable(body.query), documents, caller=caller, flight=flight)
            await call.answer()
        finally:
            flight.close()
            if trace.decision is not None:
                trace.headers += limit_headers(trace.decision)
        return Answer(msgspec.json.encode(build_body(call, body)))

    @staticmethod
    async def model_of(credential: ApiCredential, body: RerankRequest) -> TeamModel:
        policy = credential.policy
        is_allowed = not policy.allowed_models or body.model in policy.allowed_models
        model = await find_model(policy.team_id, ModelKind.RERANK, body.model) if is_allowed else None
        if model is None:
            raise await rerank_refusal(policy, body.model)
        return model


def build_body(call: RerankCall, body: RerankRequest) -> dict[str, Any]:
    order = sorted(range(len(call.scores)), key=lambda index: -call.scores[index])
    results: list[dict[str, Any]] = [
        {"index": index, "relevance_score": call.scores[index]} for index in order[: body.top_n]
    ]
    if body.return_documents:
        for result in results:
            result["document"] = {"text": call.documents[result["index"]]}
    return {
        "id": call.caller.request_id,
        "object": "list",
        "model": call.model.name,
        "results": results,
        "usage": {"prompt_tokens": call.tokens, "total_tokens": call.tokens},
    }
