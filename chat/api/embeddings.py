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
from apikeys.errors import InvalidParameter, ModelNotAllowed
from apikeys.hot_path.in_flight import InFlight
from apikeys.hot_path.request import AsyncRequest
from apikeys.storable_text import storable
from chat.embeddings.calls import EmbeddingCall
from chat.embeddings.models import TeamModel, find_model
from datasets.texts import MAXIMUM_TOKENS, is_too_long_by_size
from datasets.vectors.embeddings import count_tokens

MAX_TEXTS = 2_048
# All texts together have at most so many bytes.
MAX_BYTES = 1024 * 1024

Text = Annotated[str, Meta(min_length=1)]


class EmbeddingRequest(Struct, frozen=True):
    """null means absent; unknown fields are ignored."""

    model: str
    input: Text | Annotated[list[Text], Meta(min_length=1, max_length=MAX_TEXTS)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None


DECODER = msgspec.json.Decoder(EmbeddingRequest)


class EmbeddingsView(AsyncApiView):
    """`POST v1/embeddings`: by the static model, or a model that one of the team's datasets has."""

    endpoint = "embeddings.create"
    api_key_access = frozenset({GLOBAL})
    staff_permission = None

    async def post(self, request: AsyncRequest) -> Answer:
        credential: ApiCredential = request.auth  # type: ignore[assignment]
        trace = request.trace
        caller = Caller(trace, credential.policy, self.endpoint)
        try:
            body = decode(request.body, DECODER)
            texts = texts_of(body)
        except InvalidParameter:
            await count_refused(caller, len(request.body))
            raise
        flight = InFlight(credential.policy.key_id, trace.reader)
        try:
            model = await self.model_of(credential, body)
            if model.model.is_static:
                await check_lengths(body, texts)
            call = EmbeddingCall(model, texts, body.encoding_format == "base64", caller=caller, flight=flight)
            await call.answer()
        finally:
            flight.close()
            if trace.decision is not None:
                trace.headers += limit_headers(trace.decision)
        return Answer(build_body(call))

    @staticmethod
    async def model_of(credential: ApiCredential, body: EmbeddingRequest) -> TeamModel:
        policy = credential.policy
        if policy.allowed_models and body.model not in policy.allowed_models:
            raise ModelNotAllowed(f"This API key may not use the model {storable(body.model)}.")
        model = await find_model(policy.team_id, body.model)
        if model is None:
            raise InvalidParameter("model: None of your team's datasets has this model.", param="model")
        if body.dimensions is not None and body.dimensions != model.dimension:
            raise InvalidParameter("dimensions: The model's vectors have another dimension.", param="dimensions")
        return model


def texts_of(body: EmbeddingRequest) -> list[str]:
    texts = [storable(text) for text in ([body.input] if isinstance(body.input, str) else body.input)]
    if sum(len(text.encode()) for text in texts) > MAX_BYTES:
        raise InvalidParameter(f"input: It holds more than {MAX_BYTES} bytes.", param="input")
    return texts


async def check_lengths(body: EmbeddingRequest, texts: list[str]) -> None:
    # The static model takes what a datum may have. How long a provider's takes them, the provider says.
    for number, text in enumerate(texts):
        is_too_long = is_too_long_by_size(text)
        if is_too_long is None:
            is_too_long = (await count_tokens([text]))[0] > MAXIMUM_TOKENS
        if is_too_long:
            param = "input" if isinstance(body.input, str) else f"input[{number}]"
            raise InvalidParameter(f"{param}: It has more than {MAXIMUM_TOKENS} tokens.", param=param)


def build_body(call: EmbeddingCall) -> bytes:
    body = {
        "object": "list",
        # They are JSON already.
        "data": msgspec.Raw(b"[" + b",".join(call.vectors) + b"]"),
        "model": call.model.model.name,
        "usage": {"prompt_tokens": call.tokens, "total_tokens": call.tokens},
    }
    return msgspec.json.encode(body)
