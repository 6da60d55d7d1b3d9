"""The completion behind a response, and what it reads and leaves in its app's conversations."""

import asyncio
import re
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import msgspec

from apikeys.accounting.ledger import Outcome
from apikeys.errors import InvalidParameter, ResponseNotFound
from apikeys.object_ids import new_object_id
from chat.completions import attachments, fastgpt_steps, histories, recorder
from chat.completions.completion import Completion
from chat.completions.provider_messages import replay_message
from chat.completions.request import ChatMessage, read_content
from chat.completions.tool_calls import calls_in
from chat.completions.turns import StoredMessage, check_results, store_result, whole_turns
from chat.responses import ids, references, stored_answers
from chat.responses.request import TranslatedRequest, input_messages

# What a refusal may name, as the caller spelled it.
SPELLINGS = {"messages": "input", "response_format": "text.format"}
# No app shows more of a conversation to its model.
MAX_STORED_MESSAGES = histories.MAX_TURN_MESSAGES
# Those that are referred to may be large, and are checked before there are more.
ANSWERS_AT_ONCE = 16


@dataclass(slots=True)
class ResponseCompletion(Completion):
    request: TranslatedRequest

    @property
    def id(self) -> str:
        return ids.response_id(self.tail)

    @property
    def tail(self) -> str:
        """Return what the ids of the response and of its items have in common."""
        return ids.next_tail(self.request.response.previous_response_id, self.caller.request_id)

    async def prepare(self) -> None:
        previous_id = self.request.response.previous_response_id
        try:
            if self.request.has_references:
                await self._resolve_references()
            await Completion.prepare(self)
            if previous_id is not None:
                await self._go_on(previous_id)
        except InvalidParameter as error:
            raise _spell(error) from None

    async def _resolve_references(self) -> None:
        request = self.request
        answers: dict[ids.Place, StoredMessage | None] = {}
        places = references.places_in(request.items)
        for start in range(0, len(places), ANSWERS_AT_ONCE):
            some = places[start : start + ANSWERS_AT_ONCE]
            found = await asyncio.gather(*(self._find_answer(place, is_read=True) for place in some))
            answers |= {place: answer and answer.message for place, answer in zip(some, found, strict=True)}
            references.check_size(len(answer.content) for answer in answers.values() if answer is not None)
        items = references.resolve(request.items, answers)
        self.request = msgspec.structs.replace(request, items=items, messages=input_messages(request.response, items))

    async def _go_on(self, previous_id: str) -> None:
        """Put the conversation of the previous response before what is said now."""
        place = ids.find_response(previous_id)
        answer = None if place is None else await self._find_answer(place)
        if place is None or answer is None:
            raise ResponseNotFound(param="previous_response_id")
        results = [store_result(said) for said in takewhile(lambda said: said.role == "tool", self.request.said)]
        history = await histories.batcher.submit(
            histories.HistoryRequest(
                self.app.app_id, place.chat_id, self.app.history_length, None, is_continuing=bool(results)
            )
        )
        if answer.key != answer.latest_key or history.latest_id not in (None, answer.key):
            raise InvalidParameter(
                "previous_response_id: It is not the latest response of its conversation, and there are no branches.",
                param="previous_response_id",
            )
        check_results(history.messages, results, 0)
        self.called_by = answer.key
        turns = _earlier_turns(history.messages, results)
        start = len(self.messages) - len(self.request.said)
        self.messages[start : start + len(results)] = map(replay_message, turns)
        if not any(message.role == "user" for message in self.request.said):
            self.question = read_content(next(turn.content for turn in reversed(turns) if turn.role == "user"))

    async def _find_answer(self, place: ids.Place, *, is_read: bool = False) -> stored_answers.StoredAnswer | None:
        return await stored_answers.batcher.submit(stored_answers.AnswerRequest(self.app.app_id, place, is_read))

    def _build_exchange(self, outcome: Outcome) -> recorder.Exchange | None:
        request = self.request.response
        if request.store is False:
            return None
        is_question = self.called_by is None and len(self.request.said) == 1
        return recorder.Exchange(
            chat_id=ids.response_id(self.tail[: len(self.caller.request_id)]),
            question_id=new_object_id(),
            question=attachments.for_storage(self.question) if is_question else None,
            results=None if is_question else _to_store(self.request.said[-MAX_STORED_MESSAGES:]),
            called_by=self.called_by,
            answer_id=self.caller.request_id,
            answer=self.content,
            # Calls that broke off cannot be made.
            extras=self._extras_to_store() if outcome == Outcome.COMPLETE else None,
            response_data=fastgpt_steps.response_data(self),
            metadata=request.metadata,
            variables=request.variables,
        )

    def _extras_to_store(self) -> dict[str, Any] | None:
        """Return the calls of the answer with the ids that the caller has seen, and its refusal."""
        extras = self.answer_extras
        calls = [
            {
                "id": call.id or ids.call_id(self.tail, number),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for number, call in enumerate(calls_in(extras))
        ]
        found = {"tool_calls": calls, "refusal": extras.get("refusal")}
        return {name: value for name, value in found.items() if value} or None


def _earlier_turns(history: list[StoredMessage], results: list[StoredMessage]) -> list[StoredMessage]:
    """Return what the model sees of a conversation, and the results that go on with its latest turn."""
    # A conversation may begin with these, before its first turn.
    system = [*takewhile(lambda message: message.role == "system", history)]
    rest = [*history[len(system) :], *results]
    turns = whole_turns(rest) if rest else []
    if results and (not turns or turns[-1] is not results[-1]):
        raise InvalidParameter("input: The turn that it goes on with is too long.", param="input")
    return [*system, *turns]


def _to_store(messages: list[ChatMessage]) -> list[recorder.Result]:
    question = next((message for message in reversed(messages) if message.role == "user"), None)
    stored = []
    for message in messages:
        # The two are the same, and conversations know the one.
        role = "system" if message.role == "developer" else message.role
        # Images of earlier messages were seen once, and have no room.
        room = attachments.MAX_STORED_BYTES if message is question else 0
        content = attachments.for_storage(message.content or "", room)
        stored.append(recorder.Result(new_object_id(), role, content, message.extras or None))
    return stored


def _spell(error: InvalidParameter) -> InvalidParameter:
    """Return a refusal that names what the caller sent."""
    named = error.param or ""
    name = SPELLINGS.get(re.split(r"[.\[]", named)[0])
    if name is None:
        return error
    return InvalidParameter(f"{name}: {error.message.removeprefix(named).removeprefix(': ')}", param=name)
