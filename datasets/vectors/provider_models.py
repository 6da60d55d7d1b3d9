"""A model of a provider that makes vectors or judges texts, and one call to it."""

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from apikeys import encryption
from apikeys.errors import UpstreamError, UpstreamTimeout
from apikeys.outbound import client
from apikeys.outbound.error_answers import BUSY, Failure, error_of, failure_of, read_refusal
from apikeys.outbound.json_bodies import is_json, load
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
    """A model, and how its provider is called. Without a URL it is the static model of this server."""

    name: str
    base_url: str | None = None
    # It is None when there is no secret; a secret that cannot be decrypted must not be mistaken for that.
    secret: str | None = field(default=None, repr=False)
    is_secret_lost: bool = False
    connect_seconds: int = 5
    total_seconds: int = 60

    @classmethod
    def of(cls, provider: Any, name: str) -> "ProviderModel":
        if provider is None:
            return cls(texts.STATIC_MODEL)
        return cls.of_columns(
            name,
            base_url=provider.base_url,
            encrypted_secret=provider.encrypted_secret,
            connect_seconds=provider.connect_seconds,
            total_seconds=provider.total_seconds,
        )

    @classmethod
    def of_columns(
        cls, name: str, *, base_url: str, encrypted_secret: bytes | None, connect_seconds: int, total_seconds: int
    ) -> "ProviderModel":
        secret, is_lost = None, False
        if encrypted_secret is not None:
            try:
                secret = encryption.unseal(encrypted_secret, base_url)
            except encryption.DecryptionError:
                is_lost = True
        return cls(name, base_url, secret, is_lost, connect_seconds, total_seconds)

    @property
    def is_static(self) -> bool:
        return self.base_url is None

    async def ask(self, path: str, body: dict[str, Any], decoder: msgspec.json.Decoder[Body]) -> Body:
        """POST to the base URL's `path`. Raise UpstreamError, TextsRefused, UpstreamTimeout or UpstreamBusy."""
        if self.is_secret_lost:
            raise self.failure("no secret that ENCRYPTION_KEYS can decrypt")
        try:
            answer = await self._post(path, body)
        except TimeoutError:
            logger.warning("the provider of the model %s timed out", self.name)
            raise UpstreamTimeout from None
        except (OSError, ValueError) as error:
            # The class only: the text of these errors names the provider's address.
            raise self.failure(type(error).__name__) from None
        try:
            return decode(answer, decoder)
        except (msgspec.DecodeError, ValueError, RecursionError):
            raise self.refusal("an answer of another form") from None

    async def _post(self, path: str, body: dict[str, Any]) -> bytes:
        deadline = asyncio.get_running_loop().time() + self.total_seconds
        response = await client.post(
            f"{self.base_url}/{path}",
            body=msgspec.json.encode(body),
            secret=self.secret,
            connect_seconds=self.connect_seconds,
            deadline=deadline,
            max_bytes=MAX_ANSWER_BYTES,
        )
        try:
            if response.is_success:
                answer = response.body()
                if is_json(answer):
                    return answer
                raise self.failure(f"HTTP {response.status} {response.content_type} without an answer in it")
            refusal = await read_refusal(response, deadline)
            failure = failure_of(response.status, refusal, secret=self.secret, base_url=str(self.base_url))
            if response.status in OF_TEXTS:
                raise self.refusal(str(failure))
            if response.status in BUSY:
                logger.warning("the provider of the model %s is busy: %s", self.name, failure)
                raise error_of(failure, response.retry_after)
            raise self.failure(str(failure))
        finally:
            response.release()

    def failure(self, what: str) -> UpstreamError:
        logger.warning("the provider of the model %s failed: %s", self.name, what)
        error = UpstreamError()
        error.failure = Failure(what)
        return error

    def refusal(self, what: str) -> TextsRefused:
        logger.warning("the provider of the model %s refused texts: %s", self.name, what)
        return TextsRefused(f"The model's provider refused a text: {what}.")


def decode(answer: bytes, decoder: msgspec.json.Decoder[Body]) -> Body:
    try:
        return decoder.decode(answer)
    except msgspec.DecodeError:
        # Behind a byte order mark, or with NaN in it: what else is wrong stays wrong.
        found: Body = msgspec.convert(load(answer), decoder.type)
        return found
