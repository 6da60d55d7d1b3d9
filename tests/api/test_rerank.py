"""`POST v1/rerank`: documents by their relevance, and what each call is recorded and charged with."""

import contextlib
import http.client
import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from apikeys.accounting.ledger import Outcome, TokenSource, UsageRecord
from apikeys.accounting.limits import Counter, Limit
from apikeys.hot_path import broadcasts
from apikeys.teams import Team
from tests.api.test_completions_leaving import recorded
from tests.conftest import Server
from tests.support import factories
from tests.support.conversations import record_of
from tests.support.drift import drifted_since, newest_limit
from tests.support.fake_provider import FakeProvider, Reply
from tests.support.processes import wait_for
from tests.support.refusals import check_refusal

PATH = "/api/v1/rerank"
DOCUMENTS = ["a long document", "short", "a middling one"]


@pytest.fixture(autouse=True)
def no_drift() -> Iterator[None]:
    """After each test counters and ledger agree, for every limit that it made."""
    before = newest_limit()
    yield
    wait_for(lambda: not drifted_since(before), "drift is 0")


def rerank(server: Server, key: str, model: str = "rerank", documents: Any = DOCUMENTS, **body: Any) -> httpx2.Response:
    return server.post(PATH, key, json={"model": model, "query": "what?", "documents": documents, **body})


def make_team_with(provider: FakeProvider, *models: str, limits: dict[str, int] | None = None) -> Team:
    """With a dataset for each of these rerank models of one provider."""
    team = factories.make_team()
    its_provider = factories.make_provider(team, provider.url, **(limits or {}))
    for model in models:
        factories.make_dataset(team, rerank_model=model, rerank_provider=its_provider)
    return team


def make_key(provider: FakeProvider, model: str = "rerank") -> str:
    return factories.make_key(make_team_with(provider, model))[1]


def make_limit(api_key: Any, measure: str, amount: int) -> Limit:
    return Limit.objects.create(team=api_key.team, key=api_key, measure=measure, period="day", amount=amount)


def used(limit: Limit) -> int:
    counter = Counter.objects.get(limit=limit)
    assert counter.reserved == 0
    return counter.used


def test_it_works(server: Server, provider: FakeProvider) -> None:
    team = make_team_with(provider, "rerank")
    factories.set_prices(team.providers.get(), "rerank", 500)
    api_key, key = factories.make_key(team)
    response = rerank(server, key)
    assert response.json() == {
        "id": response.headers["x-request-id"],
        "object": "list",
        "model": "rerank",
        "results": [
            {"index": 1, "relevance_score": 1 / 5},
            {"index": 2, "relevance_score": 1 / 14},
            {"index": 0, "relevance_score": 1 / 15},
        ],
        "usage": {"prompt_tokens": 15, "total_tokens": 15},
    }
    assert provider.reranked[-1] == {"model": "rerank", "query": "what?", "documents": DOCUMENTS}
    record = record_of(response)
    assert (record.key, record.app, record.endpoint, record.model) == (api_key, None, "rerank.create", "rerank")
    assert (record.prompt_tokens, record.completion_tokens, record.token_source) == (15, 0, TokenSource.PROVIDER)
    # 7.5, rounded up.
    assert (record.status, record.outcome, record.cost_micropoints) == (200, Outcome.COMPLETE, 8)


@pytest.mark.parametrize("root", ["/v1", "/api/openapi/v1"])
def test_its_other_paths(server: Server, provider: FakeProvider, root: str) -> None:
    body = {"model": "rerank", "query": "what?", "documents": DOCUMENTS}
    assert server.post(f"{root}/rerank/", make_key(provider), json=body).status_code == 200


def test_the_best_alone(server: Server, provider: FakeProvider) -> None:
    key = make_key(provider)
    assert [result["index"] for result in rerank(server, key, top_n=2).json()["results"]] == [1, 2]
    assert len(rerank(server, key, top_n=99).json()["results"]) == 3


def test_documents_are_returned(server: Server, provider: FakeProvider) -> None:
    documents = ["one more", {"text": "ob\0ject", "title": "ignored"}]
    key = make_key(provider)
    results = rerank(server, key, documents=documents, return_documents=True, top_n=None).json()["results"]
    assert [(result["index"], result["document"]) for result in results] == [
        (1, {"text": "ob\ufffdject"}),
        (0, {"text": "one more"}),
    ]
    assert "document" not in rerank(server, key, return_documents=False).json()["results"][0]


def test_the_most_documents(server: Server, provider: FakeProvider) -> None:
    key = make_key(provider)
    assert len(rerank(server, key, documents=["x"] * 1_000).json()["results"]) == 1_000
    check_refusal(rerank(server, key, documents=["x"] * 1_001), "invalid_parameter", param="documents")


def test_provider_that_counts_nothing(server: Server, provider: FakeProvider) -> None:
    """Then the bound counts: the query is read with each document."""
    response = rerank(server, make_key(provider, "rerank_uncounted"), "rerank_uncounted", ["abc", "导演"])
    record = record_of(response)
    assert (record.prompt_tokens, record.token_source) == (3 + 6 + 2 * (5 + 8), TokenSource.BOUND)
    assert response.json()["usage"]["total_tokens"] == 35


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "model"),
        ({"model": 1}, "model"),
        ({"model": "x" * 201}, "model"),
        ({"query": None}, "query"),
        ({"query": ""}, "query"),
        ({"query": "x" * 16_385}, "query"),
        ({"query": ["x"]}, "query"),
        ({"documents": None}, "documents"),
        ({"documents": []}, "documents"),
        ({"documents": "x"}, "documents"),
        ({"documents": [""]}, "documents[0]"),
        ({"documents": ["x", None]}, "documents[1]"),
        ({"documents": ["x", {"body": "y"}]}, "documents[1].text"),
        ({"documents": ["x", {"text": 1}]}, "documents[1].text"),
        ({"top_n": 0}, "top_n"),
        ({"top_n": "2"}, "top_n"),
        ({"return_documents": "yes"}, "return_documents"),
        ([], None),
    ],
)
def test_bad_input(server: Server, provider: FakeProvider, body: Any, param: str | None) -> None:
    api_key, key = factories.make_key(make_team_with(provider, "rerank"))
    if body:
        body = {"model": "rerank", "query": "what?", "documents": DOCUMENTS} | body
    check_refusal(server.post(PATH, key, json=body), "invalid_parameter", param=param)
    assert not UsageRecord.objects.filter(key=api_key).exists()


def test_a_body_that_is_nested_deeply(server: Server, provider: FakeProvider) -> None:
    raw = f'{{"model": "rerank", "query": "x", "documents": {"[" * 100_000}{"]" * 100_000}}}'
    check_refusal(server.post(PATH, make_key(provider), content=raw), "invalid_parameter", param="documents[0]")
    raw = f'{{"model": "rerank", "query": "x", "documents": ["x"], "more": {"[" * 100_000}{"]" * 100_000}}}'
    check_refusal(server.post(PATH, make_key(provider), content=raw), "invalid_parameter")


def test_who_may_not(server: Server, provider: FakeProvider) -> None:
    _, key = factories.make_key(app=factories.make_app(make_team_with(provider, "rerank")))
    check_refusal(rerank(server, key), "wrong_key_kind")
    check_refusal(server.post(PATH, json={}), "missing_api_key")


def test_models(server: Server, provider: FakeProvider) -> None:
    """One of another team looks like one that nobody has."""
    make_team_with(provider, "foreign")
    team = make_team_with(provider, "rerank", "jina-reranker-v2", "jina-reranker-v2")
    _, key = factories.make_key(team)
    message = check_refusal(rerank(server, key, "foreign"), "invalid_parameter", param="model")
    assert message == check_refusal(rerank(server, key, "absent"), "invalid_parameter", param="model")
    assert message == "model: Your team has no such rerank model. This API key may use: jina-reranker-v2, rerank."
    message = check_refusal(rerank(server, key, "jina-rerank-v2"), "invalid_parameter", param="model")
    assert message.endswith("Did you mean jina-reranker-v2?")
    # A model of embeddings is none of these.
    check_refusal(rerank(server, key, "wordllama-256"), "invalid_parameter", param="model")
    _, key = factories.make_key(team, allowed_models=["jina-reranker-v2"])
    message = check_refusal(rerank(server, key, "absent"), "model_not_allowed")
    assert message == "This API key may not use the model absent. This API key may use: jina-reranker-v2."
    _, key = factories.make_key()
    message = check_refusal(rerank(server, key, "x"), "invalid_parameter", param="model")
    assert message.endswith("There is no rerank model that this API key may use.")


def test_limits(server: Server, provider: FakeProvider) -> None:
    team = make_team_with(provider, "rerank")
    factories.set_prices(team.providers.get(), "rerank", 1_000_000)
    api_key, key = factories.make_key(team)
    requests, tokens = make_limit(api_key, "requests", 2), make_limit(api_key, "tokens", 100)
    points = make_limit(api_key, "micropoints", 1_000_000)
    response = rerank(server, key, documents=["one", "two"])
    assert response.status_code == 200, response.text
    assert "q=100," in response.headers["ratelimit-policy"]
    assert (used(requests), used(tokens), used(points)) == (1, 10, 10_000)
    # Its bound goes beyond the limit, so it is refused and costs nothing.
    message = check_refusal(rerank(server, key, documents=["x" * 78]), "insufficient_quota")
    assert message.endswith("may use 100 tokens a day; 90 are left, and this request asks for up to 91.")
    assert (used(requests), used(tokens), used(points)) == (1, 10, 10_000)
    assert rerank(server, key, documents=["x" * 77]).status_code == 200
    check_refusal(rerank(server, key, documents=["x"]), "insufficient_quota")
    assert (used(requests), used(tokens), used(points)) == (2, 15, 15_000)


@pytest.mark.parametrize(
    "behavior", ["status_401", "status_500", "html", "half", "nothing", "redirect", "rerank_fewer", "rerank_nan"]
)
def test_provider_that_fails(server: Server, provider: FakeProvider, behavior: str) -> None:
    api_key, key = factories.make_key(make_team_with(provider, behavior))
    limit = make_limit(api_key, "tokens", 1_000)
    response = rerank(server, key, behavior)
    message = check_refusal(response, "upstream_error")
    assert str(provider.port) not in message
    record = record_of(response)
    assert (record.status, record.outcome, record.prompt_tokens) == (502, Outcome.FAILED, 0)
    assert record.failure["what"]
    assert used(limit) == 0


def test_texts_that_the_provider_refuses(server: Server, provider: FakeProvider) -> None:
    said = {"detail": f"The query is too long, says {provider.url}"}
    provider.replies["strict"] = lambda body: Reply(json.dumps(said).encode(), status=422)
    response = rerank(server, make_key(provider, "strict"), "strict")
    assert check_refusal(response, "refused_by_provider") == "The query is too long, says ..."
    assert record_of(response).failure == {
        "what": "HTTP 422",
        "status": 422,
        "message": "The query is too long, says ...",
    }


def test_provider_that_is_busy(server: Server, provider: FakeProvider) -> None:
    provider.replies["busy"] = lambda body: Reply(b"{}", status=429, headers={"Retry-After": "7"})
    response = rerank(server, make_key(provider, "busy"), "busy")
    check_refusal(response, "upstream_busy")
    assert response.headers["retry-after"] == "7"


def test_provider_that_takes_too_long(server: Server, provider: FakeProvider) -> None:
    _, key = factories.make_key(make_team_with(provider, "never", limits={"total_seconds": 1}))
    response = rerank(server, key, "never")
    check_refusal(response, "upstream_timeout")
    assert record_of(response).outcome == Outcome.FAILED


@contextlib.contextmanager
def reranking(server: Server, provider: FakeProvider) -> Iterator[tuple[Any, http.client.HTTPConnection]]:
    """A call whose provider is being waited for."""
    api_key, key = factories.make_key(make_team_with(provider, "never"))
    query = factories.unique("under way")
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        body = json.dumps({"model": "never", "query": query, "documents": ["x"]})
        connection.request("POST", PATH, body, {"Authorization": f"Bearer {key}"})
        wait_for(lambda: any(call["query"] == query for call in provider.reranked), "the provider is asked")
        yield api_key, connection


def test_a_caller_who_leaves(server: Server, provider: FakeProvider) -> None:
    """The provider was asked, so the bound is charged."""
    with reranking(server, provider) as (api_key, connection):
        connection.close()
        record = wait_for(lambda: UsageRecord.objects.filter(key=api_key).first(), "it is recorded")
    assert record.outcome == Outcome.CANCELLED
    assert (record.prompt_tokens > 0, record.token_source) == (True, TokenSource.BOUND)


def test_a_call_that_is_cut(server: Server, provider: FakeProvider) -> None:
    with reranking(server, provider) as (api_key, connection):
        broadcasts.broadcast(terminated_keys=[api_key.pk], is_revoked=True)
        answer = connection.getresponse()
        assert answer.status == 401
        assert json.loads(answer.read())["error"]["code"] == "revoked_api_key"
        record = recorded(answer.getheader("x-request-id") or "")
    assert record.outcome == Outcome.TERMINATED
