import asyncio
from typing import Any

import report
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models import Model
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.usage import RunUsage


class Weather(BaseModel):
    city: str
    rain: bool


def provider(key: str = report.KEY) -> OpenAIProvider:
    return OpenAIProvider(base_url=report.BASE_URL, api_key=key)


def model(key: str = report.KEY) -> OpenAIChatModel:
    return OpenAIChatModel(report.MODEL, provider=provider(key))


def ask(key: str, question: str) -> str:
    return Agent(model(key)).run_sync(question).output


def tokens(usage: RunUsage) -> list[int]:
    return [usage.input_tokens, usage.output_tokens]


def plain(chosen: Model | None = None) -> dict[str, Any]:
    result = Agent(chosen or model()).run_sync(report.QUESTION)
    return {"text": result.output, "usage": tokens(result.usage)}


def streamed(question: str, chosen: Model | None = None) -> dict[str, Any]:
    async def stream() -> dict[str, Any]:
        async with Agent(chosen or model()).run_stream(question) as result:
            pieces = [piece async for piece in result.stream_text(delta=True, debounce_by=None)]
            return {"pieces": pieces, "usage": tokens(result.usage)}

    return asyncio.run(stream())


def tools(chosen: Model | None = None) -> dict[str, Any]:
    return {"text": Agent(chosen or model(), tools=[report.weather]).run_sync(report.QUESTION).output}


def tools_streamed() -> dict[str, Any]:
    """Stream both the call and what follows it, which is all that an agent shows."""

    async def stream() -> dict[str, Any]:
        async with Agent(model(), tools=[report.weather]).run_stream(report.QUESTION) as result:
            await result.get_output()
            (call,) = (
                part for message in result.all_messages() for part in message.parts if part.part_kind == "tool-call"
            )
            return {"name": call.tool_name, "arguments": call.args_as_dict()}

    return asyncio.run(stream())


def structured() -> dict[str, Any]:
    return Agent(model(), output_type=NativeOutput(Weather)).run_sync(report.QUESTION).output.model_dump()


def structured_by_function() -> dict[str, Any]:
    return Agent(model(), output_type=Weather).run_sync(report.QUESTION).output.model_dump()


def responses() -> dict[str, Any]:
    """What it calls by default for models of OpenAI's."""
    newer = OpenAIResponsesModel(report.MODEL, provider=provider())
    return {**plain(newer), **streamed(report.QUESTION, newer), "told": tools(newer)["text"]}


report.run(ask, streamed, plain, tools, tools_streamed, structured, structured_by_function, responses)
