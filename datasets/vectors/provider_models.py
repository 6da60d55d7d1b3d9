"""A model of a provider that makes vectors or judges texts, and one call to it."""

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import msgspec

from apikeys.errors import UpstreamError, UpstreamTimeout
from apikeys.outbound import client
from apikeys.outbound.error_answers import BUSY, Failure, error_of, failure_of, read_refusal
from apikeys.outbound.json_bodies import is_json, load
from apikeys.outbound.service import Service
from datasets import texts

logger = logging.getLogger(__name__)

Body = TypeVar("Body")

# It has room for 64 vectors of 4,096 numbers, written out; some rerankers answer with the documents too.
MAX_ANSWER_BYTES = 16 * 1024 * 1024
# A provider may answer so for the sake of one text, and take the others without it.
OF_TEXTS = frozenset({400, 413, 422, 500})


class TextsRefused(UpstreamError):
    """The provider answered, but not with what these texts were sent for. It may take others."""

    message = "The model's provider refused a text."


@dataclass(frozen=True, slots=True)
class ProviderModel:
    """A model, and the service that has it. Without one it is the static model of this server."""

    name: str
    service: Service | None = None

    @classmethod
    def of(cls, provider: Any, name: str) -> "ProviderModel":
        if provider is None:
            return cls(texts.STATIC_MODEL)
        service = Service.of_columns(
            base_url=provider.base_url,
            query=provider.query,
            auth_header=provider.auth_header,
            encrypted_secret=provider.encrypted_secret,
            encrypted_headers=provider.encrypted_headers,
            connect_seconds=provider.connect_seconds,
            total_seconds=provider.total_seconds,
        )
        return cls(name, service)

    def within(self, seconds: int) -> "ProviderModel":
        """Return the same model, whose calls take no longer than this."""
        service = self.service
        if service is None or service.total_seconds <= seconds:
            return self
        return replace(self, service=replace(service, total_seconds=seconds))

    @property
    def is_static(self) -> bool:
        return self.service is None

    async def ask(self, path: str, body: dict[str, Any], decoder: msgspec.json.Decoder[Body]) -> Body:
        """POST to the base URL's `path`. Raise UpstreamError, TextsRefused, UpstreamTimeout or UpstreamBusy."""
        service = self.service
        if service is None:
            raise TypeError("the static model is asked in this process")
        if service.is_secret_lost:
            raise self.failure(Failure("no secret that ENCRYPTION_KEYS can decrypt"))
        try:
            answer = await self._post(service, path, body)
        except TimeoutError:
            logger.warning("the provider of the model %s timed out", self.name)
            raise UpstreamTimeout from None
        except (OSError, ValueError) as error:
            # The class only: the text of these errors names the provider's address.
            raise self.failure(Failure(type(error).__name__)) from None
        try:
            return decode(answer, decoder)
        except (msgspec.DecodeError, ValueError, RecursionError):
            raise self.refusal(Failure("an answer of another form")) from None

    async def _post(self, service: Service, path: str, body: dict[str, Any]) -> bytes:
        deadline = asyncio.get_running_loop().time() + service.total_seconds
        response = await client.post(
            service.url(path),
            body=msgspec.json.encode(body),
            credentials=service.credentials.head(),
            connect_seconds=service.connect_seconds,
            deadline=deadline,
            max_bytes=MAX_ANSWER_BYTES,
        )
        try:
            if response.is_success:
                answer = response.body()
                if is_json(answer):
                    return answer
                raise self.failure(Failure(f"HTTP {response.status} {response.content_type} without an answer in it"))
            refusal = await read_refusal(response, deadline)
            failure = failure_of(response.status, refusal, hidden=service.credentials.hidden, base_url=service.base_url)
            if response.status in OF_TEXTS:
                raise self.refusal(failure)
            if response.status in BUSY:
                logger.warning("the provider of the model %s is busy: %s", self.name, failure)
                raise error_of(failure, response.retry_after)
            raise self.failure(failure)
        finally:
            response.release()

    def failure(self, failure: Failure) -> UpstreamError:
        logger.warning("the provider of the model %s failed: %s", self.name, failure)
        error = UpstreamError()
        error.failure = failure
        return error

    def refusal(self, failure: Failure) -> TextsRefused:
        logger.warning("the provider of the model %s refused texts: %s", self.name, failure)
        error = TextsRefused(f"The model's provider refused a text: {failure}.")
        error.failure = failure
        return error


def decode(answer: bytes, decoder: msgspec.json.Decoder[Body]) -> Body:
    try:
        return decoder.decode(answer)
    except msgspec.DecodeError:
        # Behind a byte order mark, or with NaN in it: what else is wrong stays wrong.
        found: Body = msgspec.convert(load(answer), decoder.type)
        return found
