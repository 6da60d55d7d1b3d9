from typing import Any

import report
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

weather = tool(report.weather)


class Weather(BaseModel):
    city: str
    rain: bool


def chat(key: str = report.KEY, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(base_url=report.BASE_URL, api_key=key, model=report.MODEL, **options)


def embedded_by(model: str, **options: Any) -> dict[str, Any]:
    embeddings = OpenAIEmbeddings(base_url=report.BASE_URL, api_key=report.GLOBAL_KEY, model=model, **options)
    return {"dimensions": [len(vector) for vector in embeddings.embed_documents(["one", "two"])]}


def ask(key: str, question: str) -> str:
    return str(chat(key).invoke(question).content)


def usage_of(message: AIMessage) -> list[int]:
    assert message.usage_metadata is not None
    return [message.usage_metadata["input_tokens"], message.usage_metadata["output_tokens"]]


def plain() -> dict[str, Any]:
    answer = chat().invoke(report.QUESTION)
    return {"text": answer.content, "usage": usage_of(answer)}


def streamed(question: str) -> dict[str, Any]:
    chunks = list(chat().stream(question, stream_usage=True))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return {"pieces": [chunk.content for chunk in chunks if chunk.content], "usage": usage_of(whole)}


def told_by(chat_model: ChatOpenAI) -> str:
    model = chat_model.bind_tools([weather])
    messages: list[Any] = [HumanMessage(report.QUESTION)]
    called = model.invoke(messages)
    messages += [called, *(weather.invoke(call) for call in called.tool_calls)]
    return model.invoke(messages).text


def tools() -> dict[str, Any]:
    return {"text": told_by(chat())}


def tools_streamed() -> dict[str, Any]:
    whole: AIMessageChunk | None = None
    for chunk in chat().bind_tools([weather]).stream(report.QUESTION):
        whole = chunk if whole is None else whole + chunk
    assert whole is not None
    (call,) = whole.tool_calls
    return {"name": call["name"], "arguments": call["args"]}


def structured() -> dict[str, Any]:
    return chat().with_structured_output(Weather).invoke(report.QUESTION).model_dump()


def structured_by_function() -> dict[str, Any]:
    return chat().with_structured_output(Weather, method="function_calling").invoke(report.QUESTION).model_dump()


def embedded() -> dict[str, Any]:
    return embedded_by(report.EMBEDDING_MODEL, check_embedding_ctx_length=False)


def embedded_by_tokens() -> dict[str, Any]:
    """What it sends by default are tokens of OpenAI's tokenizer."""
    return embedded_by(report.PROVIDER_MODEL)


def responses() -> dict[str, Any]:
    model = chat(use_responses_api=True)
    answer = model.invoke(report.QUESTION)
    pieces = [chunk.text for chunk in model.stream(report.QUESTION) if chunk.text]
    return {"text": answer.text, "usage": usage_of(answer), "pieces": pieces, "told": told_by(model)}


report.run(
    ask,
    streamed,
    plain,
    tools,
    tools_streamed,
    structured,
    structured_by_function,
    embedded,
    embedded_by_tokens,
    responses,
)
