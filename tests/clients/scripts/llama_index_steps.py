from typing import Any

import report
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

weather = FunctionTool.from_defaults(report.weather)
USER = ChatMessage(role="user", content=report.QUESTION)


class Weather(BaseModel):
    """The weather in a city."""

    city: str
    rain: bool


def model(key: str = report.KEY, **options: Any) -> OpenAILike:
    return OpenAILike(
        model=report.MODEL,
        api_base=report.BASE_URL,
        api_key=key,
        is_chat_model=True,
        is_function_calling_model=True,
        **options,
    )


def ask(key: str, question: str) -> str:
    # It tries again whatever is a 429, unlike OpenAI's clients also a spent quota, some seconds later.
    options = {} if key == report.BUSY_KEY else {"max_retries": 0}
    return model(key, **options).complete(question).text


def plain() -> dict[str, Any]:
    answer = model().chat([USER])
    usage = answer.raw.usage
    return {"text": answer.message.content, "usage": [usage.prompt_tokens, usage.completion_tokens]}


def streamed(question: str) -> dict[str, Any]:
    messages = [ChatMessage(role="user", content=question)]
    chunks = list(model(additional_kwargs={"stream_options": {"include_usage": True}}).stream_chat(messages))
    usage = chunks[-1].raw.usage
    pieces = [chunk.delta for chunk in chunks if chunk.delta]
    return {"pieces": pieces, "usage": [usage.prompt_tokens, usage.completion_tokens]}


def tools() -> dict[str, Any]:
    called = model().chat_with_tools([weather], chat_history=[USER])
    history = [USER, called.message]
    for call in model().get_tool_calls_from_response(called):
        result = str(weather(**call.tool_kwargs))
        history.append(ChatMessage(role="tool", content=result, additional_kwargs={"tool_call_id": call.tool_id}))
    return {"text": model().chat_with_tools([weather], chat_history=history).message.content}


def tools_streamed() -> dict[str, Any]:
    *_, last = model().stream_chat_with_tools([weather], chat_history=[USER])
    (call,) = model().get_tool_calls_from_response(last)
    return {"name": call.tool_name, "arguments": call.tool_kwargs}


def structured() -> dict[str, Any]:
    sllm = model(should_use_structured_outputs=True).as_structured_llm(Weather)
    return sllm.chat([USER]).raw.model_dump()


def structured_by_function() -> dict[str, Any]:
    return model().as_structured_llm(Weather).chat([USER]).raw.model_dump()


report.run(ask, streamed, plain, tools, tools_streamed, structured, structured_by_function)
