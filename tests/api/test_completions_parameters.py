"""What becomes of each of OpenAI's parameters, and of each kind of part that a message may have."""

import json
import re
from typing import Any

import httpx2
import pytest
from openai.types.chat import completion_create_params

from apikeys.accounting.ledger import TokenSource
from chat.completions.completion import OVERRIDABLE
from chat.completions.provider_messages import IMAGE_TOKENS
from tests.conftest import Server
from tests.environment import PROJECT
from tests.support import factories
from tests.support.conversations import content_of, make_app, make_app_key, messages_of, record_of
from tests.support.fake_provider import FakeProvider
from tests.support.refusals import check_refusal

PATH = "/api/v1/chat/completions"
USER = {"role": "user", "content": "hi"}
OVERRIDES: dict[str, Any] = {
    "temperature": 0.25,
    "top_p": 0.5,
    "stop": ["a", "b"],
    "seed": 7,
    "presence_penalty": -1.5,
    "frequency_penalty": 2.0,
    "user": "ada",
    "logit_bias": {"5": -100.0},
    "reasoning_effort": "low",
    "service_tier": "flex",
    "verbosity": "low",
    "prediction": {"type": "content", "content": [{"type": "text", "text": "x"}]},
    "safety_identifier": "5f2",
    "prompt_cache_key": "k",
    "prompt_cache_options": {"mode": "explicit"},
    "prompt_cache_retention": "24h",
}
AUDIO = {"type": "input_audio", "input_audio": {"data": "UklGRg" * 1000, "format": "mp3"}}
FILE = {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0" * 1000, "filename": "a.pdf"}}
KNOWN_FILE = {"type": "file", "file": {"file_id": "file-abc"}}


def ask(server: Server, key: str, content: Any, **body: Any) -> httpx2.Response:
    return server.post(PATH, key, json={"messages": [{"role": "user", "content": content}], **body})


def test_every_parameter_is_documented() -> None:
    known = set(completion_create_params.CompletionCreateParamsBase.__annotations__) | {"stream"}
    assert len(known) > 30
    text = (PROJECT / "docs" / "api.md").read_text()
    section = text.split("## `POST v1/chat/completions`\n")[1].split("\n## ")[0]
    rows = "\n".join(line for line in section.splitlines() if line.startswith("| `"))
    assert known - set(re.findall(r"`(\w+)`", rows)) == set()


def test_what_an_app_may_let_requests_override(server: Server, provider: FakeProvider) -> None:
    assert set(OVERRIDES) == set(OVERRIDABLE)
    for can_override in (False, True):
        _, key = factories.make_key(app=make_app(provider, can_override=can_override, temperature=None))
        question = factories.unique("overrides")
        assert ask(server, key, question, **OVERRIDES).status_code == 200
        (call,) = provider.calls_about(question)
        passed_on = {name: call[name] for name in OVERRIDES if name in call}
        assert passed_on == (OVERRIDES if can_override else {})


def test_what_never_goes_to_the_provider(server: Server, provider: FakeProvider) -> None:
    _, key = factories.make_key(app=make_app(provider, can_override=True))
    question = factories.unique("ignored")
    ignored = {"store": True, "metadata": {"a": "b"}, "stream_options": {"include_obfuscation": True}, "top_k": 5}
    assert ask(server, key, question, **ignored).status_code == 200
    (call,) = provider.calls_about(question)
    assert set(call) == {"model", "messages", "max_tokens", "stream"}


@pytest.mark.parametrize(
    "fields",
    [
        {"audio": {"voice": "alloy", "format": "wav"}},
        {"modalities": ["text", "audio"]},
        {"modalities": ["audio"]},
        {"moderation": {"model": "omni-moderation-latest"}},
        {"web_search_options": {}},
    ],
)
def test_what_would_change_the_answers_form(server: Server, provider: FakeProvider, fields: dict[str, Any]) -> None:
    _, key = factories.make_key(app=make_app(provider, can_override=True))
    check_refusal(ask(server, key, "hi", **fields), "invalid_parameter", param=next(iter(fields)))


@pytest.mark.parametrize("name", sorted(set(OVERRIDES) - {"prediction", "prompt_cache_options", "logit_bias"}))
def test_wrong_values(server: Server, provider: FakeProvider, name: str) -> None:
    key = make_app_key(provider)
    for wrong in ({}, True):
        check_refusal(ask(server, key, "hi", **{name: wrong}), "invalid_parameter", param=name)
    if isinstance(OVERRIDES[name], str):
        long = check_refusal(ask(server, key, "hi", **{name: "x" * 1025}), "invalid_parameter", param=name)
        assert long == f"{name}: It must have at most 1024 characters."


def test_a_prediction_has_an_end(server: Server, provider: FakeProvider) -> None:
    prediction = {"type": "content", "content": "x" * 1024 * 1024}
    response = ask(server, make_app_key(provider), "hi", prediction=prediction)
    check_refusal(response, "invalid_parameter", param="prediction")


# --- parts


@pytest.mark.parametrize("parts", [[AUDIO], [FILE], [KNOWN_FILE], [AUDIO, FILE, KNOWN_FILE]])
def test_parts_are_passed_on_as_they_came(server: Server, provider: FakeProvider, parts: list[Any]) -> None:
    app = make_app(provider)
    _, key = factories.make_key(app=app)
    content = [{"type": "text", "text": factories.unique("parts")}, *parts]
    assert ask(server, key, content).status_code == 200
    assert ask(server, key, content, chatId="c").status_code == 200
    assert [call["messages"] for call in provider.calls_about(content[0]["text"])] == [
        [{"role": "user", "content": content}]
    ] * 2
    assert messages_of(app, "c")[0][1] == content
    # They are sent with the next question.
    assert content_of(server.ask(key, "and now?", chatId="c")) == "3 messages, the last: and now?"
    assert provider.calls_about(content[0]["text"])[-1]["messages"][0]["content"] == content


def test_an_assistant_that_refused(server: Server, provider: FakeProvider) -> None:
    key, question = make_app_key(provider), factories.unique("refused")
    refused = [
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "I will not."}]},
        {"role": "assistant", "content": None, "refusal": "I will not."},
    ]
    messages = [{"role": "user", "content": question}, *refused, {"role": "user", "content": "why?"}]
    assert server.post(PATH, key, json={"messages": messages}).status_code == 200
    assert provider.calls_about(question)[0]["messages"] == messages


@pytest.mark.parametrize(
    ("part", "tokens"), [(AUDIO, 16 + 6000 // 40), (FILE, 34_000 // 4), (KNOWN_FILE, IMAGE_TOKENS)]
)
def test_their_bounds_of_tokens(server: Server, provider: FakeProvider, part: dict[str, Any], tokens: int) -> None:
    key = make_app_key(provider, "no_usage")
    plain, with_part = (record_of(ask(server, key, [{"type": "text", "text": "x"}, *more])) for more in ([], [part]))
    assert with_part.token_source == TokenSource.BOUND
    assert tokens <= with_part.prompt_tokens - plain.prompt_tokens <= tokens * 1.05


@pytest.mark.parametrize(
    ("content", "param", "said"),
    [
        ([{"type": "smell"}], "messages[0].content[0].type", 'It cannot be "smell".'),
        ([{"type": "text", "text": "x"}, {"type": "input_video"}], "messages[0].content[1].type", "input_video"),
        ([{"text": "x"}], "messages[0].content[0].type", "It is missing."),
        ([{"type": 7}], "messages[0].content[0].type", "It must be a string."),
        (["x"], "messages[0].content[0]", "It must be an object."),
        ([{"type": "input_audio"}], "messages[0].content[0].input_audio", "It is missing."),
        ([{"type": "input_audio", "input_audio": {}}], "messages[0].content[0].input_audio.data", "It is missing."),
        ([{"type": "file", "file": "x"}], "messages[0].content[0].file", "It must be an object."),
        ([{"type": "file", "file": {"file_data": 7}}], "messages[0].content[0].file.file_data", "a string"),
        ([{"type": "image_url", "image_url": "x"}], "messages[0].content[0].image_url", "It must be an object."),
    ],
)
def test_parts_that_are_wrong(server: Server, provider: FakeProvider, content: Any, param: str, said: str) -> None:
    response = ask(server, make_app_key(provider), content)
    assert said in check_refusal(response, "invalid_parameter", param=param)


def test_their_names_count_as_text(server: Server, provider: FakeProvider) -> None:
    part = {"type": "file", "file": {"filename": "x" * 1024 * 1024 + "x"}}
    check_refusal(ask(server, make_app_key(provider), [part]), "invalid_parameter", param="messages")


def test_parts_of_an_app_with_datasets(server: Server, provider: FakeProvider) -> None:
    """Its datasets are searched for the text alone, and the rest of the question stays with it."""
    app = make_app(provider)
    app.datasets.add(factories.make_dataset(app.team))
    _, key = factories.make_key(app=app)
    text = factories.unique("parts")
    response = ask(server, key, [{"type": "text", "text": text}, FILE, AUDIO], detail=True)
    assert response.status_code == 200
    assert response.json()["responseData"][0]["query"] == text
    assert json.dumps(FILE) in json.dumps(provider.calls_about(text)[0]["messages"])
