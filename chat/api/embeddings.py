"""`POST v1/embeddings`: vectors of texts, in OpenAI's form."""

from typing import Annotated, Literal

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
from chat.catalog import ModelKind
from chat.embeddings.calls import EmbeddingCall
from chat.embeddings.inputs import Inputs, TokenIds, read_inputs
from chat.model_names import MAX_NAME_LENGTH, embedding_refusal
from chat.team_models import TeamModel, find_model
from datasets.texts import MAXIMUM_TOKENS, STATIC_MODEL, is_too_long_by_size
from datasets.vectors.embeddings import MAX_DIMENSION, count_tokens


class EmbeddingRequest(Struct, frozen=True):
    """null means absent; unknown fields are ignored."""

    model: Annotated[str, Meta(max_length=MAX_NAME_LENGTH)]
    # It is checked piece by piece.
    input: msgspec.Raw
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1, le=MAX_DIMENSION)] | None = None
    user: str | None = None


DECODER = msgspec.json.Decoder(EmbeddingRequest)


class EmbeddingsView(AsyncApiView):
    """`POST v1/embeddings`: by the static model, or a model that one of the team's datasets has."""

    endpoint = "embeddings.create"
    api_key_access = frozenset({GLOBAL})
    staff_permission = None
    max_body_setting = "EMBEDDINGS_MAX_BODY_BYTES"

    async def post(self, request: AsyncRequest) -> Answer:
        credential: ApiCredential = request.auth  # type: ignore[assignment]
        trace = request.trace
        caller = Caller(trace, credential.policy, self.endpoint)
        try:
            body = decode(request.body, DECODER)
            inputs = await read_inputs(body.input)
        except InvalidParameter:
            await count_refused(caller, len(request.body))
            raise
        # What was read is of no more use, and may be large.
        request.body, body = b"", msgspec.structs.replace(body, input=msgspec.Raw())
        flight = InFlight(credential.policy.key_id, trace.reader)
        try:
            model = await self.model_of(credential, body)
            if model.entry is None:
                await check_texts(inputs)
            # Not every provider knows the field, and none needs it for what its model has anyway.
            dimensions = None if body.dimensions == model.dimension else body.dimensions
            is_base64 = body.encoding_format == "base64"
            call = EmbeddingCall(model, inputs.items, is_base64, dimensions, caller=caller, flight=flight)
            await call.answer()
        finally:
            flight.close()
            if trace.decision is not None:
                trace.headers += limit_headers(trace.decision)
        return Answer(build_body(call))

    @staticmethod
    async def model_of(credential: ApiCredential, body: EmbeddingRequest) -> TeamModel:
        policy = credential.policy
        is_allowed = not policy.allowed_models or body.model in policy.allowed_models
        model = await find_model(policy.team_id, ModelKind.EMBEDDING, body.model) if is_allowed else None
        if model is None:
            raise await embedding_refusal(policy, body.model)
        if model.entry is None and body.dimensions not in (None, model.dimension):
            raise InvalidParameter(f"dimensions: The model's vectors have {model.dimension}.", param="dimensions")
        return model


async def check_texts(inputs: Inputs) -> None:
    # The static model takes what a datum may have. How long a provider's takes them, the provider says.
    for number, text in enumerate(inputs.items):
        param = inputs.param(number)
        if isinstance(text, TokenIds):
            raise InvalidParameter(f"{param}: {STATIC_MODEL} takes texts, and no token ids.", param=param)
        is_too_long = is_too_long_by_size(text)
        if is_too_long is None:
            is_too_long = (await count_tokens([text]))[0] > MAXIMUM_TOKENS
        if is_too_long:
            raise InvalidParameter(f"{param}: It has more than {MAXIMUM_TOKENS} tokens.", param=param)


def build_body(call: EmbeddingCall) -> bytes:
    body = {
        "object": "list",
        # They are JSON already.
        "data": msgspec.Raw(b"[" + b",".join(call.vectors) + b"]"),
        "model": call.model.name,
        "usage": {"prompt_tokens": call.tokens, "total_tokens": call.tokens},
    }
    return msgspec.json.encode(body)
