"""One completion, from the question to its answer. It knows nothing of HTTP; its base accounts for it."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec
from msgspec.structs import asdict

from apikeys.accounting.ledger import Outcome, TokenSource
from apikeys.accounting.metered import AsyncMeteredCall, Charge
from apikeys.accounting.recording import Usage
from apikeys.errors import InvalidParameter, UpstreamError
from apikeys.hot_path.group_commit import Batcher
from apikeys.object_ids import new_object_id
from chat.completions import abilities, attachments, fastgpt_steps, histories, provider_calls, recorder
from chat.completions.app_snapshots import AppSnapshot
from chat.completions.choices import Answer, ChoicePiece, Choices, Piece
from chat.completions.fastgpt_steps import Step
from chat.completions.knowledge import Knowledge, Search
from chat.completions.provider_answers import Characters, ProviderAnswer, Reported, finish_reason_of
from chat.completions.provider_messages import (
    count_images,
    fill_variables,
    for_provider,
    message_for_provider,
    replay_message,
    token_bound,
)
from chat.completions.quotes import words_of
from chat.completions.request import CompletionRequest, Content, choices_field, read_content, tool_field
from chat.completions.turns import StoredMessage, check_results, store_result, waits_for, whole_turns

# Parameters that a request may set where its app lets it.
OVERRIDABLE = (
    *("temperature", "top_p", "stop", "seed", "presence_penalty", "frequency_penalty", "user"),
    *("logit_bias", "reasoning_effort", "service_tier", "verbosity", "prediction", "safety_identifier"),
    *("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"),
)
# And those that it passes on, if the app passes tools.
OF_TOOLS = ("tools", "tool_choice", "parallel_tool_calls", "functions", "function_call", "response_format")
OF_CHOICES = ("n", "logprobs", "top_logprobs")


@dataclass(slots=True)
class Completion(AsyncMeteredCall, Answer):
    """One question to one app. `prepare`, then either `answer` or `stream`."""

    batcher: ClassVar[Batcher[Any, None]] = recorder.batcher

    request: CompletionRequest
    app: AppSnapshot
    created: int = field(default_factory=lambda: int(time.time()))
    messages: list[dict[str, Any]] = field(default_factory=list)
    # The last message of the user, also where the request brings results of tools.
    question: Content = ""
    # The results of tools that the request brings; in a conversation, the key of the message that asks for their calls.
    results: list[StoredMessage] = field(default_factory=list)
    called_by: int | None = None
    # It is what the app's datasets say, once they were searched.
    search: Search | None = None
    # A step is added when it begins.
    steps: list[Step] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    # Tool calls and refusals, as they came.
    extras: list[dict[str, Any]] = field(default_factory=list)
    # So many bytes the model has produced; so many of them when it last reported how many tokens they are.
    size: int = 0
    reported_size: int = 0
    reported: Reported = field(default_factory=Reported)
    finish_reason: str = "stop"
    # Set where a request asks for several answers, or for the probabilities of tokens.
    choices: Choices | None = None
    is_asked: bool = False
    _characters: Characters = field(default_factory=Characters)
    _thought_characters: Characters = field(default_factory=Characters)

    @property
    def id(self) -> str:
        return self.request.chatId or self.caller.request_id

    @property
    def variables(self) -> dict[str, Any]:
        return self.request.variables or {}

    @property
    def usage(self) -> dict[str, Any]:
        """Return tokens as OpenAI spells them: those the provider reported, otherwise an upper bound from the text.

        All are zero where no model was asked.
        """
        if not self.is_asked:
            return {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        reported = self.reported
        prompt = reported.prompt_tokens or token_bound(self.messages) + self._tools_bound
        completion = reported.completion_tokens or 0
        if not self._is_completion_reported:
            completion = max(completion, min(self.size, self.max_tokens * self.choice_count))
        usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        return usage | reported.details(prompt, completion) if reported.has_details else usage

    @property
    def token_source(self) -> TokenSource:
        is_reported = self.reported.prompt_tokens is not None and self._is_completion_reported
        return TokenSource.PROVIDER if is_reported else TokenSource.BOUND

    @property
    def _is_completion_reported(self) -> bool:
        """Return whether the provider's report is of all that it produced."""
        tokens = self.reported.completion_tokens
        return tokens is not None and self.reported_size == self.size and bool(tokens or not self.size)

    @property
    def max_tokens(self) -> int:
        limits = (self.request.max_tokens, self.request.max_completion_tokens, self.app.max_tokens)
        return min(limit for limit in limits if limit is not None)

    @property
    def choice_count(self) -> int:
        return self.request.n or 1

    async def prepare(self) -> None:
        """Gather what the model will see. Raise InvalidParameter when the request does not fit the chat or the app."""
        request, app = self.request, self.app
        asked = tool_field(request)
        if app.entry.is_restricted:
            abilities.check(app.entry, request, asked)
        unpassed = None if app.passes_tools else asked or choices_field(request)
        if unpassed is not None:
            raise InvalidParameter(f"{unpassed}: This app does not pass it on to its model.", param=unpassed)
        last = request.messages[-1]
        self.question = (last.content or "") if last.role == "user" else request.question
        # Most requests are one question.
        if len(request.messages) > 1 or last.role != "user":
            self.results = [store_result(message) for message in request.messages[request.results]]
        messages: list[dict[str, Any]] = []
        if app.system_prompt:
            messages.append({"role": "system", "content": fill_variables(app.system_prompt, self.variables)})
        if request.chatId:
            messages += map(replay_message, await self._load_turns())
        else:
            messages += map(message_for_provider, request.messages)
        self.messages = messages

    async def _load_turns(self) -> list[StoredMessage]:
        """Return earlier turns of the chat, and the one that the request begins or goes on with."""
        request, app = self.request, self.app
        history = await histories.batcher.submit(
            histories.HistoryRequest(
                app.app_id,
                request.chatId or "",
                app.history_length,
                request.responseChatItemId or None,
                is_continuing=bool(self.results),
            )
        )
        if history.is_data_id_taken:
            raise InvalidParameter("responseChatItemId: This chat has it already.", param="responseChatItemId")
        messages = self._check_results(history) if self.results else history.messages
        if not request.ends_in_results:
            return whole_turns([*messages, *self.results, StoredMessage("user", self.question)])
        turns = whole_turns([*messages, *self.results])
        if not turns or turns[-1] is not self.results[-1]:
            raise InvalidParameter(
                "messages: This turn of the chat is too long to go on with: it may have "
                f"{histories.MAX_TURN_MESSAGES} messages and {histories.MAX_BYTES} bytes.",
                param="messages",
            )
        self.question = read_content(next(message.content for message in reversed(turns) if message.role == "user"))
        return turns

    def _check_results(self, history: histories.History) -> list[StoredMessage]:
        """Return the messages that the results follow. Drop results that were not asked for, if a question follows."""
        request, messages = self.request, history.messages
        if not request.ends_in_results and not waits_for(messages, self.results[0]):
            # A client that sends all messages again brings results of earlier turns, too.
            self.results = []
            return messages[-self.app.history_length :] if self.app.history_length else []
        check_results(messages, self.results, request.results.start)
        self.called_by = history.latest_id
        return messages

    async def answer(self) -> None:
        async with self:
            await self._search()
            if self._is_unknown:
                self.texts.append(self._empty_answer)
                return
            self._begin_chat()
            self.flight.waiting = asyncio.current_task()
            for answer in await provider_calls.complete(self.app.entry, self._payload(stream=False), self.attempts):
                self._take(answer)
            self._end()

    async def stream(self) -> AsyncGenerator[Sequence[Piece | ChoicePiece], None]:
        """Yield the answer as it comes; the end of the iteration means that it is recorded."""
        async with self:
            await self._search()
            # Where the datasets say nothing, the app's own text is the answer.
            if self._is_unknown:
                self.texts.append(self._empty_answer)
                yield [self._empty_answer]
                return
            flight = self.flight
            self._begin_chat()
            answers = provider_calls.stream(self.app.entry, self._payload(stream=True), self.attempts)
            async with aclosing(answers) as batches:
                flight.waiting = asyncio.current_task()
                reader: asyncio.Task[Any] | None = None
                async for batch in batches:
                    pieces = [piece for answer in batch for piece in self._take(answer)]
                    # A stream whose reader stalls keeps its text alone.
                    batch.clear()
                    if pieces:
                        flight.waiting = None
                        yield pieces
                        flight.check()
                        # The first pieces may have been waited for in a task of their own; one task reads all others.
                        flight.waiting = reader = reader or asyncio.current_task()
                flight.waiting = None
            rest = self._end()
            if rest:
                yield rest

    @property
    def is_answering(self) -> bool:
        return bool((self.texts or self.size) and self.request.stream)

    def bound_charge(self) -> Charge:
        prices = self.app.entry.prices
        images = self._image_details()
        charge = self._charge(
            self._prompt_bound(), self.max_tokens * self.choice_count, TokenSource.BOUND, images or None
        )
        if prices.cached_prompt is None and prices.reasoning is None:
            return charge
        # Each token may turn out to be of the dearer kind.
        return charge._replace(
            prompt_price=max(prices.prompt, prices.cached_prompt or 0),
            completion_price=max(prices.completion, prices.reasoning or 0),
        )

    def compute_charge(self, outcome: Outcome) -> Charge:
        if outcome == Outcome.FAILED and self.first_byte_at is None:
            # The provider gave nothing: nothing is charged.
            return self._charge(0, 0, self.token_source)
        usage, details = self.usage, None
        if self.is_asked and (self.reported.has_details or self.app.entry.prices.image):
            details = self._token_details(usage) | self._image_details() or None
        return self._charge(usage["prompt_tokens"], usage["completion_tokens"], self.token_source, details)

    def build_item(self, usage: Usage) -> recorder.Item:
        outcome = usage.outcome
        is_kept = outcome == Outcome.COMPLETE or (outcome in (Outcome.CANCELLED, Outcome.TERMINATED) and self.texts)
        return usage, self._build_exchange(outcome) if is_kept else None

    async def _search(self) -> None:
        knowledge, flight = self.app.knowledge, self.flight
        if knowledge is None:
            return
        self.steps.append(Step.SEARCH)
        flight.waiting = asyncio.current_task()
        self.search = await knowledge.search(words_of(self.question))
        flight.waiting = None
        if self.search.quotes:
            self.messages = self._insert_quotes(knowledge, knowledge.render(self.search.quotes))

    def _insert_quotes(self, knowledge: Knowledge, quotes: str) -> list[dict[str, Any]]:
        prompt = knowledge.build_prompt(self.question, quotes, self.variables)
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
        if len(self.app.entry.routes) > 1:
            self.attempts = []
        if choices_field(self.request) is not None:
            self.choices = Choices(self)

    def _prompt_bound(self) -> int:
        # It is asked before the datasets are searched: a key that has used up its limits searches nothing either.
        knowledge = self.app.knowledge
        if knowledge is None:
            return token_bound(self.messages) + self._tools_bound
        return token_bound(self._insert_quotes(knowledge, "")) + knowledge.max_bytes + self._tools_bound

    @property
    def _tools_bound(self) -> int:
        """Return the most tokens that tools and the format of the answer may be."""
        tools = self._tools()
        return len(msgspec.json.encode(tools)) if tools else 0

    def _tools(self) -> dict[str, Any]:
        if not (self.app.passes_tools and self.request.has_options_of_tools):
            return {}
        found = {name: getattr(self.request, name) for name in OF_TOOLS}
        if choices_field(self.request) is not None:
            found |= {name: getattr(self.request, name) for name in OF_CHOICES}
        return {name: value for name, value in found.items() if value is not None}

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
        payload.update(self._tools())
        return payload

    def _take(self, answer: ProviderAnswer) -> Sequence[Piece | ChoicePiece]:
        if self.first_byte_at is None:
            self.first_byte_at = time.monotonic()
        pieces: Sequence[Piece | ChoicePiece] = []
        found = answer.choices
        if found and self.choices is not None:
            pieces = self.choices.take(found)
        elif found:
            choice = found[0]
            if choice.finish_reason:
                self.finish_reason = finish_reason_of(choice.finish_reason)
            message = choice.message or choice.delta
            if message is not None:
                pieces = self._add(message)
        if answer.usage is not None and self.reported.add(answer.usage):
            self.reported_size = self.size
        return pieces

    def _end(self) -> Sequence[Piece | ChoicePiece]:
        """Take what is left of the text when all has come."""
        return self._end_texts() if self.choices is None else self.choices.end()

    def _count(self, size: int) -> None:
        self.size += size
        if self.size > provider_calls.MAX_ANSWER_BYTES:
            raise UpstreamError("The model's answer is too long.")

    def _charge(
        self, prompt_tokens: int, completion_tokens: int, source: TokenSource, details: dict[str, int] | None = None
    ) -> Charge:
        app, prices = self.app, self.app.entry.prices
        return Charge(
            prompt_tokens, completion_tokens, source, app.model, app.app_id, prices.prompt, prices.completion, details
        )

    def _token_details(self, usage: dict[str, Any]) -> dict[str, int]:
        """Return the tokens that may have a price of their own, and that price where there is one."""
        prices = self.app.entry.prices
        details = {}
        if cached := usage.get("prompt_tokens_details", {}).get("cached_tokens"):
            details["cached_tokens"] = cached
            if prices.cached_prompt is not None:
                details["cached_price"] = prices.cached_prompt
        if reasoning := usage.get("completion_tokens_details", {}).get("reasoning_tokens"):
            details["reasoning_tokens"] = reasoning
            if prices.reasoning is not None:
                details["reasoning_price"] = prices.reasoning
        return details

    def _image_details(self) -> dict[str, int]:
        price = self.app.entry.prices.image
        images = count_images(self.messages) if price else 0
        return {"images": images, "image_price": price} if images else {}

    def _build_exchange(self, outcome: Outcome) -> recorder.Exchange | None:
        request = self.request
        if not request.chatId:
            return None
        return recorder.Exchange(
            chat_id=request.chatId,
            question_id=new_object_id(),
            question=None if request.ends_in_results else attachments.for_storage(self.question),
            results=[recorder.Result(new_object_id(), **asdict(result)) for result in self.results] or None,
            called_by=self.called_by,
            answer_id=request.responseChatItemId or new_object_id(),
            answer=self.content,
            # Calls that broke off cannot be made.
            extras=(self.answer_extras or None) if outcome == Outcome.COMPLETE else None,
            response_data=fastgpt_steps.response_data(self),
            custom_uid=request.customUid or "",
            metadata=request.metadata,
            variables=request.variables,
        )
