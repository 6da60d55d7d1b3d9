"""One completion, from the question to its answer. It knows nothing of HTTP; its base accounts for it."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec

from apikeys.accounting.ledger import Outcome, TokenSource
from apikeys.accounting.metered import AsyncMeteredCall, Charge
from apikeys.accounting.recording import Usage
from apikeys.errors import InvalidParameter, UpstreamError
from apikeys.hot_path.group_commit import Batcher
from apikeys.object_ids import new_object_id
from apikeys.storable_text import storable
from chat.completions import fastgpt_steps, histories, provider_calls, recorder
from chat.completions.app_snapshots import AppSnapshot
from chat.completions.fastgpt_steps import Step
from chat.completions.knowledge import Knowledge, Search
from chat.completions.provider_messages import (
    ProviderAnswer,
    fill_variables,
    finish_reason_of,
    for_provider,
    reported_tokens,
    token_bound,
)
from chat.completions.quotes import words_of
from chat.completions.request import ChatMessage, CompletionRequest, Content

# Parameters that a request may set where its app lets it.
OVERRIDABLE = ("temperature", "top_p", "stop", "seed", "presence_penalty", "frequency_penalty", "user")


@dataclass(slots=True)
class Completion(AsyncMeteredCall):
    """One question to one app. `prepare`, then either `answer` or `stream`."""

    batcher: ClassVar[Batcher[Any, None]] = recorder.batcher

    request: CompletionRequest
    app: AppSnapshot
    created: int = field(default_factory=lambda: int(time.time()))
    messages: list[dict[str, Any]] = field(default_factory=list)
    # It is what the app's datasets say, once they were searched.
    search: Search | None = None
    # A step is added when it begins.
    steps: list[Step] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    length: int = 0
    finish_reason: str = "stop"
    reported: dict[str, Any] | None = None
    is_asked: bool = False

    @property
    def id(self) -> str:
        return self.request.chatId or self.caller.request_id

    @property
    def variables(self) -> dict[str, Any]:
        return self.request.variables or {}

    @property
    def question(self) -> ChatMessage:
        return next(message for message in reversed(self.request.messages) if message.role == "user")

    @property
    def content(self) -> str:
        return "".join(self.texts)

    @property
    def usage(self) -> dict[str, int]:
        """Return tokens as OpenAI spells them: those the provider reported, otherwise an upper bound from the text.

        All are zero where no model was asked.
        """
        if not self.is_asked:
            return {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        prompt = reported_tokens(self.reported, "prompt_tokens")
        completion = reported_tokens(self.reported, "completion_tokens")
        if prompt is None or completion is None:
            prompt = token_bound(self.messages)
            completion = min(len(self.content.encode()), self.max_tokens)
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    @property
    def token_source(self) -> TokenSource:
        counts = (reported_tokens(self.reported, name) for name in ("prompt_tokens", "completion_tokens"))
        return TokenSource.BOUND if None in counts else TokenSource.PROVIDER

    @property
    def max_tokens(self) -> int:
        limits = (self.request.max_tokens, self.request.max_completion_tokens, self.app.max_tokens)
        return min(limit for limit in limits if limit is not None)

    async def prepare(self) -> None:
        """Gather what the model will see. Raise InvalidParameter when the answer's id is taken already."""
        request, app = self.request, self.app
        messages: list[dict[str, Any]] = []
        if app.system_prompt:
            messages.append({"role": "system", "content": fill_variables(app.system_prompt, self.variables)})
        if request.chatId:
            history = await histories.batcher.submit(
                histories.HistoryRequest(
                    app.app_id, request.chatId, app.history_length, request.responseChatItemId or None
                )
            )
            if history.is_data_id_taken:
                raise InvalidParameter("responseChatItemId: This chat has it already.", param="responseChatItemId")
            messages += [for_provider(role, _parse_content(content)) for role, content in history.messages]
            messages.append(for_provider("user", self.question.content))
        else:
            messages += [for_provider(message.role, message.content) for message in request.messages]
        self.messages = messages

    async def answer(self) -> None:
        async with self:
            await self._search()
            if self._is_unknown:
                self.texts.append(self._empty_answer)
                return
            self._begin_chat()
            self.flight.waiting = asyncio.current_task()
            self._take(await provider_calls.complete(self.app, self._payload(stream=False)))

    async def stream(self) -> AsyncGenerator[list[str], None]:
        """Yield the answer's text as it comes; the end of the iteration means that it is recorded."""
        async with self:
            await self._search()
            # Where the datasets say nothing, the app's own text is the answer.
            if self._is_unknown:
                self.texts.append(self._empty_answer)
                yield [self._empty_answer]
                return
            flight = self.flight
            self._begin_chat()
            async with aclosing(provider_calls.stream(self.app, self._payload(stream=True))) as batches:
                flight.waiting = asyncio.current_task()
                reader: asyncio.Task[Any] | None = None
                async for batch in batches:
                    texts = [text for answer in batch if (text := self._take(answer))]
                    # A stream whose reader stalls keeps its text alone.
                    batch.clear()
                    if texts:
                        flight.waiting = None
                        yield texts
                        flight.check()
                        # The first texts may have been waited for in a task of their own; one task reads all others.
                        flight.waiting = reader = reader or asyncio.current_task()
                flight.waiting = None

    @property
    def is_answering(self) -> bool:
        return bool(self.texts and self.request.stream)

    def bound_charge(self) -> Charge:
        return self._charge(self._prompt_bound(), self.max_tokens, TokenSource.BOUND)

    def compute_charge(self, outcome: Outcome) -> Charge:
        if outcome == Outcome.FAILED and self.first_byte_at is None:
            # The provider gave nothing: nothing is charged.
            return self._charge(0, 0, self.token_source)
        usage = self.usage
        return self._charge(usage["prompt_tokens"], usage["completion_tokens"], self.token_source)

    def build_item(self, usage: Usage) -> recorder.Item:
        outcome = usage.outcome
        is_kept = outcome == Outcome.COMPLETE or (outcome in (Outcome.CANCELLED, Outcome.TERMINATED) and self.texts)
        return usage, self._build_exchange() if is_kept else None

    async def _search(self) -> None:
        knowledge, flight = self.app.knowledge, self.flight
        if knowledge is None:
            return
        self.steps.append(Step.SEARCH)
        flight.waiting = asyncio.current_task()
        self.search = await knowledge.search(words_of(self.question.content))
        flight.waiting = None
        if self.search.quotes:
            self.messages = self._insert_quotes(knowledge, knowledge.render(self.search.quotes))

    def _insert_quotes(self, knowledge: Knowledge, quotes: str) -> list[dict[str, Any]]:
        prompt = knowledge.build_prompt(self.question.content, quotes, self.variables)
        place = max(number for number, message in enumerate(self.messages) if message["role"] == "user")
        return [*self.messages[:place], for_provider("user", prompt), *self.messages[place + 1 :]]

    @property
    def _empty_answer(self) -> str:
        return self.app.knowledge.empty_answer if self.app.knowledge else ""

    @property
    def _is_unknown(self) -> bool:
        return self.search is not None and not self.search.quotes and bool(self._empty_answer)

    def _begin_chat(self) -> None:
        self.steps.append(Step.CHAT)
        self.is_asked = True

    def _prompt_bound(self) -> int:
        # It is asked before the datasets are searched: a key that has used up its limits searches nothing either.
        knowledge = self.app.knowledge
        if knowledge is None:
            return token_bound(self.messages)
        return token_bound(self._insert_quotes(knowledge, "")) + knowledge.max_bytes

    def _payload(self, *, stream: bool) -> dict[str, Any]:
        payload: dict[str, Any] = {
            "model": self.app.model,
            "messages": self.messages,
            "max_tokens": self.max_tokens,
            "stream": stream,
        }
        if stream:
            payload["stream_options"] = {"include_usage": True}
        if self.app.temperature is not None:
            payload["temperature"] = self.app.temperature
        if self.app.can_override:
            overrides = {name: getattr(self.request, name) for name in OVERRIDABLE}
            payload |= {name: value for name, value in overrides.items() if value is not None}
        return payload

    def _take(self, answer: ProviderAnswer) -> str:
        if self.first_byte_at is None:
            self.first_byte_at = time.monotonic()
        self.reported = answer.usage or self.reported
        if not answer.choices:
            return ""
        choice = answer.choices[0]
        if choice.finish_reason:
            self.finish_reason = finish_reason_of(choice.finish_reason)
        message = choice.message or choice.delta
        text = storable(message.content or "") if message is not None else ""
        if text:
            self.texts.append(text)
            self.length += len(text)
            if self.length > provider_calls.MAX_ANSWER_BYTES:
                raise UpstreamError("The model's answer is too long.")
        return text

    def _charge(self, prompt_tokens: int, completion_tokens: int, source: TokenSource) -> Charge:
        app = self.app
        return Charge(
            prompt_tokens, completion_tokens, source, app.model, app.app_id, app.prompt_price, app.completion_price
        )

    def _build_exchange(self) -> recorder.Exchange | None:
        request = self.request
        if not request.chatId:
            return None
        return recorder.Exchange(
            chat_id=request.chatId,
            question_id=new_object_id(),
            question=self.question.content,
            answer_id=request.responseChatItemId or new_object_id(),
            answer=self.content,
            response_data=fastgpt_steps.response_data(self),
            custom_uid=request.customUid or "",
            metadata=request.metadata,
            variables=request.variables,
        )


def _parse_content(content: Any) -> Content:
    # Nearly all contents are plain text, which needs no conversion.
    return content if isinstance(content, str) else msgspec.convert(content, Content)
