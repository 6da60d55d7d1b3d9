"""`POST v1/embeddings`: vectors in OpenAI's form, and what each call is recorded and charged with."""

import base64
import contextlib
import http.client
import json
import struct
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest

from apikeys.accounting.ledger import Outcome, TokenSource, UsageRecord
from apikeys.accounting.limits import Counter, Limit
from apikeys.hot_path import broadcasts
from apikeys.teams import Team
from datasets.models import VectorSet
from datasets.texts import MAXIMUM_TOKENS, token_counts
from tests.api.test_completions_leaving import recorded
from tests.conftest import Server
from tests.support import factories
from tests.support.conversations import record_of
from tests.support.drift import drifted_since, newest_limit
from tests.support.fake_provider import FakeProvider, Reply, vector_of
from tests.support.processes import wait_for
from tests.support.refusals import check_refusal

PATH = "/api/v1/embeddings"
STATIC = "wordllama-256"


@pytest.fixture(autouse=True)
def no_drift() -> Iterator[None]:
    """After each test counters and ledger agree, for every limit that it made."""
    before = newest_limit()
    yield
    wait_for(lambda: not drifted_since(before), "drift is 0")


def embed(server: Server, key: str, texts: Any, model: str = STATIC, **body: Any) -> httpx2.Response:
    return server.post(PATH, key, json={"model": model, "input": texts, **body})


def vectors_of(response: httpx2.Response) -> list[list[float]]:
    assert response.status_code == 200, response.text
    data = response.json()["data"]
    assert [(item["object"], item["index"]) for item in data] == [("embedding", index) for index in range(len(data))]
    return [item["embedding"] for item in data]


def make_team_with(provider: FakeProvider, *models: str, limits: dict[str, int] | None = None) -> Team:
    """With a dataset for each of these models of one provider."""
    team = factories.make_team()
    its_provider = factories.make_provider(team, provider.url, **(limits or {}))
    for model in models:
        factories.make_dataset(team, its_provider, model)
    return team


def vectors_reply(body: dict[str, Any], dimension: int = 8) -> Reply:
    """Answer with a vector for each input, of texts as well as of token ids."""
    found = [vector_of(json.dumps(item), dimension) for item in body["input"]]
    data = [{"index": index, "embedding": vector} for index, vector in enumerate(found)]
    return Reply(json.dumps({"data": data, "usage": {"prompt_tokens": sum(map(tokens_in, body["input"]))}}).encode())


def tokens_in(item: str | list[int]) -> int:
    return 1 if isinstance(item, str) else len(item)


def make_limit(api_key: Any, measure: str, amount: int) -> Limit:
    return Limit.objects.create(team=api_key.team, key=api_key, measure=measure, period="day", amount=amount)


def used(limit: Limit) -> int:
    counter = Counter.objects.get(limit=limit)
    assert counter.reserved == 0
    return counter.used


def test_it_works(server: Server) -> None:
    """The static model needs no dataset, and its own tokenizer counts."""
    api_key, key = factories.make_key()
    texts = ["Who directed it?", "导演是谁"]
    response = embed(server, key, texts)
    vectors = vectors_of(response)
    assert [len(vector) for vector in vectors] == [256, 256]
    assert all(sum(number * number for number in vector) == pytest.approx(1) for vector in vectors)
    tokens = sum(token_counts(texts))
    body = response.json()
    assert (body["object"], body["model"]) == ("list", STATIC)
    assert body["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    record = record_of(response)
    assert (record.key, record.app, record.endpoint, record.model) == (api_key, None, "embeddings.create", STATIC)
    assert (record.prompt_tokens, record.completion_tokens, record.cost_micropoints) == (tokens, 0, 0)
    assert (record.status, record.outcome, record.token_source) == (200, Outcome.COMPLETE, TokenSource.PROVIDER)


def test_one_string(server: Server) -> None:
    _, key = factories.make_key()
    assert vectors_of(embed(server, key, "alone")) == vectors_of(embed(server, key, ["alone"]))


def test_base64(server: Server) -> None:
    _, key = factories.make_key()
    (numbers,) = vectors_of(embed(server, key, "one", encoding_format="float"))
    (raw,) = vectors_of(embed(server, key, "one", encoding_format="base64"))
    assert struct.unpack("<256f", base64.b64decode(raw)) == pytest.approx(numbers, abs=1e-6)


def test_openai_client(server: Server) -> None:
    _, key = factories.make_key()
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key) as client:
        answer = client.embeddings.create(model=STATIC, input=["one", "two"])
        assert [len(item.embedding) for item in answer.data] == [256, 256]
        assert answer.usage.prompt_tokens > 0
        with pytest.raises(openai.BadRequestError) as caught:
            client.embeddings.create(model="no-such-model", input="one")
    assert caught.value.param == "model"


def test_model_of_a_dataset(server: Server, provider: FakeProvider) -> None:
    team = make_team_with(provider, "embed")
    factories.set_prices(team.providers.get(), "embed", 500)
    _, key = factories.make_key(team)
    texts = [factories.unique("text") for _ in range(3)]
    response = embed(server, key, texts, "embed", user="ann", dimensions=None)
    for vector, text in zip(vectors_of(response), texts, strict=True):
        length = sum(number * number for number in vector_of(text)) ** 0.5
        assert vector == pytest.approx([number / length for number in vector_of(text)])
    assert response.json()["usage"] == {"prompt_tokens": 9, "total_tokens": 9}
    record = record_of(response)
    assert (record.prompt_tokens, record.token_source, record.prompt_price) == (9, TokenSource.PROVIDER, 500)
    # 4.5, rounded up.
    assert record.cost_micropoints == 5


def test_the_most_texts(server: Server, provider: FakeProvider) -> None:
    _, key = factories.make_key(make_team_with(provider, "embed"))
    texts = [f"{factories.unique('many')} {number}" for number in range(2_048)]
    response = embed(server, key, texts, "embed", encoding_format="base64")
    assert len(vectors_of(response)) == 2_048
    assert response.json()["usage"]["prompt_tokens"] == 3 * 2_048
    check_refusal(embed(server, key, ["x"] * 2_049, "embed"), "invalid_parameter", param="input")


def test_provider_that_counts_nothing(server: Server, provider: FakeProvider) -> None:
    """Then the bound counts, as it does for completions."""
    _, key = factories.make_key(make_team_with(provider, "embed_uncounted"))
    response = embed(server, key, ["abc", "导演"], "embed_uncounted")
    record = record_of(response)
    assert (record.prompt_tokens, record.token_source) == (3 + 6 + 2 * 4, TokenSource.BOUND)
    assert response.json()["usage"]["prompt_tokens"] == 17


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": "x"}, "model"),
        ({"model": STATIC}, "input"),
        ({"model": STATIC, "input": None}, "input"),
        ({"model": STATIC, "input": ""}, "input"),
        ({"model": STATIC, "input": []}, "input"),
        ({"model": STATIC, "input": ["x", ""]}, "input[1]"),
        ({"model": STATIC, "input": [[1, 2]]}, "input[0]"),
        ({"model": STATIC, "input": [1, 2]}, "input"),
        ({"model": STATIC, "input": ["x", [1, 2]]}, "input[1]"),
        ({"model": STATIC, "input": {"text": "x"}}, "input"),
        ({"model": STATIC, "input": True}, "input"),
        ({"model": STATIC, "input": ["x", None]}, "input[1]"),
        ({"model": STATIC, "input": ["x", {"text": ["]"]}]}, "input[1]"),
        ({"model": STATIC, "input": ["x", 1]}, "input[1]"),
        ({"model": STATIC, "input": [1, "x"]}, "input"),
        ({"model": STATIC, "input": [1.5]}, "input"),
        ({"model": STATIC, "input": [-1]}, "input"),
        ({"model": STATIC, "input": [[]]}, "input[0]"),
        ({"model": STATIC, "input": ["x", [1, [2]]]}, "input[1]"),
        ({"model": STATIC, "input": ["x", [2**31]]}, "input[1]"),
        ({"model": STATIC, "input": "x" * (1024 * 1024 + 1)}, "input"),
        ({"model": STATIC, "input": "x", "dimensions": 128}, "dimensions"),
        ({"model": STATIC, "input": "x", "dimensions": "256"}, "dimensions"),
        ({"model": STATIC, "input": "x", "encoding_format": "hex"}, "encoding_format"),
        ({"model": 1, "input": "x"}, "model"),
        ({"model": "", "input": "x"}, "model"),
        ({"model": "a\0b", "input": "x"}, "model"),
        ({"model": "x" * 201, "input": "x"}, "model"),
        ({"model": STATIC, "input": "x", "dimensions": 0}, "dimensions"),
        ({"model": STATIC, "input": "x", "dimensions": 16_001}, "dimensions"),
        ({"model": "gpt-4", "input": "x"}, "model"),
        ({"model": STATIC, "input": "x", "user": 1}, "user"),
        ([], None),
    ],
)
def test_bad_input(server: Server, body: Any, param: str | None) -> None:
    api_key, key = factories.make_key()
    check_refusal(server.post(PATH, key, json=body), "invalid_parameter", param=param)
    assert not UsageRecord.objects.filter(key=api_key).exists()


def test_dimensions_that_the_model_has(server: Server, provider: FakeProvider) -> None:
    team = make_team_with(provider, "embed")
    _, key = factories.make_key(team)
    assert len(vectors_of(embed(server, key, "x", dimensions=256))[0]) == 256
    # Not known before its first vector, so the provider is asked for them.
    text = factories.unique("dimensions")
    assert len(vectors_of(embed(server, key, text, "embed", dimensions=8))[0]) == 8
    VectorSet.objects.filter(dataset__team=team).update(dimension=8)
    assert len(vectors_of(embed(server, key, text, "embed", dimensions=8))[0]) == 8
    assert [call.get("dimensions") for call in provider.embedded if call["input"] == [text]] == [8, None]


def test_dimensions_are_passed_on(server: Server, provider: FakeProvider) -> None:
    provider.replies["shortening"] = lambda body: vectors_reply(body, body["dimensions"])
    _, key = factories.make_key(make_team_with(provider, "shortening", "embed"))
    (vector,) = vectors_of(embed(server, key, "x", "shortening", dimensions=3))
    assert len(vector) == 3
    assert sum(number * number for number in vector) == pytest.approx(1)
    # This provider does as if it had not been asked.
    response = embed(server, key, ["x", "y"], "embed", dimensions=3)
    message = check_refusal(response, "invalid_parameter", param="dimensions")
    assert message == "dimensions: The model's vectors have 8."
    assert (record_of(response).outcome, record_of(response).prompt_tokens) == (Outcome.FAILED, 6)


def test_token_ids(server: Server, provider: FakeProvider) -> None:
    """They are passed on as they came, and reserved by their number."""
    provider.replies["ids"] = lambda body: vectors_reply(body)
    api_key, key = factories.make_key(make_team_with(provider, "ids"))
    limit = make_limit(api_key, "tokens", 1_000)
    number = next(factories.numbers)
    lists = [[number, 1, 2], [3], [0, 2**31 - 1]]
    response = embed(server, key, lists, "ids")
    assert len(vectors_of(response)) == 3
    assert provider.embedded_by("ids")[-1] == lists
    assert record_of(response).limits[0]["requested"] == 6 + 3 * 4
    # A list of ids alone is one text.
    assert len(vectors_of(embed(server, key, lists[0], "ids", encoding_format="base64"))) == 1
    assert provider.embedded_by("ids")[-1] == [lists[0]]
    raw = f'{{"model": "ids", "input": [ [ {number} ,\n2 ] , "a text" ]}}'
    assert len(vectors_of(server.post(PATH, key, content=raw))) == 2
    assert provider.embedded_by("ids")[-1] == [[number, 2], "a text"]
    assert used(limit) == 6 + 3 + (2 + 1)


def test_a_thousand_texts_of_langchain(server: Server, provider: FakeProvider) -> None:
    """Its default is a thousand at a time, as token ids where it has a tokenizer."""
    provider.replies["langchain"] = lambda body: vectors_reply(body)
    _, key = factories.make_key(make_team_with(provider, "langchain"))
    ids = [[100_000 + number, *range(99_000, 99_999)] for number in range(1_000)]
    assert len(json.dumps(ids)) > 5 * 1024 * 1024
    assert len(vectors_of(embed(server, key, ids, "langchain"))) == 1_000
    assert [ids for call in provider.embedded_by("langchain") for ids in call] == ids
    texts = [f"{number} " + "text " * 800 for number in range(1_000)]
    assert len(vectors_of(embed(server, key, texts, "langchain"))) == 1_000
    assert len(vectors_of(embed(server, key, texts))) == 1_000


@pytest.mark.parametrize("field", ["input", "unknown"])
def test_a_body_that_is_nested_deeply(server: Server, field: str) -> None:
    _, key = factories.make_key()
    raw = f'{{"model": "{STATIC}", "input": "x", "{field}": {"[" * 100_000}{"]" * 100_000}}}'
    check_refusal(server.post(PATH, key, content=raw), "invalid_parameter")


def test_too_large(server: Server, provider: FakeProvider) -> None:
    api_key, key = factories.make_key(make_team_with(provider, "embed"))
    part = "x" * (1024 * 1024 - 1)
    check_refusal(embed(server, key, [part[:-1]] * 20, "embed"), "body_too_large")
    check_refusal(embed(server, key, ["x", part], "embed"), "invalid_parameter", param="input[1]")
    check_refusal(embed(server, key, [1] * 600_000, "embed"), "invalid_parameter", param="input")
    check_refusal(embed(server, key, ["x"] * 2_000_000, "embed"), "invalid_parameter", param="input")
    assert not UsageRecord.objects.filter(key=api_key).exists()
    assert len(vectors_of(embed(server, key, [part[:-1]] * 19, "embed"))) == 19


def test_texts_that_the_provider_refuses(server: Server, provider: FakeProvider) -> None:
    """Its words are the caller's to read, without what is not the caller's business."""
    secret = "sk-do-not-tell-0123456789"
    said = {"message": f"8192 tokens at most, says {provider.url} to {secret}", "code": "context_length_exceeded"}
    provider.replies["strict"] = lambda body: Reply(json.dumps({"error": said}).encode(), status=400)
    _, key = factories.make_key(make_team_with(provider, "strict"))
    response = embed(server, key, "x" * 200_000, "strict")
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "context_length_exceeded")
    assert error["message"] == "8192 tokens at most, says ... to ..."
    record = record_of(response)
    assert (record.status, record.outcome, record.prompt_tokens) == (400, Outcome.FAILED, 0)
    assert record.failure == {
        "what": "HTTP 400",
        "status": 400,
        "code": "context_length_exceeded",
        "message": error["message"],
    }


@pytest.mark.parametrize(("status", "code"), [(401, "upstream_error"), (404, "upstream_error"), (429, "upstream_busy")])
def test_what_is_not_the_fault_of_the_texts(server: Server, provider: FakeProvider, status: int, code: str) -> None:
    provider.replies["other"] = lambda body: Reply(b'{"error": {"message": "No.", "code": "no"}}', status=status)
    _, key = factories.make_key(make_team_with(provider, "other"))
    response = embed(server, key, "x", "other")
    assert "No." not in check_refusal(response, code)
    assert record_of(response).failure["message"] == "No."


@pytest.mark.parametrize("text", ["a\0b", "\u202eabc\u200f", "🎬" * 1000, " ", "x" * 30_000])
def test_odd_text(server: Server, text: str) -> None:
    _, key = factories.make_key()
    assert len(vectors_of(embed(server, key, [text, text]))) == 2


@pytest.mark.parametrize("text", ["word " * 8_192, " " * 200_000, "x" * 1_000_000])
def test_text_that_is_too_long_for_the_static_model(server: Server, text: str) -> None:
    api_key, key = factories.make_key()
    check_refusal(embed(server, key, text), "invalid_parameter", param="input")
    check_refusal(embed(server, key, ["x", "y", text]), "invalid_parameter", param="input[2]")
    assert not UsageRecord.objects.filter(key=api_key).exists()


def test_the_longest_text_of_the_static_model(server: Server) -> None:
    _, key = factories.make_key()
    text = "word " * 8_190
    assert token_counts([text]) == [MAXIMUM_TOKENS]
    assert embed(server, key, [text, *["x"] * 63]).json()["usage"]["total_tokens"] == MAXIMUM_TOKENS + 63 * 2
    check_refusal(embed(server, key, text + "word "), "invalid_parameter", param="input")


def test_a_provider_says_itself_what_is_too_long(server: Server, provider: FakeProvider) -> None:
    _, key = factories.make_key(make_team_with(provider, "embed"))
    assert len(vectors_of(embed(server, key, "x" * 200_000, "embed"))) == 1


def test_half_a_character(server: Server) -> None:
    _, key = factories.make_key()
    raw = b'{"model": "wordllama-256", "input": "a\\ud800"}'
    check_refusal(server.post(PATH, key, content=raw), "invalid_parameter")


def test_model_of_another_team(server: Server, provider: FakeProvider) -> None:
    """It looks like one that nobody has."""
    make_team_with(provider, "embed")
    _, key = factories.make_key()
    foreign = check_refusal(embed(server, key, "x", "embed"), "invalid_parameter", param="model")
    absent = check_refusal(embed(server, key, "x", "absent"), "invalid_parameter", param="model")
    assert foreign == absent
    assert foreign == f"model: Your team has no such embedding model. This API key may use: {STATIC}."


def test_a_name_that_is_nearly_right(server: Server, provider: FakeProvider) -> None:
    team = make_team_with(provider, "text-embedding-3-small", "bge-m3", *(f"m{number}" for number in range(12)))
    _, key = factories.make_key(team)
    message = check_refusal(embed(server, key, "x", "text-embeding-3-small"), "invalid_parameter", param="model")
    assert message.endswith("Did you mean text-embedding-3-small?")
    message = check_refusal(embed(server, key, "x", "gpt"), "invalid_parameter", param="model")
    assert message.endswith("This API key may use: bge-m3, m0, m1, m10, m11, m2, m3, m4, m5, m6 and 5 others.")
    # A key that lists models learns of those alone.
    _, key = factories.make_key(team, allowed_models=["bge-m3", "no-longer", "echo"])
    message = check_refusal(embed(server, key, "x", "text-embedding-3-small"), "model_not_allowed")
    assert message == "This API key may not use the model text-embedding-3-small. This API key may use: bge-m3."
    message = check_refusal(embed(server, key, "x", "echo"), "invalid_parameter", param="model")
    assert message.endswith("This API key may use: bge-m3.")
    _, key = factories.make_key(team, allowed_models=["echo"])
    message = check_refusal(embed(server, key, "x", "bge-m4"), "model_not_allowed")
    assert message.endswith("There is no embedding model that this API key may use.")


def test_allowed_models(server: Server) -> None:
    _, key = factories.make_key(allowed_models=["echo"])
    check_refusal(embed(server, key, "x"), "model_not_allowed")
    _, key = factories.make_key(allowed_models=["echo", STATIC])
    assert len(vectors_of(embed(server, key, "x"))) == 1


def test_limits(server: Server, provider: FakeProvider) -> None:
    team = make_team_with(provider, "embed")
    factories.set_prices(team.providers.get(), "embed", 1_000_000)
    api_key, key = factories.make_key(team)
    requests, tokens = make_limit(api_key, "requests", 2), make_limit(api_key, "tokens", 100)
    points = make_limit(api_key, "micropoints", 100_000)
    response = embed(server, key, "four", "embed")
    assert response.status_code == 200, response.text
    assert "q=100," in response.headers["ratelimit-policy"]
    assert (used(requests), used(tokens), used(points)) == (1, 3, 3_000)
    # Its bound goes beyond the limit, so it is refused and costs nothing.
    check_refusal(embed(server, key, "x" * 94, "embed"), "insufficient_quota")
    assert (used(requests), used(tokens), used(points)) == (1, 3, 3_000)
    assert embed(server, key, "x" * 93, "embed").status_code == 200
    check_refusal(embed(server, key, "x", "embed"), "insufficient_quota")
    assert (used(requests), used(tokens), used(points)) == (2, 6, 6_000)


@pytest.mark.parametrize(
    "behavior",
    ["status_401", "status_500", "html", "half", "nothing", "redirect", "embed_nan", "embed_zero", "embed_fewer"],
)
def test_provider_that_fails(server: Server, provider: FakeProvider, behavior: str) -> None:
    api_key, key = factories.make_key(make_team_with(provider, behavior))
    limit = make_limit(api_key, "tokens", 1_000)
    response = embed(server, key, ["one", "two"], behavior)
    message = check_refusal(response, "upstream_error")
    assert str(provider.port) not in message
    record = record_of(response)
    assert (record.status, record.outcome, record.prompt_tokens) == (502, Outcome.FAILED, 0)
    assert used(limit) == 0


@pytest.mark.parametrize(
    ("behavior", "tokens", "source"),
    [
        ("embed_poisoned", 64 * 3, TokenSource.PROVIDER),
        ("embed_poisoned_uncounted", 64 * (4 + 4), TokenSource.BOUND),
    ],
)
def test_provider_that_fails_in_the_middle(
    server: Server, provider: FakeProvider, behavior: str, tokens: int, source: TokenSource
) -> None:
    """The provider has answered the first 64, and the team pays it for them."""
    team = make_team_with(provider, behavior)
    factories.set_prices(team.providers.get(), behavior, 1_000_000)
    api_key, key = factories.make_key(team)
    limit, points = make_limit(api_key, "tokens", 10_000), make_limit(api_key, "micropoints", 10_000_000)
    response = embed(server, key, ["good"] * 100 + ["poison"], behavior)
    check_refusal(response, "refused_by_provider")
    record = record_of(response)
    assert (record.status, record.outcome) == (400, Outcome.FAILED)
    assert (record.prompt_tokens, record.token_source, record.cost_micropoints) == (tokens, source, tokens * 1_000)
    assert (used(limit), used(points)) == (tokens, tokens * 1_000)


def test_dimension_that_changes_in_the_middle(server: Server, provider: FakeProvider) -> None:
    _, key = factories.make_key(make_team_with(provider, "embed_changing"))
    check_refusal(embed(server, key, ["x"] * 100, "embed_changing"), "upstream_error")


def test_provider_that_takes_too_long(server: Server, provider: FakeProvider) -> None:
    _, key = factories.make_key(make_team_with(provider, "never", limits={"total_seconds": 1}))
    response = embed(server, key, "x", "never")
    check_refusal(response, "upstream_timeout")
    assert record_of(response).outcome == Outcome.FAILED


@contextlib.contextmanager
def embedding(server: Server, provider: FakeProvider) -> Iterator[tuple[Any, http.client.HTTPConnection]]:
    """A call whose provider is being waited for."""
    api_key, key = factories.make_key(make_team_with(provider, "never"))
    text = factories.unique("under way")
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        body = json.dumps({"model": "never", "input": text})
        connection.request("POST", PATH, body, {"Authorization": f"Bearer {key}"})
        wait_for(lambda: [text] in provider.embedded_by("never"), "the provider is asked")
        yield api_key, connection


def test_a_caller_who_leaves(server: Server, provider: FakeProvider) -> None:
    """The provider was asked, so the bound is charged."""
    with embedding(server, provider) as (api_key, connection):
        connection.close()
        record = wait_for(lambda: UsageRecord.objects.filter(key=api_key).first(), "it is recorded")
    assert record.outcome == Outcome.CANCELLED
    assert (record.prompt_tokens > 0, record.token_source) == (True, TokenSource.BOUND)


def test_a_call_that_is_cut(server: Server, provider: FakeProvider) -> None:
    with embedding(server, provider) as (api_key, connection):
        broadcasts.broadcast(terminated_keys=[api_key.pk], is_revoked=True)
        answer = connection.getresponse()
        assert answer.status == 401
        assert json.loads(answer.read())["error"]["code"] == "revoked_api_key"
        record = recorded(answer.getheader("x-request-id") or "")
    assert record.outcome == Outcome.TERMINATED
