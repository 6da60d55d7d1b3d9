"""Answers from an app's datasets: searched before the model is asked, quoted to it, shown, and what goes wrong."""

import contextlib
import http.client
import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from asgiref.sync import async_to_sync
from django.test import override_settings

from apikeys.accounting.ledger import Outcome, UsageRecord
from apikeys.accounting.limits import Counter, Limit
from apikeys.hot_path import broadcasts
from apikeys.outbound import client
from chat.models import App, Message, SearchMode
from datasets.data import NewDatum, insert
from datasets.models import Dataset, VectorSet
from datasets.search.retrieval import Mode
from datasets.vectors import sets
from tests.api.test_completions_leaving import PATH, recorded
from tests.conftest import Server
from tests.support import factories
from tests.support.conversations import content_of, events_of, make_app, messages_of, record_of, text_of
from tests.support.drift import drifted_since, newest_limit
from tests.support.fake_provider import FakeProvider
from tests.support.processes import wait_for
from tests.support.refusals import check_refusal

FILM = [
    NewDatum("《卧虎藏龙》的导演是谁？", "李安"),
    NewDatum("Who directed Crouching Tiger, Hidden Dragon?", "Ang Lee"),
    NewDatum("The music was written by Tan Dun."),
]
UNKNOWN = "这个我不知道。 I do not know."


@pytest.fixture(autouse=True)
def no_drift() -> Iterator[None]:
    """After each test counters and ledger agree, for every limit that it made."""
    before = newest_limit()
    yield
    wait_for(lambda: not drifted_since(before), "drift is 0")


def fill(dataset: Dataset, *items: NewDatum) -> Dataset:
    insert(factories.make_collection(dataset, name="film.md"), items)
    with override_settings(OUTBOUND_ALLOWED_NETWORKS=["127.0.0.0/8"]):
        async_to_sync(embed_all)(dataset.pk)
    return dataset


async def embed_all(dataset_id: str) -> None:
    await sets.embed_pending(dataset_id)
    await client.close()


def make_informed_app(provider: FakeProvider, *items: NewDatum, **fields: Any) -> App:
    """With a dataset of these items."""
    app = make_app(provider, **fields)
    app.datasets.add(fill(factories.make_dataset(app.team), *items))
    return app


def ask(server: Server, app: App, question: Any, **body: Any) -> httpx2.Response:
    return server.ask(factories.make_key(app=app)[1], question, **body)


def prompt_of(provider: FakeProvider, text: str) -> list[dict[str, Any]]:
    """The messages of the one call in which this text was."""
    (call,) = provider.calls_about(text)
    messages: list[dict[str, Any]] = call["messages"]
    return messages


@pytest.mark.parametrize(("question", "answer"), [("导演是谁？", "李安"), ("Who directed Crouching Tiger?", "Ang Lee")])
def test_it_works(server: Server, provider: FakeProvider, question: str, answer: str) -> None:
    app = make_informed_app(provider, *FILM, system_prompt="Be brief.", quote_template="{{index}}. {{q}} {{a}}")
    question = f"{question} {factories.unique('asked')}"
    response = ask(server, app, question, detail=True)
    assert content_of(response).startswith("2 messages")
    system, prompt = prompt_of(provider, question)
    assert system == {"role": "system", "content": "Be brief."}
    assert f"<Data>\n1. {next(item for item in FILM if item.a == answer).q} {answer}\n\n2. " in prompt["content"]
    assert prompt["content"].endswith(f"\n\nQuestion: {question}")
    search, chat = response.json()["responseData"]
    assert search.pop("runningTime") >= 0
    best, *_ = search.pop("quoteList")
    assert search == {
        "moduleName": "Dataset Search",
        "moduleType": "datasetSearchNode",
        "totalPoints": 0,
        "query": question,
        "inputTokens": 0,
        "similarity": 0.0,
        "limit": 1500,
        "searchMode": "embedding",
        "searchUsingReRank": False,
    }
    assert best.pop("score")[0]["type"] == "embedding"
    assert best["a"] == answer
    assert best["sourceName"] == "film.md"
    assert best["datasetId"] == app.datasets.get().pk
    assert chat["moduleType"] == "chatNode"
    assert chat["query"] == question
    assert record_of(response).prompt_tokens == 11


def test_modes_are_those_of_the_search() -> None:
    assert {str(mode) for mode in SearchMode} == {str(mode) for mode in Mode}


@pytest.mark.parametrize("mode", list(SearchMode))
def test_search_settings(server: Server, provider: FakeProvider, mode: SearchMode) -> None:
    app = make_informed_app(provider, *FILM, search_mode=mode, quote_limit=100, uses_rerank=True)
    search, _ = ask(server, app, "Who wrote the music?", detail=True).json()["responseData"]
    assert (search["searchMode"], search["limit"], search["searchUsingReRank"]) == (mode, 100, False)
    assert search["quoteList"][0]["q"] == FILM[2].q


def test_similarity(server: Server, provider: FakeProvider) -> None:
    app = make_informed_app(provider, *FILM, similarity=0.999)
    question = factories.unique("Who wrote the music?")
    search, _ = ask(server, app, question, detail=True).json()["responseData"]
    assert search["quoteList"] == []
    # Nothing is quoted, so the question is asked as it is.
    assert prompt_of(provider, question) == [{"role": "user", "content": question}]


def test_in_a_conversation(server: Server, provider: FakeProvider) -> None:
    """The model sees the quotes; what is kept is the question."""
    app = make_informed_app(provider, *FILM)
    _, key = factories.make_key(app=app)
    first, second = factories.unique("first"), factories.unique("second")
    assert content_of(server.ask(key, first, chatId="c")).startswith("1 messages")
    assert content_of(server.ask(key, second, chatId="c")).startswith("3 messages")
    earlier, answer, prompt = prompt_of(provider, second)
    assert (earlier["content"], answer["role"]) == (first, "assistant")
    assert "李安" in prompt["content"]
    assert [content for role, content, _ in messages_of(app, "c") if role == "user"] == [first, second]
    kept = Message.objects.filter(conversation__app=app, role="assistant").latest("pk")
    assert [step["moduleType"] for step in kept.response_data] == ["datasetSearchNode", "chatNode"]
    assert kept.response_data[0]["quoteList"][0]["q"]


def test_a_question_that_is_not_last(server: Server, provider: FakeProvider) -> None:
    app = make_informed_app(provider, *FILM)
    marker = factories.unique("marker")
    roles = [("user", marker), ("assistant", "yes?"), ("user", "导演是谁"), ("assistant", "Let me see:")]
    messages = [{"role": role, "content": content} for role, content in roles]
    assert content_of(ask(server, app, None, messages=messages)) == "4 messages, the last: Let me see:"
    seen = prompt_of(provider, marker)
    assert seen[0]["content"] == marker
    assert "李安" in seen[2]["content"]


def test_a_question_with_an_image(server: Server, provider: FakeProvider) -> None:
    app = make_informed_app(provider, *FILM)
    words = factories.unique("Who wrote the music?")
    image = {"type": "image_url", "image_url": {"url": "https://example.org/1.png"}}
    response = ask(server, app, [{"type": "text", "text": words}, image], detail=True)
    search, _ = response.json()["responseData"]
    assert search["query"] == words
    (message,) = prompt_of(provider, words)
    assert [part["type"] for part in message["content"]] == ["text", "image_url"]
    assert "Tan Dun" in message["content"][0]["text"]
    # Without any words there is nothing to search for.
    search, _ = ask(server, app, [image], detail=True).json()["responseData"]
    assert (search["query"], search["quoteList"]) == ("", [])


def test_templates(server: Server, provider: FakeProvider) -> None:
    """Names stand for what they name, once: what a text holds is no name."""
    app = make_informed_app(
        provider,
        NewDatum("{{question}} {{a}}", "{{quote}}"),
        quote_template="<{{index}} {{source}} {{q}}={{ a }} {{other}}>",
        quote_prompt="{{mood}} {{quote}}|{{ question }}",
    )
    question = factories.unique("{{quote}}")
    ask(server, app, question, variables={"mood": "kindly", "quote": "mine", "q": "mine"})
    (message,) = prompt_of(provider, question)
    assert message["content"] == f"kindly <1 film.md {{{{question}}}} {{{{a}}}}={{{{quote}}}} {{{{other}}}}>|{question}"


@pytest.mark.parametrize("dialect", ["4.14", "4.6"])
def test_streamed_detail(server: Server, provider: FakeProvider, dialect: str) -> None:
    app = make_informed_app(provider, *FILM, dialect=dialect)
    events = events_of(ask(server, app, "导演是谁", stream=True, detail=True).text)
    begun, ended = {"4.14": ("flowNodeStatus", "flowResponses"), "4.6": ("moduleStatus", "appStreamResponse")}[dialect]
    assert events[:2] == [
        (begun, {"status": "running", "name": "Dataset Search"}),
        (begun, {"status": "running", "name": "AI Chat"}),
    ]
    assert events[2][0] == "answer"
    assert "李安" in text_of(events)
    ((search, chat),) = [data for name, data in events if name == ended]
    assert (search["moduleType"], chat["moduleType"]) == ("datasetSearchNode", "chatNode")
    assert search["quoteList"][0]["a"] == "李安"


def test_streamed_without_detail(server: Server, provider: FakeProvider) -> None:
    events = events_of(ask(server, make_informed_app(provider, *FILM), "导演是谁", stream=True).text)
    assert {name for name, _ in events} == {None}
    assert "李安" in text_of(events)
    assert events[-1] == (None, "[DONE]")


def test_an_image_that_no_model_saw_costs_nothing(server: Server, provider: FakeProvider) -> None:
    app = make_informed_app(provider, empty_answer=UNKNOWN)
    type(app.model).objects.filter(pk=app.model_id).update(image_price=5_000)
    _, key = factories.make_key(app=app)
    picture = {"type": "image_url", "image_url": {"url": "https://pictures.example/1.png"}}
    content = [{"type": "text", "text": factories.unique("nothing")}, picture]
    response = server.ask(key, messages=[{"role": "user", "content": content}])
    assert content_of(response) == UNKNOWN
    assert (record_of(response).cost_micropoints, record_of(response).details) == (0, None)


@pytest.mark.parametrize("stream", [False, True])
def test_nothing_found(server: Server, provider: FakeProvider, stream: bool) -> None:
    """The app's own answer is given, no model is asked, and nothing is charged but the request."""
    app = make_informed_app(provider, empty_answer=UNKNOWN)
    factories.set_prices(factories.provider_of(app), app.model.name, 1000, 1000)
    api_key, key = factories.make_key(app=app)
    limits = {name: make_limit(api_key, name, 100_000) for name in ("requests", "tokens", "micropoints")}
    question = factories.unique("nothing")
    response = server.ask(key, question, stream=stream, detail=True, chatId="c", stream_options={"include_usage": True})
    if stream:
        events = events_of(response.text)
        assert [data["name"] for name, data in events if name == "flowNodeStatus"] == ["Dataset Search"]
        assert text_of(events) == UNKNOWN
        (steps,) = [data for name, data in events if name == "flowResponses"]
        (usage,) = [data["usage"] for _, data in events if isinstance(data, dict) and data.get("usage")]
        assert events[-1] == ("answer", "[DONE]")
    else:
        assert content_of(response) == UNKNOWN
        steps, usage = response.json()["responseData"], response.json()["usage"]
    (step,) = steps
    assert (step["moduleType"], step["quoteList"]) == ("datasetSearchNode", [])
    assert usage == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    record = record_of(response)
    assert (record.status, record.outcome, record.prompt_tokens, record.completion_tokens, record.cost_micropoints) == (
        *(200, Outcome.COMPLETE),
        *(0, 0, 0),
    )
    assert {name: used(limit) for name, limit in limits.items()} == {"requests": 1, "tokens": 0, "micropoints": 0}
    assert messages_of(app, "c") == [("user", question, "complete"), ("assistant", UNKNOWN, "complete")]
    assert provider.calls_about(question) == []


def make_limit(api_key: Any, measure: str, amount: int) -> Limit:
    return Limit.objects.create(team=api_key.team, key=api_key, measure=measure, period="day", amount=amount)


def used(limit: Limit) -> int:
    counter = Counter.objects.get(limit=limit)
    assert counter.reserved == 0
    return counter.used


def test_something_found_with_an_empty_answer(server: Server, provider: FakeProvider) -> None:
    app = make_informed_app(provider, *FILM, empty_answer=UNKNOWN)
    assert "李安" in content_of(ask(server, app, "导演是谁"))


def test_two_datasets(server: Server, provider: FakeProvider) -> None:
    app = make_informed_app(provider, FILM[0])
    app.datasets.add(fill(factories.make_dataset(app.team), FILM[2]))
    search, _ = ask(server, app, "导演是谁", detail=True).json()["responseData"]
    assert {quote["datasetId"] for quote in search["quoteList"]} == {dataset.pk for dataset in app.datasets.all()}


def test_a_change_is_heard_of(server: Server, provider: FakeProvider) -> None:
    app = make_informed_app(provider, FILM[0])
    _, key = factories.make_key(app=app)
    dataset = app.datasets.get()

    def steps() -> list[str]:
        return [step["moduleType"] for step in server.ask(key, "导演是谁", detail=True).json()["responseData"]]

    assert steps() == ["datasetSearchNode", "chatNode"]
    app.datasets.clear()
    wait_for(lambda: steps() == ["chatNode"], "that it has no datasets any more", seconds=2)
    dataset.delete()
    app.datasets.add(fill(factories.make_dataset(app.team), FILM[1]))
    wait_for(lambda: steps() == ["datasetSearchNode", "chatNode"], "the new dataset", seconds=2)


def test_quotes_are_bounded(server: Server, provider: FakeProvider) -> None:
    """A quote that is too large alone is cut to its beginning; whatever is kept of it is bounded as well."""
    app = make_informed_app(provider, NewDatum("长" * 5_000, "尾" * 3_000), quote_limit=100)
    marker = factories.unique("marker")
    ask(server, app, f"长长长 {marker}", chatId="c")
    (message,) = prompt_of(provider, marker)
    assert 100 <= message["content"].count("长") <= 140
    assert "尾" not in message["content"]
    kept = Message.objects.get(conversation__app=app, role="assistant")
    (quote,) = kept.response_data[0]["quoteList"]
    assert 100 <= len(quote["q"]) <= 140
    assert quote["a"] == ""


def test_reserved_is_what_the_quotes_may_take(server: Server, provider: FakeProvider) -> None:
    """Asked before the search: a prompt that its quotes could make too large is refused, and nothing is searched."""
    app = make_informed_app(provider, *FILM, quote_limit=100, max_tokens=50, model="no_usage")
    api_key, key = factories.make_key(app=app)
    limit = make_limit(api_key, "tokens", 450)
    check_refusal(server.ask(key, "导演是谁"), "insufficient_quota")
    Limit.objects.filter(pk=limit.pk).update(amount=1_000)
    response = wait_for(lambda: answered(server.ask(key, "导演是谁")), "the larger limit is heard of")
    # Without the provider's count the bound counts, now of what was really quoted.
    assert 250 < record_of(response).prompt_tokens < 900
    assert used(limit) == record_of(response).prompt_tokens + record_of(response).completion_tokens


def answered(response: httpx2.Response) -> httpx2.Response | None:
    return response if response.status_code == 200 else None


def test_who_is_over_limits_searches_nothing(server: Server, provider: FakeProvider) -> None:
    app = make_provided_app(provider)
    api_key, key = factories.make_key(app=app)
    make_limit(api_key, "requests", 0)
    question = factories.unique("free search")
    check_refusal(server.ask(key, question), "insufficient_quota")
    assert searched(provider, question) == 0


def make_provided_app(provider: FakeProvider, behavior: str = "embed", **fields: Any) -> App:
    """Its dataset's vectors come from a provider that, when all were made, behaves as said."""
    app = make_app(provider, **fields)
    app.datasets.add(fill(factories.make_dataset(app.team, factories.provider_of(app), "embed"), *FILM))
    VectorSet.objects.filter(dataset__in=app.datasets.all()).update(model=behavior)
    return app


def searched(provider: FakeProvider, question: str) -> int:
    return sum(question in call["input"] for call in provider.embedded)


def test_vectors_of_a_provider(server: Server, provider: FakeProvider) -> None:
    app = make_provided_app(provider)
    question = factories.unique("a question")
    search, _ = ask(server, app, question, detail=True).json()["responseData"]
    assert len(search["quoteList"]) == 3
    assert search["inputTokens"] == 3
    assert searched(provider, question) == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("behavior", ["status_500", "html", "half", "embed_nan", "embed_fewer"])
def test_a_search_that_fails(server: Server, provider: FakeProvider, behavior: str, stream: bool) -> None:
    app = make_provided_app(provider, behavior)
    api_key, key = factories.make_key(app=app)
    limit = make_limit(api_key, "tokens", 100_000)
    question = factories.unique("failing")
    response = server.ask(key, question, stream=stream, detail=True, chatId="c")
    check_refusal(response, "upstream_error")
    record = record_of(response)
    assert (record.status, record.outcome, record.prompt_tokens) == (502, Outcome.FAILED, 0)
    assert used(limit) == 0
    assert messages_of(app, "c") == []
    assert provider.calls_about(question) == []


def test_a_search_that_takes_too_long(server: Server, provider: FakeProvider) -> None:
    app = make_provided_app(provider, "never", limits={"total_seconds": 1})
    response = ask(server, app, factories.unique("slow"))
    check_refusal(response, "upstream_timeout")
    assert record_of(response).outcome == Outcome.FAILED


@pytest.mark.parametrize("stream", [False, True])
def test_a_caller_who_leaves_the_search(server: Server, provider: FakeProvider, stream: bool) -> None:
    app = make_provided_app(provider, "never")
    with searching(server, provider, app, stream=stream) as (api_key, connection):
        connection.close()
        record = wait_for(lambda: UsageRecord.objects.filter(key=api_key).first(), "it is recorded")
    assert (record.outcome, record.prompt_tokens, record.cost_micropoints) == (Outcome.CANCELLED, 0, 0)


@pytest.mark.parametrize("stream", [False, True])
def test_a_search_that_is_cut(server: Server, provider: FakeProvider, stream: bool) -> None:
    app = make_provided_app(provider, "never")
    with searching(server, provider, app, stream=stream) as (_, connection):
        App.objects.filter(pk=app.pk).update(archived_at=app.created_at)
        broadcasts.broadcast(terminated_app=app.pk)
        answer = connection.getresponse()
        assert answer.status == 404
        assert json.loads(answer.read())["error"]["code"] == "appUnExist"
        record = recorded(answer.getheader("x-request-id") or "")
    assert (record.outcome, record.prompt_tokens) == (Outcome.TERMINATED, 0)


@contextlib.contextmanager
def searching(
    server: Server, provider: FakeProvider, app: App, *, stream: bool
) -> Iterator[tuple[Any, http.client.HTTPConnection]]:
    """A completion whose search is under way."""
    api_key, key = factories.make_key(app=app)
    question = factories.unique("under way")
    body = json.dumps({"messages": [{"role": "user", "content": question}], "stream": stream})
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        connection.request("POST", PATH, body, {"Authorization": f"Bearer {key}"})
        wait_for(lambda: searched(provider, question), "the search")
        yield api_key, connection


@pytest.mark.parametrize("question", ["\0", "\u202e\u200f", "a" * 200_000, "'; DROP TABLE chat_app; --", "{{a}}", "  "])
def test_odd_questions(server: Server, provider: FakeProvider, question: str) -> None:
    app = make_informed_app(provider, *FILM, search_mode="mixedRecall")
    search, _ = ask(server, app, question, detail=True).json()["responseData"]
    assert len(search["query"]) <= 8_000
