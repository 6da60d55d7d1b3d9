"""`POST v1/chat/completions`: what it answers, in each form, and what it leaves behind."""

from typing import Any

import openai
import pytest

from apikeys.accounting.ledger import KeyActivity, Outcome, TokenSource, UsageRecord
from chat.models import Conversation, Dialect, Message
from tests.conftest import Server
from tests.support import factories
from tests.support.conversations import content_of, events_of, make_app, make_app_key, messages_of, record_of, text_of
from tests.support.fake_provider import FakeProvider
from tests.support.refusals import check_refusal


def test_it_works(server: Server, provider: FakeProvider) -> None:
    app = make_app(provider)
    _, key = factories.make_key(app=app)
    response = server.ask(key, "hello", chatId="111", stream=False, detail=False)
    body = response.json()
    created = body.pop("created")
    assert abs(created - Conversation.objects.get(app=app).created_at.timestamp()) < 60
    assert body == {
        "id": "111",
        "object": "chat.completion",
        "model": "echo",
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "1 messages, the last: hello"},
                "finish_reason": "stop",
            }
        ],
    }


def test_detail(server: Server, provider: FakeProvider) -> None:
    key = make_app_key(provider)
    body = server.ask(key, "hello", detail=True, variables={"city": "Paris"}).json()
    assert body["choices"][0]["message"]["content"] == "1 messages, the last: hello"
    assert body["newVariables"] == {"city": "Paris"}
    (step,) = body["responseData"]
    assert step.pop("runningTime") >= 0
    assert step == {
        "moduleName": "AI Chat",
        "moduleType": "chatNode",
        "totalPoints": 0,
        "model": "echo",
        "inputTokens": 11,
        "outputTokens": 7,
        "query": "hello",
        "historyPreview": [
            {"obj": "Human", "value": "hello"},
            {"obj": "AI", "value": "1 messages, the last: hello"},
        ],
    }


def test_stream(server: Server, provider: FakeProvider) -> None:
    response = server.ask(make_app_key(provider), "hello", stream=True, chatId="s")
    assert response.headers["content-type"] == "text/event-stream;charset=utf-8"
    assert response.headers["cache-control"] == "no-cache, no-transform"
    assert response.headers["x-accel-buffering"] == "no"
    events = events_of(response.text)
    assert {name for name, _ in events} == {None}
    assert events[0][1]["choices"] == [
        {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
    ]
    assert text_of(events) == "1 messages, the last: hello"
    assert events[-2][1]["choices"] == [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    assert events[-1] == (None, "[DONE]")
    assert {data["object"] for _, data in events[:-1]} == {"chat.completion.chunk"}
    assert {data["id"] for _, data in events[:-1]} == {"s"}


def test_stream_with_usage(server: Server, provider: FakeProvider) -> None:
    response = server.ask(make_app_key(provider), stream=True, stream_options={"include_usage": True})
    events = events_of(response.text)
    assert events[-2][1]["choices"] == []
    assert events[-2][1]["usage"] == {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    assert {data["usage"] for _, data in events[:-2]} == {None}
    assert text_of(events)
    assert events[-1][1] == "[DONE]"


def test_stream_with_detail(server: Server, provider: FakeProvider) -> None:
    events = events_of(server.ask(make_app_key(provider), "hello", stream=True, detail=True).text)
    assert events[0] == ("flowNodeStatus", {"status": "running", "name": "AI Chat"})
    assert [name for name, _ in events[1:-2]] == ["answer"] * len(events[1:-2])
    assert text_of(events) == "1 messages, the last: hello"
    assert events[-3][1]["choices"][0]["finish_reason"] == "stop"
    assert events[-2][0] == "flowResponses"
    assert events[-2][1][0]["moduleType"] == "chatNode"
    assert events[-1] == ("answer", "[DONE]")


def test_stream_with_detail_in_the_classic_dialect(server: Server, provider: FakeProvider) -> None:
    key = make_app_key(provider, dialect=Dialect.CLASSIC)
    events = events_of(server.ask(key, "hello", stream=True, detail=True).text)
    assert events[0] == ("moduleStatus", {"status": "running", "name": "AI Chat"})
    assert events[-2] == ("answer", "[DONE]")
    assert events[-1][0] == "appStreamResponse"


@pytest.mark.parametrize("stream", [False, True])
def test_the_next_question_knows_the_first(server: Server, provider: FakeProvider, stream: bool) -> None:
    app = make_app(provider, system_prompt="Be brief.")
    _, key = factories.make_key(app=app)
    first, second = factories.unique("my name is Ada"), factories.unique("what is my name")
    server.ask(key, first, chatId="c", stream=stream)
    # Anything else in `messages` does not count in a conversation: the database has the history.
    messages = [{"role": "user", "content": "made up"}, {"role": "assistant", "content": "made up"}]
    server.ask(key, chatId="c", stream=stream, messages=[*messages, {"role": "user", "content": second}])
    (call,) = provider.calls_about(second)
    assert call["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": first},
        {"role": "assistant", "content": f"2 messages, the last: {first}"},
        {"role": "user", "content": second},
    ]
    assert messages_of(app, "c") == [
        ("user", first, "complete"),
        ("assistant", f"2 messages, the last: {first}", "complete"),
        ("user", second, "complete"),
        ("assistant", f"4 messages, the last: {second}", "complete"),
    ]


def test_history_is_as_long_as_the_app_says(server: Server, provider: FakeProvider) -> None:
    key = make_app_key(provider, history_length=2)
    for number in range(3):
        server.ask(key, f"question {number}", chatId="c")
    assert content_of(server.ask(key, "last", chatId="c")) == "3 messages, the last: last"


def test_the_same_chat_id_in_another_app_is_another_chat(server: Server, provider: FakeProvider) -> None:
    one, other = make_app_key(provider), make_app_key(provider)
    server.ask(one, "hello", chatId="111")
    assert content_of(server.ask(other, "hello", chatId="111")).startswith("1 messages")


@pytest.mark.parametrize("chat_id", [None, ""])
def test_without_chat_id_nothing_is_kept(server: Server, provider: FakeProvider, chat_id: str | None) -> None:
    app = make_app(provider)
    _, key = factories.make_key(app=app)
    messages = [
        {"role": "system", "content": "s"},
        {"role": "developer", "content": "d"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "last"},
    ]
    response = server.ask(key, messages=messages, chatId=chat_id)
    assert content_of(response) == "5 messages, the last: last"
    assert response.json()["id"] == response.headers["x-request-id"]
    assert not Conversation.objects.filter(app=app).exists()


def test_the_ledger_has_it_when_the_answer_is_there(server: Server, provider: FakeProvider) -> None:
    app = make_app(provider)
    api_key, key = factories.make_key(app=app)
    record = record_of(server.ask(key))
    assert (record.team_id, record.key_id, record.app_id) == (app.team_id, api_key.pk, app.pk)
    assert (record.endpoint, record.model, record.status) == ("chat.completions", "echo", 200)
    assert (record.prompt_tokens, record.completion_tokens) == (11, 7)
    assert (record.token_source, record.outcome) == (TokenSource.PROVIDER, Outcome.COMPLETE)
    assert record.client_address == "127.0.0.1"
    assert record.time_to_first_byte_ms is not None
    assert KeyActivity.objects.get(key=api_key).last_used_from == "127.0.0.1"


def test_a_refused_request_is_not_in_the_ledger(server: Server, provider: FakeProvider) -> None:
    response = server.ask(make_app_key(provider), messages=[])
    check_refusal(response, "invalid_parameter", param="messages")
    assert not UsageRecord.objects.filter(pk=response.headers["x-request-id"]).exists()


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_are_bounded_when_the_provider_reports_none(
    server: Server, provider: FakeProvider, stream: bool
) -> None:
    record = record_of(server.ask(make_app_key(provider, "no_usage"), "\u5bfc\u6f14", stream=stream))
    assert record.token_source == TokenSource.BOUND
    # Six bytes of UTF-8 and what a chat template adds; three bytes of answer.
    assert (record.prompt_tokens, record.completion_tokens) == (6 + 16, 3)


def test_variables(server: Server, provider: FakeProvider) -> None:
    key = make_app_key(provider, system_prompt="{{ name }} in {{city}}, {{unknown}}, {{n}}")
    question = factories.unique("q")
    server.ask(key, question, variables={"name": "Ada", "city": "Paris", "n": 3})
    (call,) = provider.calls_about(question)
    assert call["messages"][0]["content"] == "Ada in Paris, {{unknown}}, 3"


def test_max_tokens_may_be_lowered_only(server: Server, provider: FakeProvider) -> None:
    key = make_app_key(provider, max_tokens=100)
    sent = []
    for asked in ({}, {"max_tokens": 50}, {"max_completion_tokens": 20}, {"max_tokens": 5000}):
        question = factories.unique("q")
        server.ask(key, question, **asked)
        sent.append(provider.calls_about(question)[0]["max_tokens"])
    assert sent == [100, 50, 20, 100]


@pytest.mark.parametrize(("can_override", "sent"), [(False, 0.5), (True, 1.5)])
def test_temperature_is_the_apps_unless_it_lets_go(
    server: Server, provider: FakeProvider, can_override: bool, sent: float
) -> None:
    key = make_app_key(provider, temperature=0.5, can_override=can_override)
    question = factories.unique("q")
    server.ask(key, question, temperature=1.5, top_p=0.9, stop=["x"], seed=7, user="u", frequency_penalty=1)
    (call,) = provider.calls_about(question)
    assert call["temperature"] == sent
    assert ("seed" in call) is can_override


def test_content_parts(server: Server, provider: FakeProvider) -> None:
    app = make_app(provider)
    _, key = factories.make_key(app=app)
    question = factories.unique("what is this")
    image = {"type": "image_url", "image_url": {"url": "https://pictures.example/a.png"}}
    parts = [
        {"type": "text", "text": question},
        image,
        {"type": "file_url", "name": "a.pdf", "url": "https://files.example/a.pdf"},
    ]
    assert server.ask(key, messages=[{"role": "user", "content": parts}], chatId="c").status_code == 200
    (call,) = provider.calls_about(question)
    link = {"type": "text", "text": "[a.pdf](https://files.example/a.pdf)"}
    assert call["messages"][-1]["content"] == [parts[0], image, link]
    # It is kept as it was asked, and asked again as it was kept.
    assert Message.objects.get(conversation__app=app, role="user").content == parts
    server.ask(key, "and now?", chatId="c")
    assert provider.calls_about(question)[-1]["messages"][0]["content"] == [parts[0], image, link]


def test_what_the_caller_says_of_the_chat_is_kept(server: Server, provider: FakeProvider) -> None:
    app = make_app(provider)
    _, key = factories.make_key(app=app)
    answer_id = factories.unique("answer")
    server.ask(key, chatId="c", customUid="u1", metadata={"a": 1}, responseChatItemId=answer_id, variables={"v": "x"})
    server.ask(key, chatId="c", metadata={"b": 2})
    conversation = Conversation.objects.get(app=app)
    assert conversation.custom_uid == "u1"
    assert conversation.metadata == {"b": 2}
    assert conversation.variables == {"v": "x"}
    answer = conversation.messages.get(data_id=answer_id)
    assert answer.role == "assistant"
    assert answer.response_data[0]["moduleType"] == "chatNode"
    check_refusal(
        server.ask(key, chatId="c", responseChatItemId=answer_id), "invalid_parameter", param="responseChatItemId"
    )


def test_an_app_key_names_its_own_app_or_none(server: Server, provider: FakeProvider) -> None:
    app = make_app(provider)
    other = make_app(provider, team=app.team)
    _, key = factories.make_key(app=app)
    assert server.ask(key, appId=app.pk).status_code == 200
    assert server.ask(f"{key}-{app.pk}").status_code == 200
    assert server.ask(key, model=other.pk).status_code == 200
    check_refusal(server.ask(key, appId=other.pk), "wrong_key_kind")
    check_refusal(server.ask(f"{key}-{other.pk}"), "wrong_key_kind")


def test_a_global_key_that_may_name_an_app(server: Server, provider: FakeProvider) -> None:
    app = make_app(provider)
    other = make_app(provider, "cut_short", team=app.team)
    _, key = factories.make_key(app.team, can_name_app=True)
    assert content_of(server.ask(key, appId=app.pk)) != "cut"
    assert content_of(server.ask(f"{key}-{other.pk}")) == "cut"
    assert content_of(server.ask(key, model=other.pk)) == "cut"
    # The body comes first, then the suffix, then the model.
    assert content_of(server.ask(f"{key}-{app.pk}", appId=other.pk, model=app.pk)) == "cut"
    assert content_of(server.ask(f"{key}-{other.pk}", model=app.pk)) == "cut"
    check_refusal(server.ask(key), "invalid_parameter", param="appId")


@pytest.mark.parametrize("app_id", ["foreign", "archived", "absent", "malformed"])
def test_foreign_and_absent_apps_look_alike(server: Server, provider: FakeProvider, app_id: str) -> None:
    app = make_app(provider)
    archived = make_app(provider, team=app.team, archived_at=app.created_at)
    ids = {"foreign": make_app(provider).pk, "archived": archived.pk, "absent": "0" * 24, "malformed": "nonsense"}
    _, key = factories.make_key(app.team, can_name_app=True)
    assert check_refusal(server.ask(key, appId=ids[app_id]), "appUnExist") == "There is no such app."


def test_a_provider_secret_is_sent_and_a_changed_url_clears_it(server: Server, provider: FakeProvider) -> None:
    app = make_app(provider)
    its_provider = factories.provider_of(app)
    its_provider.set_secret("sk-of-the-provider")
    its_provider.save()
    _, key = factories.make_key(app=app)
    server.ask(key)
    assert provider.headers[-1]["Authorization"] == "Bearer sk-of-the-provider"
    type(its_provider).objects.filter(pk=its_provider.pk).update(
        base_url=provider.url.replace("127.0.0.1", "127.0.0.2")
    )
    its_provider.refresh_from_db()
    assert not its_provider.has_secret


@pytest.fixture
def client(server: Server, provider: FakeProvider) -> Any:
    with openai.OpenAI(base_url=f"{server.base_url}/v1", api_key=make_app_key(provider), max_retries=0) as client:
        yield client


def test_the_openai_client(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="any", messages=[{"role": "user", "content": "hi"}])
    assert answer.choices[0].message.content == "1 messages, the last: hi"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 18


def test_the_openai_client_streaming(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="any",
        messages=[{"role": "user", "content": "hi"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "1 messages, the last: hi"
    assert chunks[-1].usage is not None


def test_the_openai_client_understands_a_refusal(server: Server) -> None:
    with (
        openai.OpenAI(base_url=f"{server.base_url}/v1", api_key="fastgpt-wrong-key-of-some-length") as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client.chat.completions.create(model="any", messages=[{"role": "user", "content": "hi"}])
    assert caught.value.code == "invalid_api_key"
    assert caught.value.type == "authentication_error"
