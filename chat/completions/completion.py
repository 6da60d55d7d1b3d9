"""One completion, from the question to the record of its answer. Knows nothing of HTTP.

An accepted completion is recorded once, however it ends: complete, failed, or cancelled because nobody reads
it any more. Its answer is complete to the caller only when the record is durable.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, NoReturn

import msgspec

from apikeys.access.policy import KeyPolicy
from apikeys.accounting.admission import Admission, ReservationRequest
from apikeys.accounting.ledger import Outcome, TokenSource
from apikeys.accounting.recording import Usage
from apikeys.errors import ApiError, InvalidParameter, UpstreamError
from apikeys.hot_path.in_flight import InFlight
from apikeys.hot_path.trace import Trace
from apikeys.object_ids import new_object_id
from apikeys.storable_text import storable
from chat.completions import histories, provider_calls, recorder
from chat.completions.app_snapshots import AppSnapshot
from chat.completions.knowledge import Search, words_of
from chat.completions.provider_messages import (
    ProviderAnswer,
    fill_variables,
    finish_reason_of,
    for_provider,
    reported_tokens,
    token_bound,
)
from chat.completions.request import ChatMessage, CompletionRequest, Content, text_of

logger = logging.getLogger(__name__)

MODULE_NAME = "AI Chat"
SEARCH_MODULE_NAME = "Dataset Search"
PREVIEW_LENGTH = 100


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf, and under which id it is recorded."""

    trace: Trace
    # None: signed-in staff try an app. No limit is asked, no key is charged, and the log has what it came to.
    policy: KeyPolicy | None
    endpoint: str
    client_address: str | None

    @property
    def request_id(self) -> str:
        return self.trace.request_id


@dataclass(slots=True)
class Completion:
    """One question to one app. `prepare`, then either `answer` or `stream`."""

    request: CompletionRequest
    app: AppSnapshot
    caller: Caller
    flight: InFlight
    created: int = field(default_factory=lambda: int(time.time()))
    started: float = field(default_factory=time.monotonic)
    messages: list[dict[str, Any]] = field(default_factory=list)
    # What the app's datasets say, once they were searched.
    search: Search | None = None
    # The names of the steps that have begun.
    steps: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    length: int = 0
    finish_reason: str = "stop"
    first_byte_at: float | None = None
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
        """Tokens as OpenAI spells them: what the provider reported, otherwise an upper bound from the text.

        Of a request that asked no model: zero.
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
        asked = (self.request.max_tokens, self.request.max_completion_tokens, self.app.max_tokens)
        return min(limit for limit in asked if limit is not None)

    async def prepare(self) -> None:
        """Gather what the model will see. Raises InvalidParameter when the answer's id is taken already."""
        request, app = self.request, self.app
        seen: list[dict[str, Any]] = []
        if app.system_prompt:
            seen.append({"role": "system", "content": fill_variables(app.system_prompt, self.variables)})
        if request.chatId:
            history = await histories.batcher.submit(
                histories.Wanted(app.app_id, request.chatId, app.history_length, request.responseChatItemId or None)
            )
            if history.is_data_id_taken:
                raise InvalidParameter("responseChatItemId: This chat has it already.", param="responseChatItemId")
            seen += [for_provider(role, _stored(content)) for role, content in history.messages]
            seen.append(for_provider("user", self.question.content))
        else:
            seen += [for_provider(message.role, message.content) for message in request.messages]
        self.messages = seen

    async def answer(self) -> None:
        """Ask for the whole answer and record it."""
        with Admission(recorder.batcher) as admission:
            await self._reserve(admission)
            try:
                self.flight.check()
                await self._search()
                if self._is_unknown:
                    self.texts.append(self._empty_answer)
                else:
                    self._begin_chat()
                    self.flight.waiting = asyncio.current_task()
                    answer = await provider_calls.complete(self.app, self._payload(stream=False))
                    self.flight.waiting = None
                    self._take(answer)
                await self._record(admission, Outcome.COMPLETE)
            except asyncio.CancelledError:
                if not self.flight.is_cancelled_by_termination():
                    self._hand_over(admission, self._ending_of_leaving())
                    raise
                await self._record_failure(admission, self.flight.terminated_by)
            except ApiError as error:
                await self._record_failure(admission, error)
            except Exception:
                self.flight.waiting = None
                self._hand_over(admission, Outcome.FAILED, 500)
                raise

    async def stream(self) -> AsyncGenerator[list[str], None]:
        """Yield the answer's text as it comes; the end of the iteration means that it is recorded."""
        with Admission(recorder.batcher) as admission:
            await self._reserve(admission)
            flight = self.flight
            try:
                flight.check()
                await self._search()
                async with aclosing(self._said()) as said:
                    async for texts in said:
                        yield texts
                await self._record(admission, Outcome.COMPLETE)
            except asyncio.CancelledError:
                if not flight.is_cancelled_by_termination():
                    self._hand_over(admission, self._ending_of_leaving())
                    raise
                await self._record_failure(admission, flight.terminated_by)
            except GeneratorExit:
                self._hand_over(admission, self._ending_of_leaving())
                raise
            except ApiError as error:
                await self._record_failure(admission, error)
            except Exception:
                self.flight.waiting = None
                self._hand_over(admission, Outcome.FAILED, 500)
                raise

    async def _said(self) -> AsyncGenerator[list[str], None]:
        """The texts as they come: the app's own where its datasets say nothing, otherwise the model's."""
        if self._is_unknown:
            self.texts.append(self._empty_answer)
            yield [self._empty_answer]
            return
        flight = self.flight
        self._begin_chat()
        async with aclosing(provider_calls.stream(self.app, self._payload(stream=True))) as answers:
            flight.waiting = asyncio.current_task()
            async for batch in answers:
                texts = [text for answer in batch if (text := self._take(answer))]
                if texts:
                    flight.waiting = None
                    yield texts
                    flight.check()
                    flight.waiting = asyncio.current_task()
            flight.waiting = None

    def response_data(self) -> list[dict[str, Any]]:
        """What each step did, as `detail` shows it and as it is stored with the answer."""
        steps = []
        if self.search is not None:
            steps.append({"moduleName": SEARCH_MODULE_NAME, "moduleType": "datasetSearchNode", **self.search.step()})
        if self.is_asked:
            steps.append(self._chat_step())
        return steps

    def _chat_step(self) -> dict[str, Any]:
        usage = self.usage
        preview = [
            {"obj": OBJECTS[message["role"]], "value": _preview(message["content"])} for message in self.messages
        ]
        seconds = time.monotonic() - self.started - (self.search.seconds if self.search else 0)
        return {
            "moduleName": MODULE_NAME,
            "moduleType": "chatNode",
            "runningTime": round(seconds, 2),
            "totalPoints": self.app.cost(usage["prompt_tokens"], usage["completion_tokens"]) / 1_000_000,
            "model": self.app.model,
            "inputTokens": usage["prompt_tokens"],
            "outputTokens": usage["completion_tokens"],
            "query": text_of(self.question.content),
            "historyPreview": [*preview, {"obj": "AI", "value": _preview(self.content)}],
        }

    async def _search(self) -> None:
        """Search the app's datasets, if it has any, and put what they say into what the model is asked."""
        knowledge, flight = self.app.knowledge, self.flight
        if knowledge is None:
            return
        self.steps.append(SEARCH_MODULE_NAME)
        flight.waiting = asyncio.current_task()
        self.search = await knowledge.search(words_of(self.question.content))
        flight.waiting = None
        if self.search.quotes:
            self.messages = self._quoting(knowledge.written(self.search.quotes))

    def _quoting(self, quotes: str) -> list[dict[str, Any]]:
        """The messages with these quotes around the question. The app has datasets."""
        assert self.app.knowledge is not None  # noqa: S101 - see above
        prompt = self.app.knowledge.prompt(self.question.content, quotes, self.variables)
        place = max(number for number, message in enumerate(self.messages) if message["role"] == "user")
        return [*self.messages[:place], for_provider("user", prompt), *self.messages[place + 1 :]]

    @property
    def _empty_answer(self) -> str:
        return self.app.knowledge.empty_answer if self.app.knowledge else ""

    @property
    def _is_unknown(self) -> bool:
        """Whether the datasets say nothing, and the app has an answer for that."""
        return self.search is not None and not self.search.quotes and bool(self._empty_answer)

    def _begin_chat(self) -> None:
        self.steps.append(MODULE_NAME)
        self.is_asked = True

    async def _reserve(self, admission: Admission) -> None:
        """Ask the limits, if there are any. Raises RateLimited or InsufficientQuota; nothing is recorded then."""
        caller, app, policy = self.caller, self.app, self.caller.policy
        if policy is None or not policy.has_limits:
            return
        prompt = self._prompt_bound()
        request = ReservationRequest(
            id=caller.request_id,
            team_id=policy.team_id,
            key_id=policy.key_id,
            app_id=app.app_id,
            endpoint=caller.endpoint,
            model=app.model,
            prompt_tokens=prompt,
            tokens=prompt + self.max_tokens,
            prompt_micropoints=app.cost(prompt, 0),
            micropoints=app.cost(prompt, self.max_tokens),
            prompt_price=app.prompt_price,
            completion_price=app.completion_price,
        )
        nothing = {"prompt_tokens": 0, "completion_tokens": 0}
        decision = await admission.reserve(request, lambda: (self._usage(Outcome.CANCELLED, 503, nothing), None))
        caller.trace.request, caller.trace.decision = request, decision
        decision.check(policy)

    def _prompt_bound(self) -> int:
        """Before the datasets are searched: a key that has used up its limits searches nothing either."""
        if self.app.knowledge is None:
            return token_bound(self.messages)
        return token_bound(self._quoting("")) + self.app.knowledge.max_bytes

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
            asked = {name: getattr(self.request, name) for name in OVERRIDABLE}
            payload |= {name: value for name, value in asked.items() if value is not None}
        return payload

    def _take(self, answer: ProviderAnswer) -> str:
        """Add a whole answer or a chunk to what there is; return its text."""
        if self.first_byte_at is None:
            self.first_byte_at = time.monotonic()
        self.reported = answer.usage or self.reported
        if not answer.choices:
            return ""
        choice = answer.choices[0]
        if choice.finish_reason:
            self.finish_reason = finish_reason_of(choice.finish_reason)
        said = choice.message or choice.delta
        text = storable(said.content or "") if said is not None else ""
        if text:
            self.texts.append(text)
            self.length += len(text)
            if self.length > provider_calls.MAX_ANSWER_BYTES:
                raise UpstreamError("The model's answer is too long.")
        return text

    def _ending_of_leaving(self) -> Outcome:
        """One whose reader held up its cut was dropped, and did not leave."""
        return Outcome.CANCELLED if self.flight.terminated_by is None else Outcome.TERMINATED

    async def _record_failure(self, admission: Admission, error: ApiError | None) -> NoReturn:
        """Record what came of it until it failed or was cut, and raise why."""
        assert error is not None  # noqa: S101 - a cut has its reason
        self.flight.waiting = None
        status = 200 if self.texts and self.request.stream else error.status
        await self._record(
            admission, Outcome.FAILED if error is not self.flight.terminated_by else Outcome.TERMINATED, status
        )
        raise error

    async def _record(self, admission: Admission, outcome: Outcome, status: int = 200) -> None:
        handed_over = self._hand_over(admission, outcome, status)
        if handed_over is not None:
            await recorder.batcher.wait(handed_over)

    def _hand_over(self, admission: Admission, outcome: Outcome, status: int = 200) -> asyncio.Future[None] | None:
        """Give the record to the recorder, which writes it whatever becomes of the caller; None if it has it."""
        if not admission.is_open:
            return None
        charged = self.usage
        if outcome == Outcome.FAILED and self.first_byte_at is None:
            # The provider gave nothing: nothing is charged.
            charged = {"prompt_tokens": 0, "completion_tokens": 0}
        if self.caller.policy is None:
            admission.drop()
            self._log_trial(outcome, status, charged)
            return None
        self.caller.trace.usage = record = self._usage(outcome, status, charged)
        is_kept = outcome == Outcome.COMPLETE or (outcome in (Outcome.CANCELLED, Outcome.TERMINATED) and self.texts)
        future: asyncio.Future[None] = admission.record((record, self._exchange() if is_kept else None))
        return future

    def _log_trial(self, outcome: Outcome, status: int, tokens: dict[str, int]) -> None:
        fields = {
            "request_id": self.caller.request_id,
            "user_id": self.caller.trace.user_id,
            "team_id": self.app.team_id,
            "app_id": self.app.app_id,
            "model": self.app.model,
            "prompt_tokens": tokens["prompt_tokens"],
            "completion_tokens": tokens["completion_tokens"],
            "token_source": self.token_source.value,
            "status": status,
            "outcome": outcome.value,
        }
        logger.info("an app was tried", extra={"fields": fields})

    def _usage(self, outcome: Outcome, status: int, tokens: dict[str, int]) -> Usage:
        caller, policy = self.caller, self.caller.policy
        assert policy is not None  # noqa: S101 - only what a key asked for is recorded
        return Usage(
            id=caller.request_id,
            team_id=policy.team_id,
            key_id=policy.key_id,
            app_id=self.app.app_id,
            endpoint=caller.endpoint,
            model=self.app.model,
            prompt_tokens=tokens["prompt_tokens"],
            completion_tokens=tokens["completion_tokens"],
            token_source=self.token_source,
            cost_micropoints=self.app.cost(tokens["prompt_tokens"], tokens["completion_tokens"]),
            prompt_price=self.app.prompt_price,
            completion_price=self.app.completion_price,
            status=status,
            outcome=outcome,
            time_to_first_byte_ms=self._since_start(self.first_byte_at),
            duration_ms=self._since_start(time.monotonic()) or 0,
            client_address=caller.client_address,
        )

    def _exchange(self) -> recorder.Exchange | None:
        request = self.request
        if not request.chatId:
            return None
        return recorder.Exchange(
            chat_id=request.chatId,
            question_id=new_object_id(),
            question=self.question.content,
            answer_id=request.responseChatItemId or new_object_id(),
            answer=self.content,
            response_data=self.response_data(),
            custom_uid=request.customUid or "",
            metadata=request.metadata,
            variables=request.variables,
        )

    def _since_start(self, moment: float | None) -> int | None:
        return None if moment is None else round((moment - self.started) * 1000)


OBJECTS = {"system": "System", "user": "Human", "assistant": "AI"}
OVERRIDABLE = ("temperature", "top_p", "stop", "seed", "presence_penalty", "frequency_penalty", "user")


def _stored(content: Any) -> Content:
    """A message's content as it was kept. Nearly all are plain text, which needs no conversion."""
    return content if isinstance(content, str) else msgspec.convert(content, Content)


def _preview(content: Any) -> str:
    """Enough to recognize a message by. Whole ones are in the conversation."""
    text = content if isinstance(content, str) else text_of(content)
    return text if len(text) <= PREVIEW_LENGTH else text[: PREVIEW_LENGTH - 1] + "\u2026"
